"""What stands in several places (code, template, contract, documents) is the same in each of them."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import cast

import pytest
from pydantic import JsonValue

import authorize
import store
from incident import Source
from infra import keys
from infra.local import template
from infra.openapi import INTEGRATIONS
from tests.conftest import EVERYTHING, ROOT, TEMPLATE

ROUTES = TEMPLATE.routes(**INTEGRATIONS)
FUNCTIONS = {
    name: function.Handler.removesuffix(".handler") for name, function in TEMPLATE.functions(**EVERYTHING).items()
}
"""The module of each function."""


def test_the_changelog_and_the_contract_have_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version
    assert json.loads((ROOT / "infra/openapi.json").read_text())["info"]["version"] == version


@pytest.mark.parametrize(("function", "module"), FUNCTIONS.items())
def test_a_function_has_one_name_everywhere(function: str, module: str) -> None:
    *room, name = module.split(".")
    assert function == "".join(map(str.title, name.split("_"))) + "Function"
    assert (ROOT.joinpath("functions", *room) / f"{name}.py").exists()
    assert (ROOT.joinpath("tests", *room) / f"test_{name}.py").exists(), "a function without tests"


# API Gateway imports a route of another form without an error, and without the route: a slash at the end, for one.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
GATEWAY_PATH = re.compile(r"/|(/[\w.-]+|/\{\w+\})+(/\{\w+\+\})?|/\{\w+\+\}")


def test_api_gateway_takes_the_path_of_every_route() -> None:
    assert [route.path for route in ROUTES if not GATEWAY_PATH.fullmatch(route.path)] == []


def test_no_two_routes_differ_only_in_variable_names() -> None:
    shapes = [(route.method, re.sub(r"\w+(?=\+?\})", "", route.path)) for route in ROUTES]
    assert len(set(shapes)) == len(shapes)


ACTIONS = {
    "CreateIncidentFunction": {"PutItem"},
    "ReadIncidentsFunction": {"GetItem", "Query"},
    "UpdateIncidentFunction": {"UpdateItem"},
    "AuthorizeFunction": {"GetItem"},
    "ReceiveAlertsFunction": {"BatchGetItem", "PutItem", "UpdateItem"},
    "ReceiveTelegramFunction": {"GetItem", "PutItem", "Query", "UpdateItem"},
    "NotifyTelegramFunction": {"BatchGetItem", "GetItem", "Query", "UpdateItem", "ssm:GetParameter", "sqs:SendMessage"}
    | {"DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"},
}
"""What each function may ask, DynamoDB's actions without a prefix. A function that is not listed is one that nobody has decided on."""


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_has_a_role_of_its_own(function: str) -> None:
    name = function.replace("Function", "Role")
    assert name in TEMPLATE.Resources, f"template.yaml: no {name}"
    role = TEMPLATE.Resources[name]
    assert TEMPLATE.Resources[function].Properties["Role"] == {"Fn::GetAtt": f"{name}.Arn"}
    assert role.Properties["ManagedPolicyArns"] == [{"Ref": "LogPolicy"}]
    assert role.Condition == TEMPLATE.Resources[function].Condition
    allowed = set()
    for resource, actions in statements(role.Properties["Policies"]):
        of_keys = '"KeysTable.Arn"' in resource
        assert of_keys == (function == "AuthorizeFunction")
        if actions == {"ssm:GetParameter"}:
            assert resource.endswith(':parameter${TelegramTokenParameter}"}')
        elif actions == {"sqs:SendMessage"}:
            assert resource == '{"Fn::GetAtt": "UntoldQueue.Arn"}'
        else:
            assert of_keys or ":table/${Name}" in resource
        assert (":table/${Name}/stream/*" in resource) == ("GetRecords" in actions)
        # Of the present table, and of the previous one.
        assert resource.count(f"/index/{store.INDEX}") == 2 * ("Query" in actions)
        allowed |= actions
    assert allowed == ACTIONS.get(function), "tests/test_consistency.py: ACTIONS"


def statements(policies: JsonValue) -> Iterator[tuple[str, set[str]]]:
    """The resource and the actions of each statement; DynamoDB's without a prefix."""
    for policy in cast("list[dict[str, dict[str, list[dict[str, JsonValue]]]]]", policies):
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            actions = re.findall(r'"(?:dynamodb:)?(.+?)"', json.dumps(statement["Action"]))
            yield json.dumps(statement["Resource"]), set(actions)


@pytest.mark.parametrize(
    ("parameters", "route", "function"),
    [
        ({"Alerts": "enabled"}, "POST /alerts", "ReceiveAlertsFunction"),
        ({"TelegramChats": "1"}, "POST /telegram", "ReceiveTelegramFunction"),
    ],
)
def test_an_integration_is_deployed_only_on_request(parameters: dict[str, str], route: str, function: str) -> None:
    def deployed(**parameters: str) -> set[str]:
        return {each.key for each in TEMPLATE.routes(**parameters)} | set(TEMPLATE.functions(**parameters))

    assert deployed(**parameters) - deployed() == {route, function}
    assert {route, function} <= deployed(**INTEGRATIONS)


