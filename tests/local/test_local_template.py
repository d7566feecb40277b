"""What the local run understands of a template: functions, routes and variables by the stack's parameters."""

from pathlib import Path

import pytest

from infra.local import template
from infra.local.template import ParameterError, Template

STACK = """
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
  Api:
    Type: AWS::Serverless::HttpApi
    Properties: {Auth: {DefaultAuthorizer: Keys, Authorizers: {Keys: {FunctionArn: !GetAtt AuthorizeFunction.Arn}}}}
  AuthorizeFunction:
    Type: AWS::Serverless::Function
    Properties: {Handler: authorize.handler, Timeout: 5, Environment: {Variables: {KEYS: !Sub "${AWS::StackName}-keys"}}}
  ReadFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: read.handler
      Events:
        Nightly: {Type: Schedule, Properties: {Schedule: rate(1 day)}}
        Any: {Type: HttpApi, Properties: {Method: GET, Path: "/read/{proxy+}"}}
        One: {Type: HttpApi, Properties: {Method: GET, Path: "/read/{id}"}}
        All: {Type: HttpApi, Properties: {Method: GET, Path: /read}}
  AlertsFunction:
    Type: AWS::Serverless::Function
    Condition: WithAlerts
    Properties:
      Handler: alerts.handler
      Environment: {Variables: {CHATS: !Ref Chats}}
      Events: {Post: {Type: HttpApi, Properties: {Method: POST, Path: /alerts}}}
"""


@pytest.fixture
def stack(tmp_path: Path) -> Template:
    path = tmp_path / "template.yaml"
    path.write_text(STACK)
    return Template.model_validate(template.read(path))


READ = ["GET /read", "GET /read/{id}", "GET /read/{proxy+}"]


def test_a_function_whose_condition_is_false_has_no_routes_and_no_variables(stack: Template) -> None:
    assert [route.key for route in stack.routes()] == READ
    assert list(stack.functions()) == ["AuthorizeFunction", "ReadFunction"]
    assert "CHATS" not in stack.environment()

    assert sorted(route.key for route in stack.routes(Alerts="enabled")) == [*READ, "POST /alerts"]
    assert list(stack.functions(Alerts="enabled")) == ["AuthorizeFunction", "ReadFunction", "AlertsFunction"]
    assert stack.environment(Alerts="enabled", Chats="-1001")["CHATS"] == "-1001"


def test_a_function_has_the_globals_and_its_own_properties(stack: Template) -> None:
    assert {name: function.Timeout for name, function in stack.functions().items()} == {
        "AuthorizeFunction": 5,
        "ReadFunction": 25,
    }
    assert stack.environment()["KEYS"] == "local-keys"
    assert stack.environment()["SHARDS"] == "1"


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
        ("Chats", "a", "The parameter Chats cannot be 'a'. It matches (-?[0-9]+(,-?[0-9]+)*)?."),
        ("Chats", "1,", "The parameter Chats cannot be '1,'. It matches (-?[0-9]+(,-?[0-9]+)*)?."),
        ("Shards", "0", "The parameter Shards cannot be '0'. It is at least 1."),
        ("Shards", "65", "The parameter Shards cannot be '65'. It is at most 64."),
        ("Shards", "x", "The parameter Shards cannot be 'x'. It is a number."),
        ("Shards", "", "The parameter Shards cannot be ''. It is a number."),
    ],
)
def test_a_value_that_a_deployment_would_refuse_is_refused(stack: Template, name: str, value: str, says: str) -> None:
    with pytest.raises(ParameterError) as refused:
        stack.check({name: value})
    assert str(refused.value) == says


def test_a_value_that_a_deployment_would_take_is_taken(stack: Template) -> None:
    stack.check({"Alerts": "enabled", "Chats": "-1001,1002", "Shards": "64"})


def test_functions_agree_on_the_variables_that_they_share() -> None:
    """The local run has one environment for all of them."""
    every = template.load()
    values: dict[str, object] = {}
    for function in every.functions().values():
        for name, value in function.Environment.Variables.items():
            assert values.setdefault(name, value) == value
