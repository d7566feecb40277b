"""What only AWS would notice of template.yaml and infra/monitoring.yaml, since no emulator looks at it."""

import json
import re
from typing import cast

import pytest
from pydantic import JsonValue

from infra.local import template
from tests.conftest import ROOT, TEMPLATE

RESOURCES = cast("dict[str, JsonValue]", template.read(ROOT / "infra/monitoring.yaml")["Resources"])
Properties = dict[str, JsonValue]


def properties(resource: JsonValue) -> Properties:
    assert isinstance(resource, dict)
    found = resource["Properties"]
    assert isinstance(found, dict)
    return found


ALARMS = {
    name: properties(resource)
    for name, resource in RESOURCES.items()
    if isinstance(resource, dict) and resource["Type"] == "AWS::CloudWatch::Alarm"
}


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_what_to_do_and_tells_the_topic(name: str) -> None:
    alarm = ALARMS[name]
    assert alarm["TreatMissingData"] == "notBreaching"  # no requests, no data
    assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": "Topic"}]
    assert len(str(alarm["AlarmDescription"])) > 50, "what is wrong, and what to do first"
    periods, datapoints = alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
    assert isinstance(periods, int)
    assert isinstance(datapoints, int)
    # Somebody hears of it within a quarter of an hour.
    assert 1 <= datapoints <= periods
    assert int(str(alarm.get("Period", 60))) * periods <= 900


def test_an_alarm_over_functions_sums_up_all_of_them() -> None:
    for name in ("FunctionErrors", "FunctionThrottles"):
        sum_up, *metrics = listed(ALARMS[name]["Metrics"])
        assert sum_up == {"Id": "functions", "Expression": "SUM(METRICS())"}
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
        assert len(metrics) <= 10
        assert all('"ReturnData": false' in json.dumps(metric) for metric in metrics)


def listed(value: JsonValue) -> list[JsonValue]:
    assert isinstance(value, list)
    return value


def test_the_table_and_its_index_are_watched_apart() -> None:
    """CloudWatch counts the throttles of an index apart from those of its table."""
    for metric in ("WriteThrottleEvents", "ReadThrottleEvents"):
        watched = [listed(alarm["Dimensions"]) for alarm in ALARMS.values() if alarm.get("MetricName") == metric]
        assert [len(dimensions) for dimensions in watched] == [1, 2]


def test_an_alarm_is_mailed_where_there_is_an_address() -> None:
    email = RESOURCES["Email"]
    assert isinstance(email, dict)
    assert email["Condition"] == "HasEmail"
    assert properties(email)["Endpoint"] == {"Ref": "AlarmEmail"}


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


@pytest.mark.parametrize("name", ["IncidentsTable", "KeysTable"])
def test_a_table_is_kept_and_can_be_restored(name: str) -> None:
    raw = template.read(template.PATH)["Resources"]
    assert isinstance(raw, dict)
    table = raw[name]
    assert isinstance(table, dict)
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    declared = properties(table)
    assert declared["DeletionProtectionEnabled"] is True
    assert declared["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert declared["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize(
    "name", [name for name, each in TEMPLATE.Resources.items() if each.Type.startswith("AWS::IAM::")]
)
def test_a_policy_has_no_wildcard(name: str) -> None:
    assert "*" not in json.dumps(TEMPLATE.Resources[name].Properties)