def test_chats_are_told_only_on_request() -> None:
    default = TEMPLATE.functions()
    assert set(TEMPLATE.functions(**EVERYTHING)) - set(TEMPLATE.functions(**INTEGRATIONS)) == {"NotifyTelegramFunction"}
    assert "NotifyTelegramFunction" not in default
    told = TEMPLATE.Resources["NotifyTelegramFunction"].Condition
    resources = {name for name, each in TEMPLATE.Resources.items() if each.Condition in (told, "Reminds")}
    assert resources > {"UntoldQueue", "AlarmsToTelegram", "AlarmsToTelegramPermission", "Reminder", "ReminderRole"}


def test_notify_telegram_writes_nothing_but_what_chats_were_told() -> None:
    policies = json.dumps(TEMPLATE.Resources["NotifyTelegramRole"].Properties["Policies"])
    (writing,) = re.findall(r'\{[^{}]*"dynamodb:UpdateItem".*?"Condition": (\{.*?\}\})', policies)
    assert json.loads(writing) == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["telegram#*"]}}


def test_the_index_holds_every_field_of_an_incident() -> None:
    (index,) = TEMPLATE.table()["GlobalSecondaryIndexes"]
    assert index["IndexName"] == store.INDEX
    assert index["Projection"]["NonKeyAttributes"] == ["incident"]


def authorizer(header: str) -> dict[str, JsonValue]:
    """An authorizer that finds the access key in this header."""
    return {
        "FunctionArn": {"Fn::GetAtt": "AuthorizeFunction.Arn"},
        "AuthorizerPayloadFormatVersion": "2.0",
        "EnableSimpleResponses": True,
        # Without it, SAM gives the gateway no permission to call the function.
        "EnableFunctionDefaultPermissions": True,
        # Without the route, what is allowed on one would be allowed on every other for a minute.
        "Identity": {"Headers": [header], "Context": ["routeKey"], "ReauthorizeEvery": 60},
    }


def test_every_route_asks_for_an_access_key() -> None:
    assert TEMPLATE.Resources["IncidentApi"].Properties["Auth"] == {
        "DefaultAuthorizer": "AccessKey",  # a literal: SAM resolves no intrinsic function here
        "Authorizers": {
            "AccessKey": authorizer("Authorization"),
            "TelegramSecret": authorizer("X-Telegram-Bot-Api-Secret-Token"),
        },
    }
    of_its_own = {
        str(event.Properties["Path"]): event.Properties["Auth"]
        for function in TEMPLATE.functions(**INTEGRATIONS).values()
        for event in function.Events.values()
        if "Auth" in event.Properties
    }
    assert of_its_own == {"/telegram": {"Authorizer": "TelegramSecret"}}


def test_the_authorizer_is_always_there() -> None:
    # An authorizer whose function is conditional breaks a stack in which the condition is false.
    assert TEMPLATE.Resources["AuthorizeFunction"].Condition is None
    assert TEMPLATE.Resources["KeysTable"].Condition is None


def test_make_key_knows_every_role_and_source() -> None:
    assert set(keys.ROLES) == set(authorize.ROLES), "infra/keys.py"
    assert set(keys.SOURCES) == set(Source), "infra/keys.py"


def test_sam_local_asks_for_no_access_key() -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]["local_start_api"]["parameters"]
    assert settings["disable_authorizer"] is True


def test_the_whole_stack_uses_the_named_table() -> None:
    monitoring = TEMPLATE.Resources["Monitoring"].Properties["Parameters"]
    assert isinstance(monitoring, dict)
    assert monitoring["Table"] == {"Fn::If": ["OwnTable", {"Ref": "IncidentsTable"}, {"Ref": "Table"}]}
    for parameters, name in [({}, template.TABLE), ({"Table": "restored"}, "restored")]:
        assert TEMPLATE.environment(**parameters)["TABLE_NAME"] == name


@pytest.mark.parametrize("environment", ["default", "prod"])
def test_a_deployment_has_its_capabilities(environment: str) -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]["deploy"]["parameters"]
    # A nested stack beside a macro, SAM's own, may need the second one:
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html
    assert settings["capabilities"] == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    assert settings["fail_on_empty_changeset"] is False


@cache
def imports(module: str) -> set[str]:
    """The names of the modules that a file of the functions imports."""
    tree = ast.parse((ROOT / "functions" / f"{module.replace('.', '/')}.py").read_text())
    return {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


def test_few_modules_know_dynamodb() -> None:
    folder = ROOT / "functions"
    modules = [".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py")]
    aware = {module for module in modules if any(name.startswith(("boto", "types_boto")) for name in imports(module))}
    assert aware == {
        "dynamodb",
        "store",
        "alerts.memory",
        "alerts.together",
        "telegram.told",
        "telegram.bot",
    }  # the last one asks SSM
    assert 'os.environ["KEYS_TABLE"]' not in (ROOT / "functions/store.py").read_text()
    assert 'os.environ["TABLE_NAME"]' not in (ROOT / "functions/authorize.py").read_text()


def test_arrows_run_one_way() -> None:
    handlers = FUNCTIONS.values()
    # An incident knows neither AWS nor HTTP; the authorizer none of the others, for its cold start comes on top of theirs.
    assert not any(name.startswith(("boto", "aws_", "http", "api", "store")) for name in imports("incident"))
    assert not imports("store") & {"api", *handlers}
    assert not imports("api") & {"store", *handlers}
    assert not imports("authorize") & {"api", "incident", "store", *handlers}
