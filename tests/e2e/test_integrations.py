"""The stack with every integration, beside the one without."""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from infra import keys
from infra.local import template
from infra.openapi import INTEGRATIONS
from tests.alerts import real_alertmanager
from tests.alerts.real_alertmanager import until
from tests.e2e.aws import ROOT, ApiBody, Aws
from tests.e2e.test_aws import allowed_actions
from tests.steps import report
from tests.telegram.chat import ANNA, BORIS, Chat, alerted, body, buttons, deliver, edited, sent

FUNCTIONS = sorted(set(template.load().functions(**INTEGRATIONS)) - set(template.load().functions()))
REPORT = "Самокат #4567 не отвечает"
HEADER = "X-Telegram-Bot-Api-Secret-Token"


@pytest.fixture(scope="module")
def integrated(deployment: object) -> Iterator[Aws]:
    if not isinstance(deployment, Aws):
        pytest.skip("the API is not on AWS: make e2e")
    stack = replace(deployment, stack="incident-api-integrations")
    stack.deploy(ROOT, **INTEGRATIONS)
    yield stack
    stack.remove()


def test_the_functions_and_routes_of_the_integrations_are_there(integrated: Aws) -> None:
    assert {integrated.resource(function) for function in FUNCTIONS}
    document = ApiBody.model_validate(integrated.processed().Resources["IncidentApi"].Properties["Body"])
    imported = {
        f"{method.upper()} {path}": operation.security
        for path, methods in document.paths.items()
        for method, operation in methods.items()
    }
    assert set(imported) == {route.key for route in template.load().routes(**INTEGRATIONS)}
    assert imported.pop("POST /telegram") == [{"TelegramSecret": []}]
    assert all(security == [{"AccessKey": []}] for security in imported.values())


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("ReceiveAlertsRole", {"BatchGetItem", "PutItem", "UpdateItem"}),
        ("ReceiveTelegramRole", {"PutItem", "GetItem", "UpdateItem", "Query index"}),
    ],
)
def test_a_role_allows_its_own_actions_and_no_others(integrated: Aws, role: str, allowed: set[str]) -> None:
    assert allowed_actions(integrated, role) == {"TableName": allowed, "KeysTableName": set(), "": set()}


def test_the_integrations_are_watched_and_shown(integrated: Aws) -> None:
    cloudwatch = boto3.client("cloudwatch", endpoint_url=integrated.endpoint)
    alarms = cloudwatch.describe_alarms()["MetricAlarms"]
    dashboard = cloudwatch.get_dashboard(DashboardName=integrated.output("Dashboard").rpartition("/")[2])
    shown = json.dumps(json.loads(dashboard["DashboardBody"]))  # what is put together is JSON
    for function in map(integrated.resource, FUNCTIONS):
        watched = [alarm for alarm in alarms if {"Name": "FunctionName", "Value": function} in alarm["Dimensions"]]
        assert {alarm["MetricName"] for alarm in watched} == {"Errors", "Throttles"}
        assert all(alarm["AlarmArn"] in shown for alarm in watched)
        assert set(re.findall(rf'"AWS/Lambda", "(\w+)", "FunctionName", "{function}"', shown)) == {
            "Errors",
            "Throttles",
            "Duration",
        }


# ---- alerts


@pytest.mark.parametrize("role", keys.ROLES)
def test_reporters_alone_may_send_alerts(integrated: Aws, role: str) -> None:
    key = integrated.make_key(f"alerting-{role}", role)
    status = HTTPStatus.OK if role == "reporter" else HTTPStatus.FORBIDDEN
    with integrated.client(key) as bearer, integrated.anonymous_client() as basic:
        basic.auth = ("alertmanager", key)
        for client in (bearer, basic):
            assert client.post("/alerts", json={"version": "4", "alerts": []}).status_code == status


# ---- Telegram


@pytest.fixture(scope="module")
def secret(integrated: Aws) -> str:
    """The access key that Telegram is given."""
    return integrated.make_key("telegram", "telegram")


@pytest.fixture(scope="module")
def telegram(integrated: Aws, secret: str) -> Iterator[httpx.Client]:
    """Telegram's server."""
    with integrated.anonymous_client({HEADER: secret}) as client:
        yield client


def test_the_right_key_in_telegrams_header_is_asked_for(integrated: Aws, secret: str) -> None:
    update = json.loads(body(Chat().message("/incidents")))
    operator = integrated.operators_key
    with integrated.anonymous_client() as client:

        def status(**headers: str) -> int:
            return client.post(
                "/telegram", json=update, headers={k.replace("_", "-"): v for k, v in headers.items()}
            ).status_code

        assert status(**{HEADER: secret}) == HTTPStatus.OK
        for wrong in (
            operator,
            secret[:-1] + ("A" if secret[-1] != "A" else "B"),
            secret.lower(),
            "x",
            f"Bearer {secret}",
        ):
            assert status(**{HEADER: wrong}) == HTTPStatus.FORBIDDEN
        # What is in the other header is of no account.
        for elsewhere in (
            {},
            {"Authorization": f"Bearer {secret}"},
            {"Authorization": f"Bearer {operator}"},
            {HEADER: ""},
        ):
            assert status(**elsewhere) == HTTPStatus.UNAUTHORIZED
        assert status(**{HEADER: "x", "Authorization": f"Bearer {operator}"}) == HTTPStatus.FORBIDDEN


