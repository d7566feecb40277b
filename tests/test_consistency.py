"""What stands in several places (code, template, contract, documents) is the same in each of them."""

import ast
import importlib
import json
import re
import tomllib
from functools import cache

import pytest
from pydantic import BaseModel, JsonValue, TypeAdapter

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
def test_a_function_has_one_name_from_the_template_to_its_tests(function: str, module: str) -> None:
    *room, name = module.split(".")
    assert function == "".join(map(str.title, name.split("_"))) + "Function"
    assert (ROOT.joinpath("functions", *room) / f"{name}.py").exists()
    assert (ROOT.joinpath("tests", *room) / f"test_{name}.py").exists(), "a function without tests"


class Alarm(BaseModel):
    """An alarm, as far as it says what it watches."""

    Namespace: JsonValue
    MetricName: str
    Dimensions: list[dict[str, JsonValue]] = []


class Resource(BaseModel):
    """A resource of infra/monitoring.yaml."""

    Type: str
    Condition: str | None = None
    Properties: dict[str, JsonValue]


MONITORING = TypeAdapter(dict[str, Resource]).validate_python(
    template.read(ROOT / "infra/monitoring.yaml")["Resources"]
)
ALARMS = {
    name: Alarm.model_validate(each.Properties)
    for name, each in MONITORING.items()
    if each.Type == "AWS::CloudWatch::Alarm"
}
DASHBOARD = json.dumps(MONITORING["Dashboard"].Properties["DashboardBody"]).replace('\\"', '"')


def monitored() -> dict[str, str]:
    """What infra/monitoring.yaml calls each function, by its name in the template."""
    parameters = TEMPLATE.Resources["Monitoring"].Properties["Parameters"]
    assert isinstance(parameters, dict)
    monitored = {}
    for name, value in parameters.items():
        match value:
            case {"Ref": str(function)} if function in FUNCTIONS:
                monitored[function] = name
            case {"Fn::If": [str(condition), {"Ref": str(function)}, ""]} if function in FUNCTIONS:
                assert condition == TEMPLATE.Resources[function].Condition
                monitored[function] = name
    return monitored


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_is_watched_by_alarms_and_shown_on_the_dashboard(function: str) -> None:
    assert function in monitored(), "not a parameter of infra/monitoring.yaml"
    name = monitored()[function]
    dimensions: list[dict[str, JsonValue]] = [{"Name": "FunctionName", "Value": {"Ref": name}}]
    watched = {alarm: each.MetricName for alarm, each in ALARMS.items() if each.Dimensions == dimensions}
    assert sorted(watched.values()) == ["Errors", "Throttles"]
    conditional = TEMPLATE.Resources[function].Condition is not None
    assert {MONITORING[alarm].Condition is not None for alarm in watched} == {conditional}
    shown = set(re.findall(rf'"AWS/Lambda", "(\w+)", "FunctionName", "\${{{name}}}"', DASHBOARD))
    assert shown == {"Errors", "Throttles", "Duration"}


def test_the_dashboard_shows_the_state_of_every_alarm() -> None:
    assert set(re.findall(r"\$\{(\w+)\.Arn\}", DASHBOARD)) == set(ALARMS)


def counted_metrics() -> set[str]:
    """The metrics that the functions count: by name in a call of `count`, or for an error."""
    source = "".join(path.read_text() for path in (ROOT / "functions").rglob("*.py"))
    return {*re.findall(r'\.count\("(\w+)"', source), *api.ERROR_METRICS.values()}


def test_the_metrics_that_are_counted_are_those_that_are_shown() -> None:
    shown = set(re.findall(r"Namespace=\\*\"\$\{MetricsNamespace\}\\*\" MetricName=\\*\"(\w+)", DASHBOARD))
    watched = {each.MetricName for each in ALARMS.values() if each.Namespace == {"Ref": "MetricsNamespace"}}
    assert counted_metrics() == shown | watched


def test_the_template_declares_the_routes_that_the_handlers_answer() -> None:
    assert {(route.method, with_slash(route.path)) for route in ROUTES} == routes_of_the_handlers()


# API Gateway imports a route of another form without an error, and without the route: a slash at the end, for one.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
GATEWAY_PATH = re.compile(r"/|(/[\w.-]+|/\{\w+\})+(/\{\w+\+\})?|/\{\w+\+\}")


def test_api_gateway_takes_the_path_of_every_route() -> None:
    assert [route.path for route in ROUTES if not GATEWAY_PATH.fullmatch(route.path)] == []


@pytest.mark.parametrize(
    "path", ["/incidents/", "incidents", "//incidents", "/{id}-{x}", "/{proxy+}/x", "/incidents?x", "/incidents/{id}/"]
)
def test_a_path_that_api_gateway_leaves_out_would_be_found(path: str) -> None:
    assert not GATEWAY_PATH.fullmatch(path)


