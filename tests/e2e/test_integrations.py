"""A stack with every integration that shares the table of one without."""

import json

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from authorize import ROLES
from infra.local import template
from infra.openapi import INTEGRATIONS
from tests.conftest import EVERYTHING
from tests.e2e.aws import FORBIDDEN, TELEGRAM_HEADER, UNAUTHORIZED, Aws, answer
from tests.steps import report, until
from tests.telegram.chat import CHAT, Chat, buttons, deliver, edited, sent
from tests.telegram.fake_telegram import Telegram

ROUTES = sorted(route.key for route in template.load().routes(**INTEGRATIONS))


def test_two_stacks_share_a_table_but_no_keys(deployed: Aws, integrated: Aws) -> None:
    assert integrated.table == deployed.table
    with pytest.raises(ClientError, match=template.TABLE):
        integrated.resource(template.TABLE)
    with deployed.client() as api, integrated.client() as other:
        path = f"/incidents/{report(api)['id']}"
        changed = other.patch(path, json={"status": "closed"}).json()
        assert api.get(path).json() == changed
        assert other.get("/incidents?status=closed&limit=1").json() == [changed]
    for stack, key in ((deployed, integrated.operators_key), (integrated, deployed.operators_key)):
        with stack.client(key) as stranger:
            assert answer(stranger, "GET /incidents") == FORBIDDEN


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_may_use_only_its_routes(integrated: Aws, role: str) -> None:
    key = integrated.make_key(role, role)
    with integrated.client(key) as bearer, integrated.anonymous_client({TELEGRAM_HEADER: key}) as secret:
        for route in ROUTES:
            client, other = (secret, bearer) if route == "POST /telegram" else (bearer, secret)
            assert (answer(client, route) == FORBIDDEN) == (route not in ROLES[role]), route
            assert answer(other, route) == UNAUTHORIZED, f"{route} accepts another route's header"


def test_the_dashboard_shows_every_function(integrated: Aws) -> None:
    name = integrated.output("Dashboard").rpartition("/")[2]
    cloudwatch = boto3.client("cloudwatch", endpoint_url=integrated.endpoint)
    dashboard = cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
    assert json.loads(dashboard)["widgets"]
    assert "${" not in dashboard.replace("${PROP(", "")
    for function in template.load().functions(**EVERYTHING):
        assert rf"\"{integrated.resource(function)}\"" in dashboard


@pytest.mark.parametrize("number", [1, 10], ids=["single writes", "transactions"])
def test_alerts_become_incidents_of_their_reporter(integrated: Aws, number: int) -> None:
    name = f"grafana-{number}"
    alert = {"status": "firing", "startsAt": "2026-11-24T02:17:50Z", "labels": {"alertname": name}}
    alerts = [alert | {"fingerprint": str(each)} for each in range(number)]
    with integrated.client(integrated.make_key(name, "reporter", "partner")) as reporter:
        for status, created, resolved in (("firing", number, 0), ("resolved", 0, number)):
            response = reporter.post("/alerts", json={"alerts": [each | {"status": status} for each in alerts]})
            assert response.json() == {"created": created, "resolved": resolved, "unchanged": 0}
    with integrated.client() as operator:
        incidents = operator.get(f"/incidents?limit={number}").json()
    assert {(each["description"], each["source"], each["status"]) for each in incidents} == {
        (name, "partner", "resolved")
    }


def test_the_bot_records_changes_and_shows_incidents(integrated: Aws, webhook: httpx.Client) -> None:
    chat = Chat()
    shown = sent(deliver(webhook, chat.message("/incident Самокат #4567 не отвечает")))
    edited(deliver(webhook, chat.tap(buttons(shown)["В работу"])))
    with integrated.client() as api:
        (incident,) = api.get("/incidents?limit=1").json()
    assert (incident["description"], incident["status"]) == ("Самокат #4567 не отвечает", "in_progress")
    for command in ("/incidents", f"/incident {incident['id']}"):
        assert incident["description"] in sent(deliver(webhook, chat.message(command))).text


def test_the_webhook_has_the_stacks_url(integrated: Aws) -> None:
    printed = integrated.make("telegram-webhook")
    assert f"--data-urlencode url={integrated.output('ApiUrl')}/telegram" in printed
    assert f"STACK={integrated.stack}" in printed


def test_telegram_messages_can_be_turned_off_and_on(integrated: Aws, bot_api: tuple[Telegram, str]) -> None:
    parameter = integrated.parameters["TelegramTokenParameter"]
    integrated.set_parameters(TelegramTokenParameter="", RemindAt="")
    with pytest.raises(ClientError, match="NotifyTelegramFunction"):
        integrated.resource("NotifyTelegramFunction")
    with integrated.client() as api:
        report(api, "Meanwhile")
    integrated.set_parameters(TelegramTokenParameter=parameter)
    with integrated.client() as api:
        report(api, "Afterwards")
    until(lambda: "Afterwards" in str(bot_api[0].shown(CHAT)), "the chat shows the new incident")
    assert "Meanwhile" in str(bot_api[0].shown(CHAT)), "the stream lost the earlier incident"


def test_deleting_a_stack_keeps_a_shared_table(deployed: Aws, integrated: Aws) -> None:
    with deployed.client() as api:
        incident = report(api)
        integrated.remove()
        assert api.get(f"/incidents/{incident['id']}").json() == incident
