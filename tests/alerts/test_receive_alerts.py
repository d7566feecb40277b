"""POST /alerts: alerts of Alertmanager and Grafana become incidents."""

import json

import httpx
import pytest
import yaml
from pydantic import JsonValue
from types_boto3_dynamodb import DynamoDBClient

import store
from alerts.alert import Alert
from incident import Change, Status
from rfc3339 import now
from tests.conftest import ROOT
from tests.invoke import call
from tests.steps import assert_problem, bad_input, examples, overwrite

Json = dict[str, JsonValue]

DELIVERIES = ROOT / "tests/alerts/deliveries"
"""A body that Alertmanager 0.25 sent to a webhook, and one with the fields that Grafana documents:

https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
"""

FINGERPRINT = "9fcdbf62e3b8eed9"
STARTED = "2026-11-24T02:17:50.912104000Z"
ENDED = "2026-11-24T02:18:37.288815000Z"


def alert(status: str = "firing", **fields: JsonValue) -> Json:
    """An alert in Alertmanager's format."""
    return {
        "status": status,
        "labels": {"alertname": "ScooterOffline", "instance": "scooter-4567:9100"},
        "annotations": {"summary": "Самокат #4567 не отвечает"},
        "startsAt": STARTED,
        "endsAt": ENDED if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": FINGERPRINT,
        **fields,
    }


def alerts(number: int, status: str = "firing") -> list[Json]:
    """Alerts with different fingerprints."""
    return [alert(status, fingerprint=str(each)) for each in range(number)]


def send(api: httpx.Client, *alerts: JsonValue) -> list[int]:
    """Send the alerts; return how many were created, resolved and unchanged."""
    response = api.post("/alerts", json={"version": "4", "alerts": list(alerts)})
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["created", "resolved", "unchanged"]
    return list(response.json().values())


def statuses(api: httpx.Client) -> list[str]:
    """The statuses of all incidents, newest first."""
    return [incident["status"] for incident in api.get("/incidents").json()]


# ---- real deliveries


def test_alertmanagers_delivery_becomes_readable_incidents(api: httpx.Client) -> None:
    body = json.loads((DELIVERIES / "alertmanager.json").read_text())
    assert api.post("/alerts", json=body).json() == {"created": 2, "resolved": 0, "unchanged": 0}
    incidents = {each["status"]: each for each in api.get("/incidents").json()}
    assert {each["source"] for each in incidents.values()} == {"monitoring"}
    assert incidents["resolved"]["description"].splitlines() == [
        "Самокат #4567 не отвечает",
        "Нет телеметрии 5 минут (значение 0)",
        "alertname: ScooterOffline",
        "case: ok",
        "instance: scooter-4567:9100",
        "severity: critical",
        "http://prometheus.example/graph?g0.expr=up%3D%3D0",
    ]
    # An incident keeps its first description, even if a repeated alert has other annotations.
    firing, resolved = body["alerts"]
    assert send(api, firing | {"annotations": {"summary": "Другое"}, "labels": {}}, resolved) == [0, 0, 2]
    assert {each["status"]: each for each in api.get("/incidents").json()} == incidents


def test_grafanas_delivery_arrives_with_the_documented_contact_point(api: httpx.Client) -> None:
    _, block = examples("yaml")
    ((receiver,),) = (point["receivers"] for point in yaml.safe_load(block)["contactPoints"])
    settings = receiver["settings"]
    assert (receiver["type"], receiver["disableResolveMessage"], settings["maxAlerts"]) == ("webhook", False, 0)
    assert settings["authorization_scheme"] == "Bearer"
    assert settings["authorization_credentials"] == "$INCIDENT_API_KEY"
    path = httpx.URL(settings["url"].replace("…", "api.example")).path
    response = api.request(settings["httpMethod"], path, json=json.loads((DELIVERIES / "grafana.json").read_text()))
    assert response.json() == {"created": 1, "resolved": 0, "unchanged": 0}
    (incident,) = api.get("/incidents").json()
    assert incident["description"].splitlines() == [
        "Мало самокатов",
        "Свободно 2 самоката",
        "runbook_url: https://wiki.example/scooters",
        "grafana_folder: Парк",
        "point: 12",
        "dashboard: https://grafana.example/d/scooters",
        "panel: https://grafana.example/d/scooters?viewPanel=4",
        "silence: https://grafana.example/alerting/silence/new",
        "https://grafana.example/alerting/grafana/4567/view",
    ]


