"""What only AWS would notice of the templates and of the policy for deploying, since no emulator looks at it."""

import json
import re
from typing import cast

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from pydantic import JsonValue

import api
import store
from infra.local import template
from tests.conftest import EVERYTHING, ROOT, TEMPLATE

Json = dict[str, JsonValue]
DECLARED = cast("dict[str, Json]", template.read(template.PATH)["Resources"])
MONITORING = cast("dict[str, Json]", template.read(ROOT / "infra/monitoring.yaml")["Resources"])


def of_type(resources: dict[str, Json], prefix: str) -> list[str]:
    return [name for name, each in resources.items() if str(each["Type"]).startswith(prefix)]


def properties(resource: Json) -> Json:
    return cast("Json", resource["Properties"])


# ---- infra/monitoring.yaml


ALARMS = {name: properties(MONITORING[name]) for name in of_type(MONITORING, "AWS::CloudWatch::Alarm")}
OVER_FUNCTIONS = {"FunctionErrors": "Errors", "FunctionThrottles": "Throttles"}
"""The alarms that sum up a metric of all functions, and the metric."""

BODY, SUBSTITUTED = cast(
    "list[JsonValue]", cast("Json", properties(MONITORING["Dashboard"])["DashboardBody"])["Fn::Sub"]
)
WIDGETS = json.loads(re.sub(r"\$\{\w+Alarms?\}", "", str(BODY)))["widgets"]


SOURCE = "".join(path.read_text() for path in (ROOT / "functions").rglob("*.py"))
FILTERED = [
    cast("list[Json]", properties(MONITORING[name])["MetricTransformations"])[0]
    for name in of_type(MONITORING, "AWS::Logs::MetricFilter")
]
COUNTED = {
    *re.findall(r'\.count\("(\w+)"', SOURCE),
    *api.ERROR_METRICS.values(),
    *(str(each["MetricName"]) for each in FILTERED),
}
"""The metrics of the stack's own namespace."""


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_tells_the_topic_what_to_do(name: str) -> None:
    alarm = ALARMS[name]
    assert alarm["TreatMissingData"] == "notBreaching"  # no requests, no data
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Topic"}]
    assert len(str(alarm["AlarmDescription"])) > 50, "what is wrong, and what to do first"
    periods = int(str(alarm["EvaluationPeriods"]))
    assert 1 <= int(str(alarm.get("DatapointsToAlarm", periods))) <= periods
    assert int(str(alarm.get("Period", 60))) * periods <= 900, "seconds until it is known"


# The metrics of AWS's services, and where they are: by dimension, the value that it has here.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html and those of the other services
TABLE: dict[str, JsonValue] = {"TableName": {"Ref": "Table"}}
THROTTLES = {"WriteThrottleEvents", "ReadThrottleEvents"}
OF_AWS: list[tuple[str, set[str], dict[str, JsonValue]]] = [
    ("AWS/ApiGateway", {"5xx"}, {"ApiId": {"Ref": "Api"}}),
    ("AWS/Lambda", {"Errors", "IteratorAge"}, {"FunctionName": {"Ref": "NotifyTelegram"}}),
    ("AWS/SQS", {"ApproximateNumberOfMessagesVisible"}, {"QueueName": {"Ref": "UntoldQueue"}}),
    ("AWS/DynamoDB", THROTTLES, TABLE),
    ("AWS/DynamoDB", THROTTLES, TABLE | {"GlobalSecondaryIndexName": store.INDEX}),
]


@pytest.mark.parametrize("name", [name for name, alarm in ALARMS.items() if "Metrics" not in alarm])
def test_an_alarm_watches_a_metric_that_exists(name: str) -> None:
    alarm = ALARMS[name]
    assert {"Statistic", "Period", "Threshold", "ComparisonOperator"} <= alarm.keys()
    assert (alarm["Statistic"] == "Maximum") == (alarm["MetricName"] in {"IteratorAge", *OF_AWS[2][1]})
    dimensions = {str(each["Name"]): each["Value"] for each in cast("list[Json]", alarm.get("Dimensions", []))}
    if dimensions:
        named = [
            metrics for namespace, metrics, where in OF_AWS if (namespace, where) == (alarm["Namespace"], dimensions)
        ]
        assert alarm["MetricName"] in named[0]
    else:
        assert alarm["Namespace"] == {"Ref": "MetricsNamespace"}
        assert alarm["MetricName"] in COUNTED


