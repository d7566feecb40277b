"""What stands in several places (code, template, contract, documents) is the same in each of them."""

import ast
import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import cast

import pytest
from pydantic import JsonValue

import api
import authorize
import store
from incident import Source
from infra import keys
from infra.local import template
from infra.openapi import INTEGRATIONS
from tests.conftest import ROOT, TEMPLATE

ROUTES = TEMPLATE.routes(**INTEGRATIONS)
FUNCTIONS = {
    name: function.Handler.removesuffix(".handler") for name, function in TEMPLATE.functions(**INTEGRATIONS).items()
}
"""The module of each function."""


def test_the_changelog_and_the_contract_have_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version
    assert json.loads((ROOT / "infra/openapi.json").read_text())["info"]["version"] == version


def routes_of_the_handlers() -> set[tuple[str, str]]:
    """Method and path of each route that a handler's resolver has, as the template writes a path."""
    found = set()
    for module in {route.handler.removesuffix(".handler") for route in ROUTES}:
        app: api.Api = importlib.import_module(module).app
        found |= {
            (route.method, re.sub(r"<(\w+)>", r"{\1}", route.path))
            for route in app._static_routes + app._dynamic_routes
        }
    return found


def with_slash(path: str) -> str:
    """How the handlers write a route that takes the slash at the end of its path."""
    return path.replace("{proxy+}", "")


@pytest.mark.parametrize(("function", "module"), FUNCTIONS.items())
def test_a_function_has_one_name_everywhere(function: str, module: str) -> None:
    *room, name = module.split(".")
    assert function == "".join(map(str.title, name.split("_"))) + "Function"
    assert (ROOT.joinpath("functions", *room) / f"{name}.py").exists()
    assert (ROOT.joinpath("tests", *room) / f"test_{name}.py").exists(), "a function without tests"


MONITORING = cast("dict[str, JsonValue]", template.read(ROOT / "infra/monitoring.yaml")["Resources"])
ALARMS = {
    name: each
    for name, each in MONITORING.items()
    if isinstance(each, dict) and each["Type"] == "AWS::CloudWatch::Alarm"
}
DASHBOARD = json.dumps(MONITORING["Dashboard"]).replace("\\", "")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_is_watched_and_shown(function: str) -> None:
    parameters = TEMPLATE.Resources["Monitoring"].Properties["Parameters"]
    assert isinstance(parameters, dict)
    names = [name for name, value in parameters.items() if f'"{function}"' in json.dumps(value)]
    assert names, "template.yaml: not a parameter of Monitoring"
    watched = json.dumps({"Ref": names[0]})
    for alarm in ("FunctionErrors", "FunctionThrottles"):
        assert watched in json.dumps(ALARMS[alarm]), f"infra/monitoring.yaml: {alarm} does not watch it"
    assert watched in json.dumps(MONITORING["Dashboard"]), "infra/monitoring.yaml: not among the dashboard's Functions"


def test_the_dashboard_shows_the_state_of_every_alarm() -> None:
    assert set(re.findall(r"\$\{(\w+)\.Arn\}", DASHBOARD)) == set(ALARMS)


def test_the_metrics_that_are_counted_are_shown() -> None:
    source = "".join(path.read_text() for path in (ROOT / "functions").rglob("*.py"))
    counted = {*re.findall(r'\.count\("(\w+)"', source), *api.ERROR_METRICS.values()}
    searched = r'Namespace="\$\{MetricsNamespace\}" MetricName="(\w+)|"\$\{MetricsNamespace\}", "(\w+)"'
    assert counted == {name for found in re.findall(searched, DASHBOARD) for name in found if name}


def test_the_template_declares_the_routes_that_the_handlers_answer() -> None:
    assert {(route.method, with_slash(route.path)) for route in ROUTES} == routes_of_the_handlers()


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
}
"""What each function may ask of DynamoDB. A function that is not listed is one that nobody has decided on."""


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_has_a_role_of_its_own_with_its_actions(function: str) -> None:
    name = function.replace("Function", "Role")
    role = TEMPLATE.Resources[name]
    assert TEMPLATE.Resources[function].Properties["Role"] == {"Fn::GetAtt": f"{name}.Arn"}
    assert role.Properties["ManagedPolicyArns"] == [{"Ref": "LogPolicy"}]
    assert role.Condition == TEMPLATE.Resources[function].Condition
    allowed = set()
    for resource, actions in statements(role.Properties["Policies"]):
        of_keys = '"KeysTable.Arn"' in resource
        assert of_keys == (function == "AuthorizeFunction")
        assert of_keys or ":table/${Name}" in resource or "IncidentsTable.StreamArn" in resource
        assert resource.count(f"/index/{store.INDEX}") == ("Query" in actions)
        allowed |= actions
    assert allowed == ACTIONS.get(function), "tests/test_consistency.py: ACTIONS"


def statements(policies: JsonValue) -> Iterator[tuple[str, set[str]]]:
    """The resource and the actions on DynamoDB of each statement."""
    assert isinstance(policies, list)
    for policy in policies:
        assert isinstance(policy, dict)
        document = policy["PolicyDocument"]
        assert isinstance(document, dict)
        listed = document["Statement"]
        assert isinstance(listed, list)
        for statement in listed:
            assert isinstance(statement, dict)
            assert statement["Effect"] == "Allow"
            yield json.dumps(statement["Resource"]), set(re.findall(r"dynamodb:(\w+)", json.dumps(statement["Action"])))


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
    api_auth = TEMPLATE.Resources["IncidentApi"].Properties["Auth"]
    assert api_auth == {
        # A literal: SAM resolves no intrinsic function here.
        "DefaultAuthorizer": "AccessKey",
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


def test_telegrams_route_is_authorized_by_its_header() -> None:
    assert {"POST /telegram"} == authorize.ROLES["telegram"] == authorize._TELEGRAM


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


@pytest.mark.parametrize("table", [template.TABLE, "KeysTable"])
def test_a_table_is_encrypted_with_the_key_that_is_free(table: str) -> None:
    # SSESpecification with SSEEnabled stands for the AWS managed key, which KMS charges for; without it, it is the AWS
    # owned key. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.howitworks.html
    assert "SSESpecification" not in TEMPLATE.Resources[table].Properties


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
    assert aware == {"dynamodb", "store", "alerts.memory"}
    assert 'os.environ["KEYS_TABLE"]' not in (ROOT / "functions/store.py").read_text()
    assert 'os.environ["TABLE_NAME"]' not in (ROOT / "functions/authorize.py").read_text()


def test_arrows_run_one_way() -> None:
    handlers = FUNCTIONS.values()
    # An incident knows neither AWS nor HTTP; the authorizer none of the others, for its cold start comes on top of theirs.
    assert not any(name.startswith(("boto", "aws_", "http", "api", "store")) for name in imports("incident"))
    assert not imports("store") & {"api", *handlers}
    assert not imports("api") & {"store", *handlers}
    assert not imports("authorize") & {"api", "incident", "store", *handlers}