# ---- one incident for each episode


def test_a_hundred_repeated_alerts_take_one_database_request(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    firing, resolved = alerts(100), alerts(100, "resolved")
    for sent, expected, calls in [
        (firing, [100, 0, 0], ["BatchGetItem"] + ["TransactWriteItems"] * 2),
        (firing, [0, 0, 100], ["BatchGetItem"]),
        (resolved, [0, 100, 0], ["BatchGetItem"] * 2 + ["TransactWriteItems"] * 2),
        (resolved, [0, 0, 100], ["BatchGetItem"]),
        (firing[:9], [0, 0, 9], ["BatchGetItem"]),
    ]:
        dynamodb_calls.clear()
        assert send(api, *sent) == expected
        assert sorted(dynamodb_calls) == sorted(calls)
    assert send(api, *firing, alert(fingerprint="one more")) == [1, 0, 100]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("number", [1, 10], ids=["single writes", "transactions"])
def test_the_history_names_the_sender_of_alerts(number: int) -> None:
    sender = {"caller": "grafana"}
    for status in ("firing", "resolved"):
        assert call("alerts.receive_alerts", "POST /alerts", {"alerts": alerts(number, status)}, sender)[0] == 200
    for incident in store.newest(list(Status), number):
        _, history = store.get_with_history(incident.id)
        assert [(entry.status, entry.by) for entry in history] == [("open", "grafana"), ("resolved", "grafana")]


def test_a_change_before_the_transaction_is_kept(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    send(api, *alerts(10))
    time = now()
    monkeypatch.setattr(store, "now", lambda: time)  # both in one millisecond, so that only the version differs
    closed = api.get("/incidents").json()[0]["id"]
    events = store.client.meta.events

    def close(**_: object) -> None:
        events.unregister("before-call.dynamodb.TransactWriteItems", close)
        store.change(closed, Change(status=Status.CLOSED), "anna")

    events.register("before-call.dynamodb.TransactWriteItems", close)
    assert send(api, *alerts(10, "resolved")) == [0, 9, 1]
    assert api.get(f"/incidents/{closed}").json()["status"] == "closed"


@pytest.mark.parametrize("together", [1, 10], ids=["transaction", "single writes"])
@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("open", "resolved", [0, 1, 0]),
        ("in_progress", "resolved", [0, 1, 0]),
        ("resolved", "resolved", [0, 0, 1]),
        ("closed", "closed", [0, 0, 1]),
    ],
)
def test_a_resolved_alert_resolves_an_open_or_in_progress_incident(
    api: httpx.Client, before: str, after: str, counts: list[int], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerts.receive_alerts.TOGETHER", together)
    send(api, alert())
    (incident,) = api.get("/incidents").json()
    api.patch(f"/incidents/{incident['id']}", json={"status": before})
    assert send(api, alert()) == [0, 0, 1]
    assert statuses(api) == [before]
    assert send(api, alert("resolved")) == counts
    assert statuses(api) == [after]
    assert send(api, alert()) == [0, 0, 1]
    assert statuses(api) == [after]


@pytest.mark.parametrize(
    ("start", "created"),
    [
        ("2026-11-24T02:17:50.912104Z", 0),
        ("2026-11-24t02:17:50.912104z", 0),
        ("2026-11-24T05:17:50.912104+03:00", 0),
        ("2026-11-23T20:47:50.9121040009-05:30", 0),
        ("2026-11-24T02:17:50.912104001Z", 1),
    ],
)
def test_starts_are_compared_to_the_nanosecond(api: httpx.Client, start: str, created: int) -> None:
    assert send(api, alert()) == [1, 0, 0]
    assert send(api, alert(startsAt=start)) == [created, 0, 1 - created]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("caller", "id"),
    [("", "bfd84871-7074-5d1b-9741-dbdf906ece1a"), ("grafana", "bbcdb7e2-cd86-52bd-ba73-2e66aef0e16b")],
)
def test_the_ids_of_alerts_never_change(caller: str, id: str) -> None:
    """A new id would record an alert again while it is firing."""
    call("alerts.receive_alerts", "POST /alerts", {"alerts": [alert()]}, {"caller": caller})
    assert [incident.id for incident in store.newest(list(Status), 10)] == [id]


