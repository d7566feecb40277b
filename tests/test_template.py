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
_MONITORING = template.read(ROOT / "infra/monitoring.yaml")
MONITORING = cast("dict[str, Json]", _MONITORING["Resources"])


def of_type(resources: dict[str, Json], prefix: str) -> list[str]:
    return [name for name, each in resources.items() if str(each["Type"]).startswith(prefix)]


def properties(resource: Json) -> Json:
    return cast("Json", resource["Properties"])


# ---- infra/monitoring.yaml


ALARMS = {name: properties(MONITORING[name]) for name in of_type(MONITORING, "AWS::CloudWatch::Alarm")}
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
    assert {"Threshold", "ComparisonOperator"} <= alarm.keys()
    assert alarm["TreatMissingData"] == "notBreaching"  # no requests, no data
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Topic"}]
    assert len(str(alarm["AlarmDescription"])) > 50, "what is wrong, and what to do first"
    periods = int(str(alarm["EvaluationPeriods"]))
    assert 1 <= int(str(alarm.get("DatapointsToAlarm", periods))) <= periods
    assert int(str(alarm.get("Period", 60))) * periods <= 900, "seconds until it is known"


TABLE: Json = {"TableName": {"Ref": "Table"}}
INDEX: Json = TABLE | {"GlobalSecondaryIndexName": store.INDEX}
NOTIFY: Json = {"FunctionName": {"Ref": "NotifyTelegram"}}
OF_AWS: list[tuple[JsonValue, ...]] = [
    ("AWS/ApiGateway", "5xx", "Sum", {"ApiId": {"Ref": "Api"}}),
    ("AWS/DynamoDB", "ReadThrottleEvents", "Sum", INDEX),
    ("AWS/DynamoDB", "ReadThrottleEvents", "Sum", TABLE),  # without the index's
    ("AWS/DynamoDB", "WriteThrottleEvents", "Sum", INDEX),
    ("AWS/DynamoDB", "WriteThrottleEvents", "Sum", TABLE),
    ("AWS/Lambda", "Errors", "Sum", NOTIFY),
    ("AWS/Lambda", "IteratorAge", "Maximum", NOTIFY),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "Maximum", {"QueueName": {"Ref": "UndeliveredQueue"}}),
]
"""The metrics of AWS's services that an alarm watches: namespace, name, statistic and dimensions.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html and those of the other services
"""


def test_alarms_watch_metrics_that_exist() -> None:
    watched = []
    for name in ALARMS.keys() - SUMS:
        alarm = ALARMS[name]
        assert "Period" in alarm
        metric = [alarm[key] for key in ("Namespace", "MetricName", "Statistic")]
        if "Dimensions" in alarm:
            dimensions = {str(each["Name"]): each["Value"] for each in cast("list[Json]", alarm["Dimensions"])}
            watched.append((*metric, dimensions))
        else:
            assert metric == [{"Ref": "MetricsNamespace"}, alarm["MetricName"], "Sum"]
            assert alarm["MetricName"] in COUNTED
    assert sorted(watched, key=str) == OF_AWS


SUMS = {"FunctionErrors": "Errors", "FunctionThrottles": "Throttles"}
"""The alarms that sum up a metric of all functions, and the metric."""


def where_deployed(parameter: str, value: Json) -> Json:
    """The value, in infra/monitoring.yaml, with the condition that this parameter is not empty, if it has one."""
    condition = {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, ""]}]}
    names = [name for name, each in cast("Json", _MONITORING["Conditions"]).items() if each == condition]
    return {"Fn::If": [*names, value, {"Ref": "AWS::NoValue"}]} if names else value


