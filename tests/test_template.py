"""What only AWS would notice of template.yaml and infra/monitoring.yaml, since no emulator looks at it."""

import re
from typing import NamedTuple

import pytest
from pydantic import JsonValue

from infra.local import template
from tests.conftest import ROOT, TEMPLATE

MONITORING = template.read(ROOT / "infra/monitoring.yaml")
RESOURCES = MONITORING["Resources"]
assert isinstance(RESOURCES, dict)
Properties = dict[str, JsonValue]


def properties(resource: JsonValue) -> Properties:
    assert isinstance(resource, dict)
    found = resource["Properties"]
    assert isinstance(found, dict)
    return found


class Rule(NamedTuple):
    """When an alarm fires."""

    statistic: str
    comparison: str
    threshold: int
    period: int
    datapoints: tuple[int, int]
    """So many of the last so many periods."""


RULES = {
    "5xx": Rule("Sum", "GreaterThanOrEqualToThreshold", 1, 60, (2, 5)),
    "Latency": Rule("p99", "GreaterThanThreshold", 2000, 300, (3, 3)),
    "Errors": Rule("Sum", "GreaterThanOrEqualToThreshold", 1, 60, (1, 1)),
    "Throttles": Rule("Sum", "GreaterThanOrEqualToThreshold", 1, 60, (1, 1)),
    "AlertsTruncated": Rule("Sum", "GreaterThanOrEqualToThreshold", 1, 60, (1, 1)),
    "Refusals": Rule("Sum", "GreaterThanOrEqualToThreshold", 100, 300, (1, 1)),
    "WriteThrottleEvents": Rule("Sum", "GreaterThanOrEqualToThreshold", 1, 60, (2, 5)),
    "ReadThrottleEvents": Rule("Sum", "GreaterThanOrEqualToThreshold", 1, 60, (2, 5)),
}
"""By metric. An alarm on another metric needs a rule here: a decision about when somebody is woken up."""

ALARMS = {
    name: properties(resource)
    for name, resource in RESOURCES.items()
    if isinstance(resource, dict) and resource["Type"] == "AWS::CloudWatch::Alarm"
}


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_fires_by_its_rule_and_tells_the_topic(name: str) -> None:
    alarm = ALARMS[name]
    rule = RULES[str(alarm["MetricName"])]
    evaluated = alarm["EvaluationPeriods"]
    assert rule == (
        alarm.get("Statistic") or alarm.get("ExtendedStatistic"),
        alarm["ComparisonOperator"],
        alarm["Threshold"],
        alarm["Period"],
        (alarm.get("DatapointsToAlarm", evaluated), evaluated),
    )
    assert alarm["TreatMissingData"] == "notBreaching"  # no requests, no data
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Topic"}]
    assert len(str(alarm["AlarmDescription"])) > 50, "what is wrong, and what to do first"


TABLE: Properties = {"Name": "TableName", "Value": {"Ref": "Table"}}
INDEX: Properties = {"Name": "GlobalSecondaryIndexName", "Value": "by-status"}
API: Properties = {"Name": "ApiId", "Value": {"Ref": "Api"}}


@pytest.mark.parametrize(
    ("namespace", "metric", "dimensions"),
    [
        ("AWS/ApiGateway", "5xx", [[API]]),
        ("AWS/ApiGateway", "Latency", [[API]]),
        # CloudWatch has the throttles of an index apart from those of its table.
        ("AWS/DynamoDB", "WriteThrottleEvents", [[TABLE], [TABLE, INDEX]]),
        ("AWS/DynamoDB", "ReadThrottleEvents", [[TABLE], [TABLE, INDEX]]),
    ],
)
def test_the_api_the_table_and_the_index_are_watched(
    namespace: str, metric: str, dimensions: list[list[Properties]]
) -> None:
    watched = [alarm for alarm in ALARMS.values() if alarm["MetricName"] == metric]
    assert {str(alarm["Namespace"]) for alarm in watched} == {namespace}
    assert [alarm["Dimensions"] for alarm in watched] == dimensions


def test_an_alarm_is_mailed_where_there_is_an_address() -> None:
    conditions = MONITORING["Conditions"]
    assert isinstance(conditions, dict)
    assert conditions["HasEmail"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmEmail"}, ""]}]}
    assert isinstance(RESOURCES, dict)
    email = RESOURCES["Email"]
    assert isinstance(email, dict)
    assert email["Condition"] == "HasEmail"
    assert properties(email) == {
        "TopicArn": {"Ref": "Topic"},
        "Protocol": "email",
        "Endpoint": {"Ref": "AlarmEmail"},
    }


def test_the_functions_may_write_their_log_and_no_other() -> None:
    assert TEMPLATE.Resources["LogPolicy"].Properties["PolicyDocument"] == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": {"Fn::GetAtt": "FunctionsLog.Arn"},
            }
        ],
    }
    settings = TEMPLATE.Globals["Function"]
    assert settings["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": {"Ref": "FunctionsLog"}}


def test_the_layer_is_for_the_functions_runtime_and_architecture() -> None:
    settings = TEMPLATE.Globals["Function"]
    layer = TEMPLATE.Resources["DependenciesLayer"].Properties
    assert layer["CompatibleRuntimes"] == [settings["Runtime"]]
    assert layer["CompatibleArchitectures"] == settings["Architectures"] == [{"Ref": "Architecture"}]
    assert settings["Layers"] == [{"Ref": "DependenciesLayer"}]
    built_for = re.findall(r"--python-version ([\d.]+)", (ROOT / "infra/layer/Makefile").read_text())
    assert [f"python{version}" for version in built_for] == [settings["Runtime"]]


def test_the_parameters_of_the_stack_reach_the_functions() -> None:
    given = TEMPLATE.environment(StatusShards="7", Table="restored", DynamoDBEndpoint="http://localhost:1")
    assert given["STATUS_SHARDS"] == "7"
    assert given["TABLE_NAME"] == "restored"
    assert given["AWS_ENDPOINT_URL_DYNAMODB"] == "http://localhost:1"
    assert TEMPLATE.environment()["AWS_ENDPOINT_URL_DYNAMODB"] == ""


def test_the_gateway_is_throttled_as_the_parameters_say() -> None:
    assert TEMPLATE.Resources["IncidentApi"].Properties["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "RequestsPerSecond"},
        "ThrottlingBurstLimit": {"Ref": "RequestsAtOnce"},
    }


@pytest.mark.parametrize("log", ["AccessLog", "FunctionsLog"])
def test_logs_are_kept_as_long_as_the_parameter_says(log: str) -> None:
    assert TEMPLATE.Resources[log].Properties["RetentionInDays"] == {"Ref": "LogDays"}


def test_the_access_log_has_no_header_query_or_body() -> None:
    settings = TEMPLATE.Resources["IncidentApi"].Properties["AccessLogSettings"]
    assert isinstance(settings, dict)
    logged = set(re.findall(r"\$context\.([\w.]+)", str(settings["Format"])))
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


def test_the_table_is_kept_and_can_be_restored() -> None:
    raw = template.read(template.PATH)["Resources"]
    assert isinstance(raw, dict)
    table = raw["IncidentsTable"]
    assert isinstance(table, dict)
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    declared = properties(table)
    assert declared["DeletionProtectionEnabled"] is True
    assert declared["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert declared["BillingMode"] == "PAY_PER_REQUEST"