def test_an_incident_at_its_limit_does_not_block_other_alerts(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(api, alert(), alert(fingerprint="2"))
    monkeypatch.setattr(store, "MAX_CHANGES", 0)
    assert send(api, alert("resolved"), alert(fingerprint="2"), alert(fingerprint="3")) == [1, 0, 2]


def test_a_damaged_incident_does_not_block_other_alerts(api: httpx.Client, dynamodb: DynamoDBClient) -> None:
    send(api, *alerts(4))  # as many as there are threads
    for incident in api.get("/incidents").json():
        overwrite(dynamodb, incident["id"], "incident.status", {"S": "paused"})
    others = [alert(fingerprint=f"other {number}") for number in range(5)]
    assert api.post("/alerts", json={"alerts": [*alerts(4, "resolved"), *others]}).status_code == 500
    assert statuses(api) == ["open"] * 5


@pytest.mark.usefixtures("table")
def test_a_key_resolves_only_incidents_of_its_own_alerts() -> None:
    for key, sent, created in [
        ({"caller": "alertmanager"}, alert(), 1),
        ({"caller": "grafana", "source": "partner"}, alert(), 1),
        ({"caller": "another"}, alert("resolved"), 1),
        ({"caller": "alertmanager"}, alert("resolved"), 0),
    ]:
        _, counts = call("alerts.receive_alerts", "POST /alerts", {"alerts": [sent]}, key)
        assert counts == {"created": created, "resolved": 1 - created, "unchanged": 0}
    found = [store.get_with_history(incident.id) for incident in store.newest(list(Status), 10)]
    assert {
        (incident.source.value, *[(entry.status.value, entry.by) for entry in history]) for incident, history in found
    } == {
        ("monitoring", ("open", "alertmanager"), ("resolved", "alertmanager")),
        ("partner", ("open", "grafana")),
        ("monitoring", ("resolved", "another")),
    }


# ---- invalid bodies

UNREADABLE: dict[str, list[JsonValue]] = {
    "fingerprint": [None, "", 7, "\ud800"],
    "startsAt": [None, 17, "yesterday", "2026-11-24T02:17:50", "2026-02-30T02:17:50Z", "0001-01-01T00:00:00+01:00"],
    "status": [None, "suppressed"],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in UNREADABLE.items() for value in values]
)
def test_invalid_alerts_are_named_and_the_others_stored(api: httpx.Client, field: str, value: JsonValue) -> None:
    good = alerts(3)
    bad = alert() | {field: value}
    missing = {name: each for name, each in alert().items() if name != field}
    content = json.dumps({"alerts": [good[0], bad, good[1], missing, 7, good[2]]})
    response = api.post("/alerts", content=content, headers={"Content-Type": "application/json"})
    assert bad_input(response) == [["body", "alerts", 1, field], ["body", "alerts", 3, field], ["body", "alerts", 4]]
    assert statuses(api) == ["open"] * 3