def test_every_function_is_watched_and_shown() -> None:
    names = [function.removesuffix("Function") for function in TEMPLATE.functions(**EVERYTHING)]
    passed = cast("Json", properties(DECLARED["Monitoring"])["Parameters"])
    for name in names:
        condition, reference = DECLARED[f"{name}Function"].get("Condition"), {"Ref": f"{name}Function"}
        assert passed[name] == ({"Fn::If": [condition, reference, ""]} if condition else reference), "template.yaml"
        assert ("Fn::If" in where_deployed(name, {})) == bool(condition), "infra/monitoring.yaml: Conditions"
    for alarm, metric in SUMS.items():
        summed: list[Json] = [{"Id": "functions", "Expression": "SUM(METRICS())"}]
        for name in names:
            if (alarm, name) == ("FunctionErrors", "NotifyTelegram"):
                continue  # Telegram throttles it now and then, and Lambda goes on trying: NotificationsFailing watches its errors.
            dimensions: JsonValue = [{"Name": "FunctionName", "Value": {"Ref": name}}]
            of_function: Json = {"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": dimensions}
            measured: Json = {"Stat": "Sum", "Period": 60, "Metric": of_function}
            entry: Json = {"Id": name[0].lower() + name[1:], "ReturnData": False, "MetricStat": measured}
            summed.append(where_deployed(name, entry))
        assert ALARMS[alarm]["Metrics"] == summed, f"infra/monitoring.yaml: {alarm}"
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
        assert len(names) <= 10
        assert "DatapointsToAlarm" in ALARMS[alarm]
    shown = {"Fn::Join": [r"\" OR \"", [where_deployed(name, {"Ref": name}) for name in names]]}
    assert cast("Json", SUBSTITUTED)["Functions"] == shown, "infra/monitoring.yaml: the dashboard's Functions"


def test_the_dashboard_shows_the_state_of_every_alarm() -> None:
    assert set(re.findall(r"\$\{(\w+)\.Arn\}", str([BODY, SUBSTITUTED]))) == set(ALARMS)


def test_the_metrics_that_are_counted_are_shown() -> None:
    searched = r'Namespace=\\"\$\{MetricsNamespace\}\\" MetricName=\\"(\w+)|"\$\{MetricsNamespace\}", "(\w+)"'
    assert {name for found in re.findall(searched, str(BODY)) for name in found if name} == COUNTED


def test_a_graph_has_no_more_searches_than_cloudwatch_takes() -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
    assert [widget for widget in WIDGETS if json.dumps(widget).count("SEARCH(") > 5] == []


def test_alarms_of_integrations_exist_only_with_them() -> None:
    # In one that does not exist, the Ref of a dimension is empty, which CloudWatch refuses.
    conditions = {name: MONITORING[name].get("Condition") for name in ALARMS}
    of_chats = ["NotificationsFailing", "NotificationsDelayed", "ChatUnreachable", "NotificationsUndelivered"]
    assert conditions == dict.fromkeys(ALARMS) | dict.fromkeys(of_chats, "Notifications") | {
        "AlertsTruncated": "HasAlerts"
    }


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


def test_the_layer_fits_the_functions() -> None:
    settings = TEMPLATE.Globals["Function"]
    layer = properties(DECLARED["DependenciesLayer"])
    assert layer["CompatibleRuntimes"] == [settings["Runtime"]]
    assert layer["CompatibleArchitectures"] == settings["Architectures"] == [{"Ref": "Architecture"}]
    assert settings["Layers"] == [{"Ref": "DependenciesLayer"}]
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
    "Notifications": {"TelegramChats": "1", "TelegramTokenParameter": "/token"},
    "Reminders": {"TelegramChats": "1", "TelegramTokenParameter": "/token", "RemindAt": "rate(1 day)"},
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


def test_creating_incidents_can_be_throttled_apart() -> None:
    creating = [route.key for route in TEMPLATE.routes() if route.method == "POST"]
    throttle = {"ThrottlingRateLimit": {"Ref": "CreatesPerSecond"}, "ThrottlingBurstLimit": {"Ref": "RequestsAtOnce"}}
    limited = {"Fn::If": ["LimitsCreates", dict.fromkeys(creating, throttle), {"Ref": "AWS::NoValue"}]}
    assert properties(DECLARED["IncidentApi"])["RouteSettings"] == limited