@pytest.mark.parametrize(
    ("function", "condition"), [(name, DECLARED[name].get("Condition")) for name in TEMPLATE.functions(**EVERYTHING)]
)
def test_every_function_is_watched_and_shown(function: str, condition: JsonValue) -> None:
    parameters = cast("Json", properties(DECLARED["Monitoring"])["Parameters"])
    passed = {"Fn::If": [condition, {"Ref": function}, ""]} if condition else {"Ref": function}
    names = [name for name, value in parameters.items() if value == passed]
    assert names, "template.yaml: not a parameter of Monitoring"
    reference = json.dumps({"Ref": names[0]})
    for alarm, metric in OVER_FUNCTIONS.items():
        if alarm == "FunctionErrors" and function == "NotifyTelegramFunction":
            # Telegram throttles it now and then, and Lambda goes on trying: its errors have an alarm of their own.
            assert (ALARMS["ChatsNotTold"]["MetricName"], reference in json.dumps(ALARMS["ChatsNotTold"])) == (
                metric,
                True,
            )
            continue
        lines = [line for line in map(json.dumps, cast("list[Json]", ALARMS[alarm]["Metrics"])) if reference in line]
        assert lines, f"infra/monitoring.yaml: {alarm} does not watch it"
        assert f'"MetricName": "{metric}"' in lines[0], "infra/monitoring.yaml"
        assert ("AWS::NoValue" in lines[0]) == bool(condition), "infra/monitoring.yaml: an empty dimension is refused"
    assert reference in json.dumps(SUBSTITUTED), "infra/monitoring.yaml: not among the dashboard's Functions"


@pytest.mark.parametrize("alarm", OVER_FUNCTIONS)
def test_an_alarm_over_functions_is_within_the_quota(alarm: str) -> None:
    expression, *metrics = cast("list[Json]", ALARMS[alarm]["Metrics"])
    assert expression["Expression"] == "SUM(METRICS())"
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
    assert len(metrics) <= 10
    for metric in metrics:
        measured = json.dumps(metric)
        assert '"ReturnData": false' in measured
        assert '"MetricStat": {"Stat": "Sum", "Period": 60, "Metric": {"Namespace": "AWS/Lambda"' in measured
        assert '"Dimensions": [{"Name": "FunctionName"' in measured
    assert {"Threshold", "ComparisonOperator", "DatapointsToAlarm"} <= ALARMS[alarm].keys()


def test_the_table_and_its_index_are_watched_apart() -> None:
    """CloudWatch counts the throttles of an index apart from those of its table."""
    for metric in ("WriteThrottleEvents", "ReadThrottleEvents"):
        watched = [
            cast("list[Json]", alarm["Dimensions"]) for alarm in ALARMS.values() if alarm.get("MetricName") == metric
        ]
        assert [len(dimensions) for dimensions in watched] == [1, 2]


def test_the_dashboard_shows_the_state_of_every_alarm() -> None:
    assert set(re.findall(r"\$\{(\w+)\.Arn\}", str([BODY, SUBSTITUTED]))) == set(ALARMS)


def test_the_metrics_that_are_counted_are_shown() -> None:
    searched = r'Namespace=\\"\$\{MetricsNamespace\}\\" MetricName=\\"(\w+)|"\$\{MetricsNamespace\}", "(\w+)"'
    assert {name for found in re.findall(searched, str(BODY)) for name in found if name} == COUNTED


def test_a_graph_has_no_more_searches_than_cloudwatch_takes() -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
    assert [widget for widget in WIDGETS if json.dumps(widget).count("SEARCH(") > 5] == []


