"""A stack with every integration, on the table of one without: who may do what, and that each answers."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import httpx
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from pydantic import JsonValue

from authorize import ROLES
from infra.local import template
from infra.openapi import INTEGRATIONS
from tests.alerts import real_alertmanager
from tests.alerts.real_alertmanager import until
from tests.conftest import EVERYTHING
from tests.e2e.aws import FORBIDDEN, UNAUTHORIZED, Aws, answer
from tests.steps import report
from tests.telegram.chat import CHAT, Chat, buttons, deliver, edited, sent
from tests.telegram.fake_telegram import Telegram

ROUTES = sorted(route.key for route in template.load().routes(**INTEGRATIONS))
FUNCTIONS = sorted(template.load().functions(**EVERYTHING))
INTEGRATED = sorted(set(FUNCTIONS) - set(template.load().functions()))
TELEGRAMS = "X-Telegram-Bot-Api-Secret-Token"


# ---- two stacks on one table


def test_a_stack_can_go_on_with_the_table_of_another(deployed: Aws, integrated: Aws) -> None:
    assert integrated.table == deployed.table
    with pytest.raises(ClientError, match=template.TABLE):
        integrated.resource(template.TABLE)
    with deployed.client() as api, integrated.client() as other:
        path = f"/incidents/{report(api)['id']}"
        changed = other.patch(path, json={"status": "closed"}).json()
        assert api.get(path).json() == other.get(path).json() == changed
        assert other.get("/incidents?status=closed&limit=1").json() == [changed]


def test_a_key_is_of_one_stack(deployed: Aws, integrated: Aws) -> None:
    for stack, key in ((deployed, integrated.operators_key), (integrated, deployed.operators_key)):
        with stack.client(key) as stranger:
            assert answer(stranger, "GET /incidents") == FORBIDDEN


def test_by_default_there_is_no_integration(deployed: Aws) -> None:
    for function in INTEGRATED:
        with pytest.raises(ClientError, match=function):
            deployed.resource(function)
    with deployed.client() as client:
        for route in ("POST /alerts", "POST /telegram"):
            assert answer(client, route) == (404, {"message": "Not Found"})


def test_the_dashboard_shows_every_function_and_alarm(integrated: Aws) -> None:
    cloudwatch = boto3.client("cloudwatch", endpoint_url=integrated.endpoint)
    alarms = cloudwatch.describe_alarms()["MetricAlarms"]
    ours = [alarm for alarm in alarms if alarm["AlarmActions"] == [integrated.output("AlarmTopicArn")]]
    name = integrated.output("Dashboard").rpartition("/")[2]
    dashboard = cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
    assert "${" not in dashboard.replace("${PROP(", "")
    for function in map(integrated.resource, FUNCTIONS):
        assert rf"\"{function}\"" in dashboard
    for alarm in ours:
        assert alarm["AlarmArn"] in dashboard


# ---- what roles may do


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_may_use_its_own_routes_and_no_others(integrated: Aws, role: str) -> None:
    key = integrated.make_key(role, role)
    with integrated.client(key) as bearer, integrated.anonymous_client({TELEGRAMS: key}) as secret:
        for route in ROUTES:
            client, other = (secret, bearer) if route == "POST /telegram" else (bearer, secret)
            assert (answer(client, route) == FORBIDDEN) == (route not in ROLES[role]), route
            assert answer(other, route) == UNAUTHORIZED, "a key in a header that is not this route's"


ACTIONS: dict[str, dict[str, JsonValue]] = {
    "PutItem": {"Item": {"id": {"S": "1"}}},
    "GetItem": {"Key": {"id": {"S": "1"}}},
    "BatchGetItem": {"Keys": [{"id": {"S": "1"}}]},
    "UpdateItem": {"Key": {"id": {"S": "1"}}},
    "DeleteItem": {"Key": {"id": {"S": "1"}}},
    "Query": {"KeyConditionExpression": "id = :id", "ExpressionAttributeValues": {":id": {"S": "1"}}},
    "Query index": {
        "IndexName": "by-status",
        "KeyConditionExpression": "status_shard = :shard",
        "ExpressionAttributeValues": {":shard": {"S": "open#0"}},
    },
    "Scan": {},
    "Scan index": {"IndexName": "by-status"},
    "DescribeTable": {},
    "DeleteTable": {},
}


def actions_in_the_template(function: str) -> set[tuple[str, str]]:
    """What the template lets the function do, and with whose table (by its output)."""
    policies = template.load().Resources[function.replace("Function", "Role")].Properties["Policies"]
    return {
        ("KeysTableName" if "KeysTable" in statement else "TableName", action + " index" * ("/index/" in statement))
        for statement in str(policies).split("'Effect'")
        for action in re.findall(r"dynamodb:(\w+)", statement)
        if action in ACTIONS
    }


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_do_what_its_role_allows(integrated: Aws, function: str) -> None:
    role = integrated.iam.get_role(RoleName=integrated.resource(function.replace("Function", "Role")))["Role"]["Arn"]
    sts = boto3.client("sts", endpoint_url=integrated.endpoint)
    assumed = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    dynamodb = boto3.client(
        "dynamodb",
        endpoint_url=integrated.endpoint,
        aws_access_key_id=assumed["AccessKeyId"],
        aws_secret_access_key=assumed["SecretAccessKey"],
        aws_session_token=assumed["SessionToken"],
    )

    def may(action: str, table: str) -> bool:
        operation = action.partition(" ")[0]
        arguments: dict[str, JsonValue] = {"TableName": table, **ACTIONS[action]}
        if operation == "BatchGetItem":
            arguments = {"RequestItems": {table: ACTIONS[action]}}
        try:
            getattr(dynamodb, xform_name(operation))(**arguments)
        except ClientError as error:
            return error.response["Error"]["Code"] != "AccessDeniedException"
        return True

    tables = {name: integrated.output(name) for name in ("TableName", "KeysTableName")} | {"": "another-table"}
    allowed = {(name, action) for name, table in tables.items() for action in ACTIONS if may(action, table)}
    integrated.dynamodb.delete_item(TableName=integrated.table, Key={"id": {"S": "1"}})
    assert allowed == actions_in_the_template(function)


# ---- alerts

ALERT = {"status": "firing", "fingerprint": "9fcdbf62e3b8eed9", "startsAt": "2026-11-24T02:17:50.912104Z"}


def test_an_alert_belongs_to_the_key_that_reports_it(integrated: Aws) -> None:
    first = integrated.make_key("alertmanager", "reporter")
    second = integrated.make_key("grafana", "reporter", "partner")
    with integrated.client(first) as client, integrated.client(second) as other, integrated.client() as operator:
        for reporter in (client, other):
            counts = reporter.post("/alerts", json={"alerts": [ALERT]}).json()
            assert counts == {"created": 1, "resolved": 0, "unchanged": 0}
        client.post("/alerts", json={"alerts": [ALERT | {"status": "resolved"}]})
        theirs, ours = operator.get("/incidents?limit=2").json()
        assert (ours["source"], ours["status"]) == ("monitoring", "resolved")
        assert (theirs["source"], theirs["status"]) == ("partner", "open")
        history = operator.get(f"/incidents/{ours['id']}/history").json()
        assert {entry["by"] for entry in history} == {"alertmanager"}


@real_alertmanager.needed
def test_alertmanager_reports_with_its_key(integrated: Aws) -> None:
    group = uuid.uuid4().hex
    starts = datetime.now(UTC) - timedelta(minutes=1)
    url = f"{integrated.address}/alerts"
    with (
        integrated.client() as operator,
        real_alertmanager.running(url, integrated.make_key("real-alertmanager", "reporter")) as alertmanager,
    ):

        def statuses() -> list[str]:
            incidents = operator.get("/incidents?limit=100").json()
            return [each["status"] for each in incidents if group in each["description"]]

        alertmanager.post(*(real_alertmanager.alert(group, str(number), starts) for number in range(5)))
        until(lambda: statuses() == ["open"] * 5, "five open incidents")
        ends = datetime.now(UTC)
        alertmanager.post(*(real_alertmanager.alert(group, str(number), starts, ends) for number in range(5)))
        until(lambda: statuses() == ["resolved"] * 5, "five resolved incidents")


# ---- Telegram


@pytest.fixture
def telegram(integrated: Aws) -> Iterator[httpx.Client]:
    """Telegram's server."""
    with integrated.anonymous_client({TELEGRAMS: integrated.make_key("telegram", "telegram")}) as client:
        yield client


