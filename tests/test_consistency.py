"""Code, template, contract and documents agree."""

import json
import re
import tomllib
from typing import cast

import pytest
from pydantic import JsonValue

import authorize
import store
from incident import Source
from infra import keys
from infra.openapi import INTEGRATIONS
from tests.conftest import HANDLERS, ROOT, TEMPLATE

ROUTES = TEMPLATE.routes(**INTEGRATIONS)


def test_changelog_and_contract_have_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == version
    assert json.loads((ROOT / "infra/openapi.json").read_text())["info"]["version"] == version


@pytest.mark.parametrize(("function", "module"), HANDLERS.items())
def test_a_function_has_one_name_everywhere(function: str, module: str) -> None:
    *folder, name = module.split(".")
    assert function == "".join(map(str.title, name.split("_"))) + "Function"
    assert ROOT.joinpath("functions", *folder, f"{name}.py").exists()
    assert ROOT.joinpath("tests", *folder, f"test_{name}.py").exists(), "the function has no tests"


# API Gateway silently drops a route of any other form, such as one with a trailing slash.
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
GATEWAY_PATH = re.compile(r"/|(/[\w.-]+|/\{\w+\})+(/\{\w+\+\})?|/\{\w+\+\}")


def test_api_gateway_accepts_every_path() -> None:
    assert [route.path for route in ROUTES if not GATEWAY_PATH.fullmatch(route.path)] == []


def test_no_two_routes_differ_only_in_a_variables_name() -> None:
    shapes = [(route.method, re.sub(r"\w+(?=\+?\})", "", route.path)) for route in ROUTES]
    assert len(set(shapes)) == len(shapes)


INCIDENTS, INDEX = "table/${Name}", f"table/${{Name}}/index/{store.INDEX}"
PERMISSIONS = {
    "CreateIncidentFunction": {INCIDENTS: "PutItem"},
    "ReadIncidentsFunction": {INCIDENTS: "GetItem", INDEX: "Query"},
    "UpdateIncidentFunction": {INCIDENTS: "UpdateItem"},
    "AuthorizeFunction": {"KeysTable.Arn": "GetItem"},
    "ReceiveAlertsFunction": {INCIDENTS: "BatchGetItem PutItem UpdateItem"},
    "ReceiveTelegramFunction": {INCIDENTS: "GetItem PutItem UpdateItem", INDEX: "Query"},
    "NotifyTelegramFunction": {
        INCIDENTS: "BatchGetItem GetItem UpdateItem",
        INDEX: "Query",
        "table/${Name}/stream/*": "DescribeStream GetRecords GetShardIterator ListStreams",
        "parameter${TelegramTokenParameter}": "ssm:GetParameter",
        "UndeliveredQueue.Arn": "sqs:SendMessage",
    },
}
"""The actions that each function may call on each resource, DynamoDB's without a prefix."""


@pytest.mark.parametrize("function", HANDLERS)
def test_a_functions_own_role_has_only_the_listed_permissions(function: str) -> None:
    name = function.replace("Function", "Role")
    assert TEMPLATE.Resources[function].Properties["Role"] == {"Fn::GetAtt": f"{name}.Arn"}
    role = TEMPLATE.Resources[name].Properties
    assert role["ManagedPolicyArns"] == [{"Ref": "LogPolicy"}]
    statements = [
        statement
        for policy in cast("list[dict[str, dict[str, list[dict[str, JsonValue]]]]]", role["Policies"])
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    allowed: dict[str, set[str]] = {}
    for statement in statements:
        # Each resource by the end of its ARN, or by its attribute. tests/test_template.py looks at the previous table.
        resources = re.findall(r'(?:arn:[^"]*:|GetAtt": ")([^":]+)"', json.dumps(statement["Resource"]))
        (resource,) = [each for each in resources if "${PreviousTable}" not in each]
        actions = re.findall(r'"(?:dynamodb:)?(.+?)"', json.dumps(statement["Action"]))
        allowed.setdefault(resource, set()).update(actions)
    listed = {resource: set(actions.split()) for resource, actions in PERMISSIONS.get(function, {}).items()}
    assert allowed == listed, "tests/test_consistency.py: PERMISSIONS"


def test_notify_telegram_writes_only_items_of_chats() -> None:
    policies = json.dumps(TEMPLATE.Resources["NotifyTelegramRole"].Properties["Policies"])
    (condition,) = re.findall(r'\{[^{}]*"dynamodb:UpdateItem".*?"Condition": (\{.*?\}\})', policies)
    assert json.loads(condition) == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["telegram#*"]}}


def test_the_index_has_the_incident_without_its_history() -> None:
    (index,) = TEMPLATE.table()["GlobalSecondaryIndexes"]
    assert index["Projection"]["NonKeyAttributes"] == ["incident"]


def test_make_key_knows_every_role_and_source() -> None:
    assert set(keys.ROLES) == set(authorize.ROLES), "infra/keys.py"
    assert set(keys.SOURCES) == set(Source), "infra/keys.py"


@pytest.mark.parametrize("environment", ["default", "prod"])
def test_a_deployment_has_its_capabilities(environment: str) -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]["deploy"]["parameters"]
    # A nested stack in a template with a macro, such as SAM's, may need the second one:
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html
    assert settings["capabilities"] == ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
    assert settings["fail_on_empty_changeset"] is False


def imports(module: str) -> set[str]:
    """The modules that a module of the functions imports."""
    path = ROOT.joinpath("functions", *module.split(".")).with_suffix(".py")
    return set(re.findall(r"^ *(?:from|import) ([\w.]+)", path.read_text(), re.MULTILINE))


def test_few_modules_know_dynamodb() -> None:
    folder = ROOT / "functions"
    modules = [".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py")]
    aware = {module for module in modules if any(name.startswith(("boto", "types_boto")) for name in imports(module))}
    core = {"dynamodb", "store"}
    # The bot calls SSM.
    assert aware == core | {"alerts.memory", "alerts.together", "telegram.deliveries", "telegram.bot"}


def test_modules_depend_in_one_direction() -> None:
    handlers = HANDLERS.values()
    assert not any(name.startswith(("boto", "aws_", "http", "api", "store")) for name in imports("incident"))
    assert not imports("store") & {"api", *handlers}
    assert not imports("api") & {"store", *handlers}
    # The authorizer's cold start is added to that of the function behind it.
    assert not imports("authorize") & {"api", "incident", "store", *handlers}