def test_alarms_are_mailed_where_there_is_an_address() -> None:
    assert MONITORING["Email"]["Condition"] == "HasEmail"
    email = properties(MONITORING["Email"])
    assert (email["Protocol"], email["Endpoint"]) == ("email", {"Ref": "AlarmEmail"})


def test_alarms_of_integrations_exist_only_with_them() -> None:
    # In one that does not exist, the Ref of a dimension is empty, which CloudWatch refuses.
    conditions = {name: MONITORING[name].get("Condition") for name in ALARMS}
    told = ["ChatsNotTold", "ChatsToldLate", "ChatUnreachable", "ChangesUntold"]
    assert conditions == dict.fromkeys(ALARMS) | dict.fromkeys(told, "TellsChats") | {"AlertsTruncated": "HasAlerts"}


# ---- template.yaml


@pytest.mark.parametrize("name", of_type(DECLARED, "AWS::DynamoDB::Table"))
def test_a_table_is_kept_and_can_be_restored(name: str) -> None:
    table = DECLARED[name]
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert properties(table)["DeletionProtectionEnabled"] is True
    assert properties(table)["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert properties(table)["BillingMode"] == "PAY_PER_REQUEST"
    # Encrypted with the AWS owned key. With an SSESpecification it would be a key that KMS charges for.
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.howitworks.html
    assert "SSESpecification" not in properties(table)


@pytest.mark.parametrize("name", of_type(DECLARED, "AWS::Logs::LogGroup"))
def test_logs_are_kept_as_long_as_the_parameter_says(name: str) -> None:
    assert properties(DECLARED[name])["RetentionInDays"] == {"Ref": "LogDays"}


@pytest.mark.parametrize("name", of_type(DECLARED, "AWS::IAM::"))
def test_a_policy_has_no_wildcard(name: str) -> None:
    # But for the streams of the table, whose names are times, and the items of what chats were told.
    policy = json.dumps(properties(DECLARED[name])).replace("Table}/stream/*", "").replace("Name}/stream/*", "")
    policy = policy.replace('"telegram#*"', "")
    assert "*" not in policy


def test_functions_may_write_their_log_and_no_other() -> None:
    document = cast("Json", properties(DECLARED["LogPolicy"])["PolicyDocument"])
    actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert document["Statement"] == [
        {"Effect": "Allow", "Action": actions, "Resource": {"Fn::GetAtt": "FunctionsLog.Arn"}}
    ]
    assert TEMPLATE.Globals["Function"]["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": {"Ref": "FunctionsLog"}}


def test_the_layer_fits_the_functions() -> None:
    settings = TEMPLATE.Globals["Function"]
    layer = properties(DECLARED["DependenciesLayer"])
    assert layer["CompatibleRuntimes"] == [settings["Runtime"]]
    assert layer["CompatibleArchitectures"] == settings["Architectures"] == [{"Ref": "Architecture"}]
    assert settings["Layers"] == [{"Ref": "DependenciesLayer"}]
    assert layer["RetentionPolicy"] == "Delete"  # every version kept counts against the account's 75 GB
    built_for = re.findall(r"--python-version ([\d.]+)", (ROOT / "infra/layer/Makefile").read_text())
    assert [f"python{version}" for version in built_for] == [settings["Runtime"]]


@pytest.mark.parametrize("name", of_type(DECLARED, "AWS::IAM::Role"))
def test_a_role_is_assumed_by_its_service_alone(name: str) -> None:
    service = "scheduler" if name == "ReminderRole" else "lambda"
    statement = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = properties(DECLARED[name])["AssumeRolePolicyDocument"]
    assert trust == {"Version": "2012-10-17", "Statement": [statement]}
    # Without a version, IAM reads a policy as one of 2008.
    policies = cast("list[Json]", properties(DECLARED[name])["Policies"])
    assert {cast("Json", policy["PolicyDocument"])["Version"] for policy in policies} == {"2012-10-17"}


@pytest.mark.parametrize("name", TEMPLATE.functions(**EVERYTHING))
def test_a_function_is_built_by_its_makefile_behind_the_api(name: str) -> None:
    assert DECLARED[name]["Metadata"] == {"BuildMethod": "makefile"}
    events = TEMPLATE.functions(**EVERYTHING)[name].Events.values()
    assert {json.dumps(event.Properties["ApiId"]) for event in events if event.Type == "HttpApi"} <= {
        json.dumps({"Ref": "IncidentApi"})
    }


CONDITIONS = {
    "TwoTables": {"PreviousTable": "restored"},
    "Alerts": {"Alerts": "enabled"},
    "Telegram": {"TelegramChats": "1"},
    "TellsChats": {"TelegramChats": "1", "TelegramTokenParameter": "/token"},
    "Reminds": {"TelegramChats": "1", "TelegramTokenParameter": "/token", "RemindAt": "rate(1 day)"},
    "LimitsCreates": {"CreatesPerSecond": "5"},
    "Domain": {"DomainName": "incidents.example.com"},
    "BelowPath": {"BasePath": "v1"},
    "MappedElsewhere": {"MappedApi": "abc123"},
    "DomainOnly": {"DisableExecuteApiEndpoint": "true"},
    "Browsers": {"AllowedOrigins": "https://ops.example.com"},
    "Budget": {"BudgetUSD": "100"},
}


@pytest.mark.parametrize(("condition", "parameters"), CONDITIONS.items())
def test_a_condition_needs_its_parameters(condition: str, parameters: dict[str, str]) -> None:
    assert TEMPLATE.holds(condition, **parameters)
    for missing in parameters:
        rest = {name: value for name, value in parameters.items() if name != missing}
        assert not TEMPLATE.holds(condition, **rest)


def test_the_stack_has_its_own_table_by_default() -> None:
    assert set(TEMPLATE.Conditions) == {"OwnTable", *CONDITIONS}
    assert TEMPLATE.holds("OwnTable")
    assert not TEMPLATE.holds("OwnTable", Table="restored")


def test_browsers_may_send_and_see_what_the_contract_has() -> None:
    assert TEMPLATE.cors() is None
    cors = TEMPLATE.cors(AllowedOrigins="https://a.example,https://b.example")
    assert cors
    assert cors.AllowOrigins == ["https://a.example", "https://b.example"]
    assert set(cors.AllowMethods) == {route.method for route in TEMPLATE.routes()}
    contract = json.loads((ROOT / "infra/openapi.json").read_text())
    operations = [operation for path in contract["paths"].values() for operation in path.values()]
    sent = [
        each["name"] for operation in operations for each in operation.get("parameters", []) if each["in"] == "header"
    ]
    assert set(cors.AllowHeaders) == {"authorization", "content-type", *map(str.lower, sent)}
    assert set(cors.ExposeHeaders) == set(map(str.lower, contract["components"]["headers"]))


def test_a_domain_is_regional_and_speaks_tls_1_2() -> None:
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-custom-domain-names.html
    (configuration,) = cast("list[Json]", properties(DECLARED["ApiDomain"])["DomainNameConfigurations"])
    assert (configuration["EndpointType"], configuration["SecurityPolicy"]) == ("REGIONAL", "TLS_1_2")
    assert {DECLARED[name]["Condition"] for name in ("ApiDomain", "ApiDomainMapping")} == {"Domain"}
    assert properties(DECLARED["ApiDomain"])["DomainName"] == {"Ref": "DomainName"}
    assert configuration["CertificateArn"] == {"Ref": "CertificateArn"}
    mapping = properties(DECLARED["ApiDomainMapping"])
    assert mapping["DomainName"] == {"Ref": "ApiDomain"}
    assert mapping["ApiId"] == {"Fn::If": ["MappedElsewhere", {"Ref": "MappedApi"}, {"Ref": "IncidentApi"}]}
    api = properties(DECLARED["IncidentApi"])
    assert api["DisableExecuteApiEndpoint"] == {"Fn::If": ["DomainOnly", True, False]}


def test_alarms_watch_the_metrics_that_the_functions_write() -> None:
    variables = cast("dict[str, Json]", TEMPLATE.Globals["Function"]["Environment"])["Variables"]
    watched = cast("Json", properties(DECLARED["Monitoring"])["Parameters"])
    assert watched["MetricsNamespace"] == variables["METRICS_NAMESPACE"]
    refs = {"AlarmEmail": "AlarmEmail", "Api": "IncidentApi", "AccessLog": "AccessLog"}
    assert {name: watched[name] for name in refs} == {name: {"Ref": value} for name, value in refs.items()}
    assert watched["UntoldQueue"] == {"Fn::If": ["TellsChats", {"Fn::GetAtt": "UntoldQueue.QueueName"}, ""]}


def test_the_parameters_of_the_stack_reach_the_functions() -> None:
    given = TEMPLATE.environment(StatusShards="7", Table="restored", DynamoDBEndpoint="http://localhost:1")
    assert given["STATUS_SHARDS"] == "7"
    assert given["TABLE_NAME"] == "restored"
    assert given["AWS_ENDPOINT_URL_DYNAMODB"] == "http://localhost:1"
    telegram = {"Chats": "-1/7", "TokenParameter": "/token", "Language": "ru", "ApiUrl": "http://localhost:2"}
    told = TEMPLATE.environment(**{f"Telegram{name}": value for name, value in telegram.items()})
    names = ("TELEGRAM_CHATS", "TELEGRAM_TOKEN_PARAMETER", "TELEGRAM_LANGUAGE", "TELEGRAM_API_URL")
    assert [told[name] for name in names] == [*telegram.values()]
    default = TEMPLATE.environment()
    assert default["AWS_ENDPOINT_URL_DYNAMODB"] == ""
    assert (default["KEYS_TABLE"], default["URL_SUFFIX"]) == ("KeysTable", "amazonaws.com")


def test_the_gateway_is_throttled_as_the_parameters_say() -> None:
    api = properties(DECLARED["IncidentApi"])

    def throttle(rate: str) -> Json:
        return {"ThrottlingRateLimit": {"Ref": rate}, "ThrottlingBurstLimit": {"Ref": "RequestsAtOnce"}}

    assert api["DefaultRouteSettings"] == throttle("RequestsPerSecond")  # of each route, not of all together
    creating = [route.key for route in TEMPLATE.routes() if route.method == "POST"]
    limited = {key: throttle("CreatesPerSecond") for key in creating}
    assert api["RouteSettings"] == {"Fn::If": ["LimitsCreates", limited, {"Ref": "AWS::NoValue"}]}


def test_slow_requests_are_counted_where_there_are_few() -> None:
    # A percentile that ignores low counts needs 10 / (1 - percentile) samples in a period:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
    assert not [name for name, alarm in ALARMS.items() if "ExtendedStatistic" in alarm]
    counted = properties(MONITORING["SlowRequests"])
    assert counted["FilterPattern"] == "{ $.latency > 5000 }"
    (slow,) = FILTERED
    assert (slow["MetricValue"], slow["DefaultValue"], slow["MetricNamespace"]) == ("1", 0, {"Ref": "MetricsNamespace"})
    # A number, without quotation marks: the filter compares no text.
    log_format = str(cast("Json", properties(DECLARED["IncidentApi"])["AccessLogSettings"])["Format"])
    line = json.loads(re.sub(r'(?<!")\$context\.\w+', "1", log_format))
    assert line["latency"] == 1
    assert ALARMS["Latency"]["MetricName"] == cast("list[Json]", counted["MetricTransformations"])[0]["MetricName"]


@pytest.mark.parametrize(
    "name", [name for name in of_type(DECLARED, "AWS::IAM::Role") if "table/${Name}" in str(DECLARED[name])]
)
def test_a_role_allows_the_previous_table_as_well(name: str) -> None:
    """CloudFormation changes a role before the functions that have it: they ask the old table for up to a minute."""
    for statement in re.findall(r'"Resource": (\[.*?\]\}?\])', json.dumps(properties(DECLARED[name])["Policies"])):
        if "table/${Name}" in statement:
            present, previous = json.loads(statement)
            ending = str(present["Fn::Sub"][0]).partition("${Name}")[2]
            condition, allowed, nothing = previous["Fn::If"]
            assert (condition, nothing) == ("TwoTables", {"Ref": "AWS::NoValue"})
            assert allowed["Fn::Sub"].endswith(f":table/${{PreviousTable}}{ending}")


def test_the_access_log_has_no_header_query_or_body() -> None:
    settings = cast("Json", properties(DECLARED["IncidentApi"])["AccessLogSettings"])
    assert settings["DestinationArn"] == {"Fn::GetAtt": "AccessLog.Arn"}
    logged = set(re.findall(r"\$context\.([\w.]+)", str(settings["Format"])))
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
    assert logged <= {
        "authorizer.caller",
        "authorizer.reason",
        "authorizer.error",
        "error.message",
        "identity.sourceIp",
        "identity.userArn",
        "integrationErrorMessage",
        "integrationLatency",
        "requestId",
        "requestTime",
        "responseLatency",
        "routeKey",
        "status",
    }


def test_the_stream_is_retried_for_23_hours() -> None:
    # https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html
    mapping = TEMPLATE.functions(**EVERYTHING)["NotifyTelegramFunction"].Events["Changes"].Properties
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    own: Json = {"Fn::GetAtt": "IncidentsTable.StreamArn"}
    assert mapping["Stream"] == {"Fn::If": ["OwnTable", own, {"Ref": "TableStream"}]}
    assert (mapping["MaximumRetryAttempts"], mapping["MaximumRecordAgeInSeconds"]) == (-1, 23 * 60 * 60)
    assert mapping["DestinationConfig"] == {
        "OnFailure": {"Type": "SQS", "Destination": {"Fn::GetAtt": "UntoldQueue.Arn"}}
    }
    # A part of a batch would be a part of a digest; and what the function reports of a part, the emulator would lose.
    assert not {"BisectBatchOnFunctionError", "FunctionResponseTypes"} & mapping.keys()
    ((pattern,),) = [each.values() for each in cast("Json", mapping["FilterCriteria"])["Filters"]]  # type: ignore[union-attr]
    # A filter tests leaves: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
    assert json.loads(str(pattern))["dynamodb"] == {"NewImage": {"position": {"S": [{"exists": True}]}}}
    assert properties(DECLARED["IncidentsTable"])["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}


def test_the_reminders_schedule_is_the_stacks_own() -> None:
    reminder = properties(DECLARED["Reminder"])
    assert reminder["Name"] == {"Fn::Sub": "${AWS::StackName}-reminder"}
    assert reminder["ScheduleExpressionTimezone"] == {"Ref": "RemindTimezone"}
    assert reminder["ScheduleExpression"] == {"Ref": "RemindAt"}
    function: Json = {"Fn::GetAtt": "NotifyTelegramFunction.Arn"}
    target = {"Arn": function, "RoleArn": {"Fn::GetAtt": "ReminderRole.Arn"}, "Input": "{}"}
    assert reminder["Target"] == target
    (policy,) = cast("list[dict[str, Json]]", properties(DECLARED["ReminderRole"])["Policies"])
    allowed = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": function}
    assert policy["PolicyDocument"]["Statement"] == [allowed]


def test_alarms_reach_the_chats_through_the_topic() -> None:
    topic = {"Fn::GetAtt": "Monitoring.Outputs.Topic"}
    subscription = properties(DECLARED["AlarmsToTelegram"])
    assert subscription == {
        "TopicArn": topic,
        "Protocol": "lambda",
        "Endpoint": {"Fn::GetAtt": "NotifyTelegramFunction.Arn"},
    }
    # No emulator looks at the permission, without which SNS loses the message.
    assert properties(DECLARED["AlarmsToTelegramPermission"]) == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": {"Ref": "NotifyTelegramFunction"},
        "Principal": "sns.amazonaws.com",
        "SourceArn": topic,
    }


def test_failed_notifications_are_kept_encrypted_for_14_days() -> None:
    queue = {"MessageRetentionPeriod": 14 * 24 * 60 * 60, "SqsManagedSseEnabled": True}
    assert properties(DECLARED["UntoldQueue"]) == queue


def test_the_access_log_needs_no_room_in_the_resource_policy() -> None:
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging.html
    name = cast("Json", properties(DECLARED["AccessLog"])["LogGroupName"])["Fn::Sub"]
    assert str(name).startswith("/aws/vendedlogs/")


CHATS = {"TelegramChats": "-1001234567890"}
TOKEN = {"TelegramTokenParameter": "/incident-api/telegram-token"}
DOMAIN = {"DomainName": "incidents.example.com"}
CERTIFICATE = {"CertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/1"}
STREAM = {"TableStream": "arn:aws:dynamodb:eu-central-1:123456789012:table/restored/stream/1"}
CONTRADICTIONS: list[tuple[dict[str, str], dict[str, str], str]] = [
    (DOMAIN, CERTIFICATE, "DomainName needs CertificateArn"),
    (CERTIFICATE, DOMAIN, "CertificateArn needs DomainName"),
    ({"BasePath": "v1"}, DOMAIN | CERTIFICATE, "BasePath needs DomainName"),
    ({"MappedApi": "abc123"}, DOMAIN | CERTIFICATE, "MappedApi needs DomainName"),
    (
        {"DisableExecuteApiEndpoint": "true"},
        DOMAIN | CERTIFICATE,
        "Without DomainName, ApiUrl is the only address of the API",
    ),
    (TOKEN, CHATS, "TelegramTokenParameter needs TelegramChats"),
    (CHATS | {"RemindAt": "rate(1 day)"}, TOKEN, "RemindAt needs TelegramTokenParameter"),
    (CHATS | TOKEN | {"Table": "restored"}, STREAM, "With Table, TelegramTokenParameter needs TableStream"),
    (STREAM, {"Table": "restored"}, "TableStream needs Table"),
    ({"BudgetUSD": "100"}, {"AlarmEmail": "ops@example.com"}, "BudgetUSD needs AlarmEmail"),
]
"""Parameters, what they need, and what a deployment without it answers."""


@pytest.mark.parametrize(("parameters", "needed", "description"), CONTRADICTIONS)
def test_parameters_that_contradict_each_other_are_refused(
    parameters: dict[str, str], needed: dict[str, str], description: str
) -> None:
    with pytest.raises(template.ParameterError, match=description):
        TEMPLATE.check_rules(parameters)
    TEMPLATE.check_rules(parameters | needed)


def test_parameters_may_be_set_without_others() -> None:
    TEMPLATE.check_rules({})
    for each in (CHATS, CHATS | TOKEN, {"Table": "restored"}, {"AlarmEmail": "ops@example.com"}):
        TEMPLATE.check_rules(each)


# ---- infra/deploying-policy.json


GENERATED = {
    "AWS::Serverless::Function": (
        "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
    ),
    "AWS::Serverless::HttpApi": ("AWS::ApiGatewayV2::Api", "AWS::ApiGatewayV2::Stage"),
    "AWS::Serverless::LayerVersion": ("AWS::Lambda::LayerVersion",),
}
"""The types that SAM generates for its own: https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification-generated-resources.html"""

RESOURCE_TYPES = sorted(
    {
        resource_type
        for each in (DECLARED | MONITORING).values()
        for resource_type in GENERATED.get(str(each["Type"]), (str(each["Type"]),))
        if resource_type != "AWS::Budgets::Budget"  # its schema has no handlers
    }
)


@pytest.mark.parametrize("resource_type", RESOURCE_TYPES)
def test_a_deployment_may_read_every_resource(resource_type: str) -> None:
    """CloudFormation reads each resource that it has made, with the deployer's permissions."""
    allowed = (ROOT / "infra/deploying-policy.json").read_text().lower()  # as IAM compares actions
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", resource_type).schema
    needed = {*schema["handlers"]["read"]["permissions"]} - {"kms:Decrypt"}  # for a customer's key alone
    assert not [action for action in needed if f'"{action.lower()}"' not in allowed]
