"""What the local run understands of a template: functions, routes and variables by the stack's parameters."""

import re
from pathlib import Path

import pytest

from infra.local import template
from infra.local.template import ParameterError, Template, TemplateError

STACK = """
AWSTemplateFormatVersion: 2010-09-09
Parameters:
  Alerts: {Type: String, AllowedValues: [enabled, disabled], Default: disabled}
  Chats: {Type: String, AllowedPattern: "(-?[0-9]+(,-?[0-9]+)*)?", Default: ""}
  Shards: {Type: Number, MinValue: 1, MaxValue: 64, Default: 1}
Conditions:
  WithAlerts: !Equals [!Ref Alerts, enabled]
  WithChats: !Not [!Equals [!Ref Chats, ""]]
  Both: !And [!Condition WithAlerts, !Condition WithChats]
  Either: !Or [!Condition WithAlerts, !Condition WithChats]
  TwoShards: !Equals [!Ref Shards, 2]
Globals:
  Function:
    Timeout: 25
    Environment:
      Variables:
        SHARDS: !Ref Shards
        BOTH: !If [Both, "yes", "no"]
        EITHER: !If [Either, "yes", "no"]
        TWO: !If [TwoShards, "yes", "no"]
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties: {KeySchema: []}
  ReadFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: read.handler
      Events:
        Any: {Type: HttpApi, Properties: {Method: GET, Path: "/read/{proxy+}"}}
        One: {Type: HttpApi, Properties: {Method: GET, Path: "/read/{id}"}}
        All: {Type: HttpApi, Properties: {Method: GET, Path: /read}}
  TellFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: tell.handler
      Timeout: 5
      Environment:
        Variables:
          STREAM: !GetAtt Table.StreamArn
          KEYS: !Sub "${AWS::StackName}-${Table.Arn}-${Other}"
          NAME: !Sub ["${Prefix}/${Table}", {Prefix: !Join ["-", [a, !Ref Shards]]}]
          NONE: !If [Both, "", !Ref AWS::NoValue]
      Policies: [{Version: 2012-10-17, Statement: [{Effect: Allow, Action: sqs:*, Resource: !ImportValue Queue}]}]
      Events:
        Stream: {Type: DynamoDB, Properties: {Stream: !GetAtt Table.StreamArn, BatchSize: 10}}
        Nightly: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 day)}}
        Topic: {Type: SNS, Properties: {Topic: !ImportValue Topic}}
  AlertsFunction:
    Type: AWS::Serverless::Function
    Condition: WithAlerts
    Properties:
      Handler: alerts.handler
      Environment: {Variables: {CHATS: !Ref Chats}}
      Events: {Post: {Type: HttpApi, Properties: {Method: POST, Path: /alerts}}}
"""


def load(folder: Path, text: str) -> Template:
    path = folder / "template.yaml"
    path.write_text(text)
    return Template.model_validate(template.read(path))


@pytest.fixture
def stack(tmp_path: Path) -> Template:
    return load(tmp_path, STACK)


READ = ["GET /read", "GET /read/{id}", "GET /read/{proxy+}"]


def test_a_function_has_routes_and_variables_by_its_condition(stack: Template) -> None:
    assert [route.key for route in stack.routes()] == READ
    assert list(stack.functions()) == ["ReadFunction", "TellFunction"]
    assert "CHATS" not in stack.environment()

    assert sorted(route.key for route in stack.routes(Alerts="enabled")) == [*READ, "POST /alerts"]
    assert list(stack.functions(Alerts="enabled")) == ["ReadFunction", "TellFunction", "AlertsFunction"]
    assert stack.environment(Alerts="enabled", Chats="-1001")["CHATS"] == "-1001"


def test_a_function_has_the_globals_and_its_own_properties(stack: Template) -> None:
    timeouts = {name: function.Timeout for name, function in stack.functions().items()}
    assert timeouts == {"ReadFunction": 25, "TellFunction": 5}
    environment = stack.environment()
    assert environment["SHARDS"] == "1"
    assert environment["STREAM"] == "Table.StreamArn"
    assert environment["KEYS"] == "local-Table.Arn-Other"
    assert environment["NAME"] == "a-1/Table"
    assert "NONE" not in environment


@pytest.mark.parametrize(
    "wrong", ["!ImportValue Queue", "!Select [5, [a]]", "[a, b]", "!If [Both, a, !Cidr [b, 1, 2]]"]
)
def test_a_value_that_cannot_be_evaluated_is_told(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(TemplateError, match="The template has a value that the local run cannot evaluate"):
        load(tmp_path, STACK.replace("!GetAtt Table.StreamArn\n", f"{wrong}\n")).environment()


@pytest.mark.parametrize(
    "text", ["Resources: {", "Resources: []", re.sub("Handler: read.handler", "Handler: {}", STACK)]
)
def test_a_file_that_is_no_template_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(template, "PATH", tmp_path / "template.yaml")
    template.PATH.write_text(text)
    with pytest.raises(TemplateError, match="cannot be used") as told:
        template.load().functions()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("alerts", "chats", "both", "either"),
    [
        ("disabled", "", "no", "no"),
        ("disabled", "1", "no", "yes"),
        ("enabled", "", "no", "yes"),
        ("enabled", "1", "yes", "yes"),
    ],
)
def test_conditions_are_evaluated(stack: Template, alerts: str, chats: str, both: str, either: str) -> None:
    environment = stack.environment(Alerts=alerts, Chats=chats)
    assert (environment["BOTH"], environment["EITHER"]) == (both, either)


def test_numbers_are_equal_to_themselves_as_text(stack: Template) -> None:
    assert [stack.environment(Shards=value)["TWO"] for value in ("1", "2")] == ["no", "yes"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("Other", "1", "The template has no parameter Other. It has Alerts, Chats, Shards."),
        ("Alerts", "on", "The parameter Alerts cannot be 'on'. It is one of enabled, disabled."),
        ("Chats", "1,", "The parameter Chats cannot be '1,'. It matches (-?[0-9]+(,-?[0-9]+)*)?."),
        ("Shards", "0", "The parameter Shards cannot be '0'. It is at least 1."),
        ("Shards", "65", "The parameter Shards cannot be '65'. It is at most 64."),
        ("Shards", "", "The parameter Shards cannot be ''. It is a number."),
    ],
)
def test_a_value_that_a_deployment_would_refuse_is_refused(stack: Template, name: str, value: str, says: str) -> None:
    stack.check({"Alerts": "enabled", "Chats": "-1001,1002", "Shards": "64"})
    with pytest.raises(ParameterError) as refused:
        stack.check({name: value})
    assert str(refused.value) == says


def test_functions_agree_on_the_variables_that_they_share() -> None:
    """The local run has one environment for all of them."""
    values: dict[str, object] = {}
    for function in template.load().functions().values():
        for name, value in function.Environment.Variables.items():
            assert values.setdefault(name, value) == value