def test_no_two_routes_differ_in_the_name_of_a_variable_alone() -> None:
    shapes = [(route.method, re.sub(r"\w+(?=\+?\})", "", route.path)) for route in ROUTES]
    assert len(set(shapes)) == len(shapes)


TABLE_NAME: JsonValue = {"Fn::If": ["OwnTable", {"Ref": "IncidentsTable"}, {"Ref": "Table"}]}
TABLE_ARN = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${Name}"


def test_each_function_may_do_what_it_does_and_nothing_else() -> None:
    table: JsonValue = {"Fn::Sub": [TABLE_ARN, {"Name": TABLE_NAME}]}
    index: JsonValue = {"Fn::Sub": [f"{TABLE_ARN}/index/{store.INDEX}", {"Name": TABLE_NAME}]}
    allowed: dict[str, list[JsonValue]] = {
        "CreateIncidentFunction": [{"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": table}],
        "ReadIncidentsFunction": [
            {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": table},
            {"Effect": "Allow", "Action": "dynamodb:Query", "Resource": index},
        ],
        "UpdateIncidentFunction": [{"Effect": "Allow", "Action": "dynamodb:UpdateItem", "Resource": table}],
        "AuthorizeFunction": [
            {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": {"Fn::GetAtt": "KeysTable.Arn"}}
        ],
        "ReceiveAlertsFunction": [
            {
                "Effect": "Allow",
                "Action": ["dynamodb:BatchGetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"],
                "Resource": table,
            }
        ],
        "ReceiveTelegramFunction": [
            {
                "Effect": "Allow",
                "Action": ["dynamodb:PutItem", "dynamodb:GetItem", "dynamodb:UpdateItem"],
                "Resource": table,
            },
            {"Effect": "Allow", "Action": "dynamodb:Query", "Resource": index},
        ],
    }
    assert set(allowed) == set(FUNCTIONS), "a function whose permissions nobody has decided on"
    for name in FUNCTIONS:
        role = name.replace("Function", "Role")  # of its own
        assert TEMPLATE.Resources[name].Properties["Role"] == {"Fn::GetAtt": f"{role}.Arn"}
        document = {"Version": "2012-10-17", "Statement": allowed[name]}
        policy = "keys" if name == "AuthorizeFunction" else "incidents"
        assert TEMPLATE.Resources[role].Properties["Policies"] == [{"PolicyName": policy, "PolicyDocument": document}]
        assert TEMPLATE.Resources[role].Properties["ManagedPolicyArns"] == [{"Ref": "LogPolicy"}]
        assert TEMPLATE.Resources[role].Condition == TEMPLATE.Resources[name].Condition


@pytest.mark.parametrize(
    ("parameters", "route", "function"),
    [
        ({"Alerts": "enabled"}, "POST /alerts", "ReceiveAlertsFunction"),
        ({"TelegramChats": "1"}, "POST /telegram", "ReceiveTelegramFunction"),
    ],
)
def test_an_integration_is_deployed_only_where_its_parameter_asks_for_it(
    parameters: dict[str, str], route: str, function: str
) -> None:
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


def test_a_route_of_each_role_is_asked_for_by_the_header_that_the_authorizer_reads() -> None:
    assert {"POST /telegram"} == authorize.ROLES["telegram"] == authorize._TELEGRAM


def test_the_authorizer_is_always_there() -> None:
    # An authorizer whose function is conditional breaks a stack in which the condition is false.
    assert TEMPLATE.Resources["AuthorizeFunction"].Condition is None
    assert TEMPLATE.Resources["KeysTable"].Condition is None


def test_a_key_can_be_made_for_every_role_and_every_source() -> None:
    assert set(keys.ROLES) == set(authorize.ROLES), "infra/keys.py"
    assert set(keys.SOURCES) == set(Source), "infra/keys.py"


def test_the_local_run_and_sam_local_ask_for_no_access_key() -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]["local_start_api"]["parameters"]
    assert settings["disable_authorizer"] is True


def test_every_part_of_the_stack_uses_the_table_that_the_parameter_names() -> None:
    monitoring = TEMPLATE.Resources["Monitoring"].Properties["Parameters"]
    assert isinstance(monitoring, dict)
    assert monitoring["Table"] == TABLE_NAME
    for parameters, name in [({}, template.TABLE), ({"Table": "restored"}, "restored")]:
        assert TEMPLATE.environment(**parameters)["TABLE_NAME"] == name


@pytest.mark.parametrize("table", [template.TABLE, "KeysTable"])
def test_a_table_is_encrypted_with_the_key_that_is_free(table: str) -> None:
    # SSESpecification with SSEEnabled stands for the AWS managed key, which KMS charges for; without it, it is the AWS
    # owned key. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.howitworks.html
    assert "SSESpecification" not in TEMPLATE.Resources[table].Properties


@pytest.mark.parametrize("environment", ["default", "prod"])
def test_a_deployment_may_do_what_the_stack_needs_and_may_change_nothing(environment: str) -> None:
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


def test_only_the_store_and_the_authorizer_know_dynamodb_each_its_own_table() -> None:
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