@pytest.mark.parametrize(
    ("body", "bad"),
    [({}, ["alerts"]), ({"alerts": None}, ["alerts"]), ({"alerts": {}}, ["alerts"]), ([], []), ("alerts", [])],
)
def test_a_body_without_alerts_is_a_422(api: httpx.Client, body: JsonValue, bad: list[str]) -> None:
    assert bad_input(api.post("/alerts", json=body)) == [["body", *bad]]


def test_a_body_over_1_mib_is_a_413(api: httpx.Client) -> None:
    body = json.dumps({"alerts": [alert()]}).encode()
    headers = {"Content-Type": "application/json"}
    assert_problem(api.post("/alerts", content=body.ljust(1024 * 1024 + 1), headers=headers), 413)
    assert api.post("/alerts", content=body.ljust(1024 * 1024), headers=headers).json()["created"] == 1


# ---- metrics


@pytest.mark.parametrize("truncated", [0, 1, 2, None, "many", -1])
def test_truncated_alerts_are_counted(
    api: httpx.Client, truncated: JsonValue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert api.post("/alerts", json={"alerts": [], "truncatedAlerts": truncated}).status_code == 200
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line.get("AlertsTruncated") == (truncated if truncated in (1, 2) else None)


def test_many_alerts_are_counted_once(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    """One log line for all, and another only because CloudWatch takes 100 values of a metric from a line."""
    send(api, *alerts(102))
    line = json.loads(capsys.readouterr().out)
    assert (line["IncidentsCreated"], line["source"], line.get("StatusesSet")) == (102, "monitoring", None)
    assert send(api, *alerts(1), *alerts(102, "resolved")[1:], alert(fingerprint="another")) == [1, 101, 1]
    other, line = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (line["IncidentsCreated"], line["StatusesSet"], line["status"]) == (1, 101, "resolved")
    assert (isinstance(other["TimeToResolve"], float), len(line["TimeToResolve"])) == (True, 100)
    assert other["request_id"] == line["request_id"]


# ---- the description

NAMELESS = f"Alert {FINGERPRINT}"


@pytest.mark.parametrize(
    ("annotations", "labels", "lines"),
    [
        ({"summary": "Down"}, {"alertname": "A"}, ["Down", "alertname: A"]),
        ({}, {"alertname": "A", "b": "2"}, ["A", "b: 2"]),
        ({"description": "Why"}, {"alertname": "A"}, ["A", "Why"]),
        ({"description": "Why"}, {"b": "2"}, [NAMELESS, "Why", "b: 2"]),
        ({"summary": "Same", "description": "Same"}, {"alertname": "Same"}, ["Same"]),
        ({"summary": " \u200b "}, {"alertname": "A"}, ["A"]),
        ({"summary": "a\x00b\x1b[0m", "description": "\ud83d"}, {}, ["ab[0m", "?"]),
        ({"summary": None, "description": 7}, {"a": True, "b": [1], "": "x"}, [NAMELESS, "7", "a: True"]),
        ("x", ["y"], [NAMELESS]),
        (None, None, [NAMELESS]),
        ({}, {"alertname": "A", "__uid__": "1", "replica": "b", "prometheus": "c", "_d": "e"}, ["A", "_d: e"]),
        ({"message": "Why", "__c__": "2"}, {"alertname": "A", "d": "3"}, ["A", "message: Why", "d: 3"]),
    ],
)
def test_a_description_shows_annotations_and_labels(
    annotations: JsonValue, labels: JsonValue, lines: list[str]
) -> None:
    described = Alert.model_validate(alert(annotations=annotations, labels=labels)).describe()
    assert described.split("\n") == lines


def test_a_long_description_is_cut(api: httpx.Client) -> None:
    for text, expected in [("я" * 9_998, "A\n" + "я" * 9_998), ("я" * 9_999, "A\n" + "я" * 9_997 + "…")]:
        send(api, alert(fingerprint=text, labels={"alertname": "A"}, annotations={"description": text}))
        assert api.get("/incidents?limit=1").json()[0]["description"] == expected