def test_slow_requests_are_counted_where_there_are_few() -> None:
    # A percentile that ignores low counts needs 10 / (1 - percentile) samples in a period:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
    assert not [name for name, alarm in ALARMS.items() if "ExtendedStatistic" in alarm]
    counted = properties(MONITORING["SlowRequests"])
    assert counted["FilterPattern"] == "{ $.latency > 5000 }"
    (slow,) = cast("list[Json]", counted["MetricTransformations"])
    assert (slow["MetricValue"], slow["DefaultValue"], slow["MetricNamespace"]) == ("1", 0, {"Ref": "MetricsNamespace"})
    assert ALARMS["Latency"]["MetricName"] == slow["MetricName"]
    # A number, without quotation marks: the filter compares no text.
    log_format = str(cast("Json", properties(DECLARED["IncidentApi"])["AccessLogSettings"])["Format"])
    line = json.loads(re.sub(r'(?<!")\$context\.\w+', "1", log_format))
    assert line["latency"] == 1


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
    logged = set(re.findall(r"\$context\.([\w.]+)", str(settings["Format"])))
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
    assert logged <= {
        "authorizer.caller",
        "authorizer.reason",
        "authorizer.error",
        "error.message",
        "identity.sourceIp",
        "integrationErrorMessage",
        "integrationLatency",
        "requestId",
        "requestTime",
        "responseLatency",
        "routeKey",
        "status",
    }


def test_the_stream_brings_whole_batches_of_incidents() -> None:
    mapping = TEMPLATE.functions(**EVERYTHING)["NotifyTelegramFunction"].Events["Changes"].Properties
    # A part of a batch would be a part of a digest; and what the function reports of a part, the emulator would lose.
    assert not {"BisectBatchOnFunctionError", "FunctionResponseTypes"} & mapping.keys()
    ((pattern,),) = [each.values() for each in cast("Json", mapping["FilterCriteria"])["Filters"]]  # type: ignore[union-attr]
    # A filter tests leaves: https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
    assert json.loads(str(pattern))["dynamodb"] == {"NewImage": {"position": {"S": [{"exists": True}]}}}