def test_what_the_bot_does_can_be_read_through_the_api(integrated: Aws, telegram: httpx.Client) -> None:
    chat = Chat()
    shown = sent(deliver(telegram, chat.message("/incident Самокат #4567 не отвечает")))
    tap = chat.tap(buttons(shown)["В работу"])
    for _ in range(2):
        edited(deliver(telegram, tap))
    assert deliver(telegram, Chat(99).message("/incident In a chat that is not served")) is None
    with integrated.client() as api:
        (incident,) = api.get("/incidents?limit=1").json()
        history = api.get(f"/incidents/{incident['id']}/history").json()
    assert (incident["description"], incident["source"]) == ("Самокат #4567 не отвечает", "operator")
    assert [entry["status"] for entry in history] == ["open", "in_progress"]


def test_the_webhook_to_set_is_the_stacks(integrated: Aws) -> None:
    printed = integrated.make("telegram-webhook")
    assert f"--data-urlencode url={integrated.output('ApiUrl')}/telegram" in printed
    assert f"STACK={integrated.stack}" in printed


def test_telling_is_turned_off_and_on_on_a_live_stack(integrated: Aws, bot_api: tuple[Telegram, str]) -> None:
    parameter = integrated.parameters["TelegramTokenParameter"]
    integrated.set_parameters(TelegramTokenParameter="", RemindAt="")
    with pytest.raises(ClientError, match="NotifyTelegramFunction"):
        integrated.resource("NotifyTelegramFunction")
    with integrated.client() as api:
        report(api, "Meanwhile")
    integrated.set_parameters(TelegramTokenParameter=parameter)
    with integrated.client() as api:
        report(api, "Afterwards")
    until(lambda: "Afterwards" in str(bot_api[0].shown(CHAT)), "the chat shows it")
    assert "Meanwhile" in str(bot_api[0].shown(CHAT)), "the stream keeps what happened meanwhile"


def test_removing_a_stack_leaves_the_table_of_another(deployed: Aws, integrated: Aws) -> None:
    with deployed.client() as api:
        incident = report(api)
        integrated.remove()
        assert api.get(f"/incidents/{incident['id']}").json() == incident
