"""How the local run evaluates a template."""

from pathlib import Path

import pytest

from infra.local import template
from infra.local.template import ParameterError, Template, TemplateError
from tests.conftest import EVERYTHING, TEMPLATE

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
  OneShard: !Equals [!Ref Shards, 1]
Globals:
  Function:
    Timeout: 25
    Environment:
      Variables:
        SHARDS: !Ref Shards
        BOTH: !If [Both, "yes", "no"]
        EITHER: !If [Either, "yes", "no"]
        ONE: !If [OneShard, "yes", "no"]
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties: {KeySchema: []}
  ReadFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: read.handler
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
"""


def load(folder: Path, text: str = STACK) -> Template:
    path = folder / "template.yaml"
    path.write_text(text)
    return Template.model_validate(template.read(path))


def test_a_functions_own_timeout_overrides_the_global_one(tmp_path: Path) -> None:
    timeouts = {name: function.Timeout for name, function in load(tmp_path).functions().items()}
    assert timeouts == {"ReadFunction": 25, "TellFunction": 5}


VARIABLES = {
    "SHARDS": "1",
    "BOTH": "no",
    "EITHER": "no",
    "ONE": "yes",
    "STREAM": "Table.StreamArn",
    "KEYS": "local-Table.Arn-Other",
    "NAME": "a-1/Table",
}


@pytest.mark.parametrize(
    ("parameters", "changes"),
    [
        ({}, {}),
        ({"Chats": "1"}, {"EITHER": "yes"}),
        ({"Alerts": "enabled"}, {"EITHER": "yes", "CHATS": ""}),
        ({"Alerts": "enabled", "Chats": "1"}, {"EITHER": "yes", "BOTH": "yes", "CHATS": "1", "NONE": ""}),
        ({"Shards": "2"}, {"SHARDS": "2", "ONE": "no", "NAME": "a-2/Table"}),
    ],
)
def test_variables_are_evaluated(tmp_path: Path, parameters: dict[str, str], changes: dict[str, str]) -> None:
    assert load(tmp_path).environment(**parameters) == VARIABLES | changes


@pytest.mark.parametrize(
    "wrong", ["!ImportValue Queue", "!Select [5, [a]]", "[a, b]", "!If [Both, a, !Cidr [b, 1, 2]]"]
)
def test_a_value_that_cannot_be_evaluated_is_named(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(TemplateError, match="The template has a value that the local run cannot evaluate"):
        load(tmp_path, STACK.replace("!GetAtt Table.StreamArn\n", f"{wrong}\n")).environment()


@pytest.mark.parametrize(
    "text",
    ["Resources: {", "Resources: []", STACK.replace("Handler: read.handler", "Handler: {}")],
    ids=["not YAML", "not a template", "not a handler"],
)
def test_an_unusable_template_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(template, "PATH", tmp_path / "template.yaml")
    template.PATH.write_text(text)
    with pytest.raises(TemplateError, match=r"^The template cannot be used: .*$"):
        template.load().functions()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Other", "1", "The template has no parameter Other. It has Alerts, Chats, Shards."),
        ("Alerts", "on", "The parameter Alerts cannot be 'on'. It must be one of enabled, disabled."),
        ("Chats", "1,", "The parameter Chats cannot be '1,'. It must match (-?[0-9]+(,-?[0-9]+)*)?."),
        ("Shards", "0", "The parameter Shards cannot be '0'. It must be at least 1."),
        ("Shards", "65", "The parameter Shards cannot be '65'. It must be at most 64."),
        ("Shards", "", "The parameter Shards cannot be ''. It must be a number."),
    ],
)
def test_a_value_that_a_deployment_refuses_is_refused(tmp_path: Path, name: str, value: str, message: str) -> None:
    stack = load(tmp_path)
    stack.check({"Alerts": "enabled", "Chats": "-1001,1002", "Shards": "64"})
    with pytest.raises(ParameterError) as refused:
        stack.check({name: value})
    assert str(refused.value) == message


def test_functions_agree_on_the_variables_that_they_share() -> None:
    """The local run has one environment for all functions."""
    values: dict[str, object] = {}
    for function in TEMPLATE.functions(**EVERYTHING).values():
        for name, value in function.Environment.Variables.items():
            assert values.setdefault(name, value) == value