NOTIFY_TELEGRAM: Json = {"Fn::GetAtt": "NotifyTelegramFunction.Arn"}
CHANGES = "NotifyTelegramFunction.Events.Changes.Properties"
DECLARATIONS: dict[str, JsonValue] = {
    "Email.Properties": {"TopicArn": {"Ref": "Topic"}, "Protocol": "email", "Endpoint": {"Ref": "AlarmEmail"}},
    "Email.Condition": "HasEmail",
    # Of each route, not of all together.
    "IncidentApi.DefaultRouteSettings": {
        "ThrottlingRateLimit": {"Ref": "RequestsPerSecond"},
        "ThrottlingBurstLimit": {"Ref": "RequestsAtOnce"},
    },
    "IncidentApi.Auth.DefaultAuthorizer": "AccessKey",
    # tests/test_openapi.py has the routes of the second authorizer.
    "IncidentApi.Auth.Authorizers": {
        name: {
            "FunctionArn": {"Fn::GetAtt": "AuthorizeFunction.Arn"},
            "AuthorizerPayloadFormatVersion": "2.0",
            "EnableSimpleResponses": True,
            # Without it, SAM does not permit the gateway to call the function.
            "EnableFunctionDefaultPermissions": True,
            # Without the route key, a decision for one route would be cached for all of them.
            "Identity": {"Headers": [header], "Context": ["routeKey"], "ReauthorizeEvery": 60},
        }
        for name, header in (("AccessKey", "Authorization"), ("TelegramSecret", "X-Telegram-Bot-Api-Secret-Token"))
    },
    "IncidentApi.DisableExecuteApiEndpoint": {"Fn::If": ["DomainOnly", True, False]},
    "IncidentApi.AccessLogSettings.DestinationArn": {"Fn::GetAtt": "AccessLog.Arn"},
    # A name of another form takes up room in the account's resource policy:
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging.html
    "AccessLog.LogGroupName": {"Fn::Sub": "/aws/vendedlogs/${AWS::StackName}/access"},
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-custom-domain-names.html
    "ApiDomain.Condition": "Domain",
    "ApiDomain.DomainName": {"Ref": "DomainName"},
    "ApiDomain.DomainNameConfigurations": [
        {"CertificateArn": {"Ref": "CertificateArn"}, "EndpointType": "REGIONAL", "SecurityPolicy": "TLS_1_2"}
    ],
    "ApiDomainMapping.Condition": "Domain",
    "ApiDomainMapping.DomainName": {"Ref": "ApiDomain"},
    "ApiDomainMapping.ApiId": {"Fn::If": ["MappedElsewhere", {"Ref": "MappedApi"}, {"Ref": "IncidentApi"}]},
    "LogPolicy.PolicyDocument.Statement": [
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": {"Fn::GetAtt": "FunctionsLog.Arn"},
        }
    ],
    "DependenciesLayer.RetentionPolicy": "Delete",  # every version kept counts against the account's 75 GB
    "Monitoring.Parameters.MetricsNamespace": {"Fn::Sub": "IncidentApi/${AWS::StackName}"},
    "Monitoring.Parameters.AlarmEmail": {"Ref": "AlarmEmail"},
    "Monitoring.Parameters.Api": {"Ref": "IncidentApi"},
    "Monitoring.Parameters.AccessLog": {"Ref": "AccessLog"},
    "Monitoring.Parameters.UndeliveredQueue": {
        "Fn::If": ["Notifications", {"Fn::GetAtt": "UndeliveredQueue.QueueName"}, ""]
    },
    # The stream is retried for 23 hours: https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html
    "IncidentsTable.StreamSpecification": {"StreamViewType": "NEW_IMAGE"},
    f"{CHANGES}.Stream": {"Fn::If": ["OwnTable", {"Fn::GetAtt": "IncidentsTable.StreamArn"}, {"Ref": "TableStream"}]},
    f"{CHANGES}.StartingPosition": "TRIM_HORIZON",
    f"{CHANGES}.MaximumRetryAttempts": -1,
    f"{CHANGES}.MaximumRecordAgeInSeconds": 23 * 60 * 60,
    f"{CHANGES}.DestinationConfig": {
        "OnFailure": {"Type": "SQS", "Destination": {"Fn::GetAtt": "UndeliveredQueue.Arn"}},
    },
    "UndeliveredQueue.Properties": {"MessageRetentionPeriod": 14 * 24 * 60 * 60, "SqsManagedSseEnabled": True},
    "Reminder.Name": {"Fn::Sub": "${AWS::StackName}-reminder"},  # a generated name could be that of another stack
    "Reminder.ScheduleExpression": {"Ref": "RemindAt"},
    "Reminder.ScheduleExpressionTimezone": {"Ref": "RemindTimezone"},
    "Reminder.Target": {"Arn": NOTIFY_TELEGRAM, "RoleArn": {"Fn::GetAtt": "ReminderRole.Arn"}, "Input": "{}"},
    "ReminderRole.Policies": [
        {
            "PolicyName": "remind",
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": NOTIFY_TELEGRAM}],
            },
        }
    ],
    "AlarmsToTelegram.Properties": {
        "TopicArn": {"Fn::GetAtt": "Monitoring.Outputs.Topic"},
        "Protocol": "lambda",
        "Endpoint": NOTIFY_TELEGRAM,
    },
    # Without this permission, SNS loses the message.
    "AlarmsToTelegramPermission.Properties": {
        "Action": "lambda:InvokeFunction",
        "FunctionName": {"Ref": "NotifyTelegramFunction"},
        "Principal": "sns.amazonaws.com",
        "SourceArn": {"Fn::GetAtt": "Monitoring.Outputs.Topic"},
    },
}
"""What no emulator looks at, by its path, in which `Properties` can be left out."""


@pytest.mark.parametrize("path", DECLARATIONS)
def test_a_resource_is_declared_as_aws_needs_it(path: str) -> None:
    name, *keys = path.split(".")
    resource = (DECLARED | MONITORING)[name]
    found: JsonValue = resource | properties(resource)
    for key in keys:
        found = cast("Json", found)[key]
    assert found == DECLARATIONS[path]


def test_functions_use_the_watched_log_namespace_and_table() -> None:
    settings = cast("dict[str, Json]", TEMPLATE.Globals["Function"])
    assert settings["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": {"Ref": "FunctionsLog"}}
    variables = cast("Json", settings["Environment"]["Variables"])
    watched = cast("Json", properties(DECLARED["Monitoring"])["Parameters"])
    assert variables["METRICS_NAMESPACE"] == watched["MetricsNamespace"]
    assert variables["TABLE_NAME"] == watched["Table"]


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