def test_telegrams_key_is_good_for_nothing_else(integrated: Aws, secret: str) -> None:
    with integrated.client(secret) as client:
        for method, path in (("GET", "/incidents"), ("POST", "/incidents"), ("POST", "/alerts")):
            assert client.request(method, path).status_code == HTTPStatus.FORBIDDEN
    with integrated.anonymous_client({HEADER: secret}) as client:
        assert client.get("/incidents").status_code == HTTPStatus.UNAUTHORIZED


def test_a_conversation_on_aws_can_be_read_back_through_the_api(integrated: Aws, telegram: httpx.Client) -> None:
    chat = Chat()
    answer = sent(deliver(telegram, chat.message(f"/incident {REPORT}", ANNA)))
    tap = chat.tap(buttons(answer)["В работу"], BORIS)
    for _ in range(3):
        edited(deliver(telegram, tap))
    assert "«в работе» (Boris)" in alerted(deliver(telegram, chat.tap(buttons(answer)["Закрыть"], ANNA)))
    with integrated.client() as api:
        (incident,) = api.get("/incidents").json()
        history = api.get(f"/incidents/{incident['id']}/history").json()
        assert (incident["description"], incident["source"], incident["status"]) == (REPORT, "operator", "in_progress")
        assert [(entry["status"], entry["by"]) for entry in history] == [
            ("open", "telegram:11 Анна Петрова"),
            ("in_progress", "telegram:22 Boris"),
        ]
        reported = report(api, "reported through the API")
    shown = sent(deliver(telegram, chat.message("/incidents", BORIS))).text
    assert re.findall(r"/incident_([0-9a-f]{32})", shown) == [
        each["id"].replace("-", "") for each in (reported, incident)
    ]
    assert deliver(telegram, Chat(99).message(f"/incident {REPORT}")) is None
    with integrated.client() as api:
        assert len(api.get("/incidents").json()) == 2


def test_the_webhook_to_set_is_the_stacks(integrated: Aws) -> None:
    printed = integrated.make("telegram-webhook")
    assert f"--data-urlencode url={integrated.output('ApiUrl')}/telegram" in printed
    assert f"STACK={integrated.stack}" in printed


# ---- alerts


def test_by_default_there_is_neither_the_route_nor_the_function_of_an_integration(deployment: object) -> None:
    if not isinstance(deployment, Aws):
        pytest.skip("the API is not on AWS: make e2e")
    for function in FUNCTIONS:
        with pytest.raises(ClientError, match=function):
            deployment.resource(function)
    with deployment.client() as client:
        for path in ("/alerts", "/telegram"):
            response = client.post(path, json={"alerts": []})
            assert (response.status_code, response.json()) == (404, {"message": "Not Found"})


ALERT = {
    "status": "firing",
    "labels": {"alertname": "ScooterOffline"},
    "startsAt": "2026-11-24T02:17:50.912104Z",
    "fingerprint": "9fcdbf62e3b8eed9",
}


def test_a_reporters_key_resolves_what_its_own_alerts_created_and_nothing_else(integrated: Aws) -> None:
    first = integrated.make_key("alertmanager", "reporter")
    second = integrated.make_key("grafana", "reporter", "partner")
    resolved = {"alerts": [ALERT | {"status": "resolved"}]}
    with integrated.client(first) as client, integrated.client(second) as other, integrated.client() as operator:
        assert client.post("/alerts", json={"alerts": [ALERT]}).json() == {"created": 1, "resolved": 0, "unchanged": 0}
        assert other.post("/alerts", json={"alerts": [ALERT]}).json() == {"created": 1, "resolved": 0, "unchanged": 0}
        assert client.post("/alerts", json=resolved).json() == {"created": 0, "resolved": 1, "unchanged": 0}
        theirs, ours = operator.get("/incidents?limit=2").json()
        assert (ours["source"], ours["status"]) == ("monitoring", "resolved")
        assert (theirs["source"], theirs["status"]) == ("partner", "open")
        history = operator.get(f"/incidents/{ours['id']}/history").json()
        assert [(entry["status"], entry["by"]) for entry in history] == [
            ("open", "alertmanager"),
            ("resolved", "alertmanager"),
        ]
        path = f"/incidents/{ours['id']}"
        refused = [client.get("/incidents"), client.get(path), client.patch(path, json={"status": "open"})]
        assert {response.status_code for response in refused} == {HTTPStatus.FORBIDDEN}
        assert operator.post("/alerts", json={"alerts": []}).status_code == HTTPStatus.FORBIDDEN


@real_alertmanager.needed
def test_alertmanager_reports_with_its_key(integrated: Aws) -> None:
    group = uuid.uuid4().hex
    starts = datetime.now(UTC) - timedelta(minutes=1)
    url = f"{integrated.endpoint}/_aws/execute-api/{integrated.resource('IncidentApi')}/alerts"
    with (
        integrated.client() as operator,
        real_alertmanager.running(url, integrated.make_key("real-alertmanager", "reporter")) as alertmanager,
    ):

        def histories() -> list[list[tuple[str, str]]]:
            incidents = operator.get("/incidents?limit=100").json()
            paths = [f"/incidents/{each['id']}/history" for each in incidents if group in each["description"]]
            return [[(each["status"], each["by"]) for each in operator.get(path).json()] for path in paths]

        alertmanager.post(*(real_alertmanager.alert(group, str(number), starts) for number in range(5)))
        opened = [("open", "real-alertmanager")]
        until(lambda: histories() == [opened] * 5, "five open incidents")
        ends = datetime.now(UTC)
        alertmanager.post(*(real_alertmanager.alert(group, str(number), starts, ends) for number in range(5)))
        until(lambda: histories() == [[*opened, ("resolved", "real-alertmanager")]] * 5, "five resolved incidents")
