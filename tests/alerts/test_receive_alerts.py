"""POST /alerts: what Alertmanager and Grafana send becomes incidents."""

import json
import re
from typing import cast

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

import store
from alerts.alert import Alert
from incident import (
    MAX_DESCRIPTION,
    Status,
    derived_id,
)
from rfc3339 import parse_instant
from tests.conftest import ROOT, TEMPLATE
from tests.invoke import call
from tests.steps import assert_problem, bad_input

Json = dict[str, JsonValue]

PAGE = (ROOT / "infra" / "integrations.md").read_text()
RECORDED = ROOT / "tests/alerts/deliveries"
"""Bodies that Alertmanager 0.25 sent to a webhook; a list has the deliveries in their order."""

FINGERPRINT = "9fcdbf62e3b8eed9"
SEEN = "2026-11-24T02:17:50.912104000Z"
ENDED = "2026-11-24T02:18:37.288815000Z"


def recorded(name: str) -> list[Json]:
    """The deliveries of a recording."""
    bodies = json.loads((RECORDED / f"{name}.json").read_text())
    return bodies if isinstance(bodies, list) else [bodies]


def alert(status: str = "firing", **fields: JsonValue) -> Json:
    """An alert as Alertmanager sends it."""
    return {
        "status": status,
        "labels": {"alertname": "ScooterOffline", "instance": "scooter-4567:9100"},
        "annotations": {"summary": "Самокат #4567 не отвечает"},
        "startsAt": SEEN,
        "endsAt": ENDED if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": FINGERPRINT,
        **fields,
    }


def send(api: httpx.Client, *alerts: JsonValue) -> list[int]:
    """Send the alerts; return how many were created, resolved and unchanged."""
    response = api.post("/alerts", json={"version": "4", "alerts": list(alerts)})
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["created", "resolved", "unchanged"]
    return list(response.json().values())


def statuses(api: httpx.Client) -> list[str]:
    """The statuses of all incidents, newest first."""
    return [incident["status"] for incident in api.get("/incidents").json()]


def history(api: httpx.Client, incident: dict[str, str]) -> list[str]:
    return [entry["status"] for entry in api.get(f"/incidents/{incident['id']}/history").json()]


# ---- what Alertmanager and Grafana really send


def test_a_recorded_alert_becomes_a_readable_incident(api: httpx.Client) -> None:
    (body,) = recorded("firing")
    assert api.post("/alerts", json=body).json() == {"created": 1, "resolved": 0, "unchanged": 0}
    (incident,) = api.get("/incidents").json()
    assert (incident["source"], incident["status"]) == ("monitoring", "open")
    assert incident["description"].splitlines() == [
        "Самокат #4567 не отвечает",
        "Нет телеметрии 5 минут (значение 0)",
        "alertname: ScooterOffline",
        "case: once429",
        "instance: scooter-4567:9100",
        "severity: critical",
        "http://prometheus.example/graph?g0.expr=up%3D%3D0",
    ]
    (body,) = recorded("resolved")
    assert api.post("/alerts", json=body).json() == {"created": 0, "resolved": 1, "unchanged": 0}
    assert history(api, incident) == ["open", "resolved"]


@pytest.mark.parametrize(
    ("recordings", "expected"),
    [
        (["firing-two-in-group"], ["open", "open"]),
        (["firing-two-in-group", "resolved-mixed-group"], ["open", "resolved"]),
        (["resolved"], ["resolved"]),
        (["two-replicas"], ["resolved"]),
        (["two-episodes"], ["resolved", "resolved"]),
        (["truncated"], ["open"]),
    ],
)
def test_recorded_deliveries_may_each_come_twice(api: httpx.Client, recordings: list[str], expected: list[str]) -> None:
    for name in recordings:
        for body in recorded(name):
            assert api.post("/alerts", json=body).status_code == 200
            again = api.post("/alerts", json=body)
            assert again.json() == {"created": 0, "resolved": 0, "unchanged": len(cast("list[Json]", body["alerts"]))}
    assert sorted(statuses(api)) == expected


GRAFANA: Json = {
    "receiver": "incidents",
    "status": "firing",
    "orgId": 1,
    "alerts": [
        {
            "status": "firing",
            "labels": {
                "alertname": "Мало самокатов",
                "grafana_folder": "Парк",
                "__alert_rule_uid__": "4567",
                "point": "12",
            },
            "annotations": {"description": "Свободно 2 самоката", "runbook_url": "https://wiki.example/scooters"},
            "startsAt": "2026-11-24T12:30:00.157076+03:00",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "https://grafana.example/alerting/grafana/4567/view",
            "fingerprint": "0fd4a3b2c1907e65",
            "silenceURL": "https://grafana.example/alerting/silence/new",
            "dashboardURL": "",
            "panelURL": "",
            "values": {"A": 2, "B": 0.5},
            "valueString": "[ var='A' value=2 ]",
        }
    ],
    "groupLabels": {},
    "commonLabels": {"alertname": "Мало самокатов"},
    "commonAnnotations": {},
    "externalURL": "https://grafana.example/",
    "version": "1",
    "groupKey": "{}:{}",
    "truncatedAlerts": 0,
    "title": "[FIRING:1] Мало самокатов",
    "state": "alerting",
    "message": "**Firing**",
}
"""The fields that Grafana documents.

https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
"""


def test_grafana_reports_with_the_contact_point_that_the_page_shows(api: httpx.Client) -> None:
    section = PAGE.partition("\n## Grafana\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    ((receiver,),) = (point["receivers"] for point in yaml.safe_load(block)["contactPoints"])
    settings = receiver["settings"]
    assert (receiver["type"], receiver["disableResolveMessage"], settings["maxAlerts"]) == ("webhook", False, 0)
    key = settings["authorization_credentials"].replace("$INCIDENT_API_KEY", "inc_")
    headers = {"Authorization": f"{settings['authorization_scheme']} {key}"}
    assert headers == {"Authorization": "Bearer inc_"}
    url = httpx.URL(settings["url"].replace("…", "api.example"))
    response = api.request(settings["httpMethod"], url.path, json=GRAFANA, headers=headers)
    assert response.json() == {"created": 1, "resolved": 0, "unchanged": 0}
    (incident,) = api.get("/incidents").json()
    assert incident["description"].splitlines() == [
        "Мало самокатов",
        "Свободно 2 самоката",
        "runbook_url: https://wiki.example/scooters",
        "grafana_folder: Парк",
        "point: 12",
        "silence: https://grafana.example/alerting/silence/new",
        "https://grafana.example/alerting/grafana/4567/view",
    ]


# ---- one incident for each episode


def test_a_repeated_alert_changes_nothing_whatever_it_says_by_now(api: httpx.Client) -> None:
    assert send(api, alert()) == [1, 0, 0]
    before = api.get("/incidents").json()
    assert send(api, alert(annotations={"summary": "Другое"}, labels={}, generatorURL="http://x")) == [0, 0, 1]
    assert api.get("/incidents").json() == before


def test_of_a_hundred_repeated_alerts_the_database_is_asked_once(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    alerts = [alert(fingerprint=str(number)) for number in range(100)]
    for expected, calls in [
        ([100, 0, 0], ["BatchGetItem"] + ["UpdateItem", "PutItem"] * 100),
        ([0, 0, 100], ["BatchGetItem"] + ["UpdateItem", "PutItem"] * 100),
        ([0, 0, 100], ["BatchGetItem"]),
    ]:
        dynamodb_calls.clear()
        assert send(api, *alerts) == expected
        assert sorted(dynamodb_calls) == sorted(calls)
    assert send(api, *alerts, alert(fingerprint="one more")) == [1, 0, 100]


@pytest.mark.parametrize(
    ("before", "after", "counts"),
    [
        ("open", "resolved", [0, 1, 0]),
        ("in_progress", "resolved", [0, 1, 0]),
        ("resolved", "resolved", [0, 0, 1]),
        ("closed", "closed", [0, 0, 1]),
    ],
)
def test_a_resolved_alert_resolves_what_is_open_or_in_progress(
    api: httpx.Client, before: str, after: str, counts: list[int]
) -> None:
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
    "start",
    [
        "2026-11-24T02:17:50.912104Z",
        "2026-11-24t02:17:50.912104z",
        "2026-11-24T05:17:50.912104+03:00",
        "2026-11-23T20:47:50.912104-05:30",
    ],
)
def test_an_instant_is_the_same_however_it_is_written(api: httpx.Client, start: str) -> None:
    assert send(api, alert()) == [1, 0, 0]
    assert send(api, alert(startsAt=start)) == [0, 0, 1]
    assert send(api, alert("resolved", startsAt=start)) == [0, 1, 0]


@pytest.mark.parametrize(
    ("fraction", "nanoseconds"), [("", "000000000"), (".5", "500000000"), (".0000000059", "000000005")]
)
def test_an_instant_is_kept_to_the_nanosecond(fraction: str, nanoseconds: str) -> None:
    assert parse_instant(f"2026-11-24T02:17:50{fraction}Z") == f"2026-11-24T02:17:50.{nanoseconds}Z"


def test_the_ids_of_alerts_never_change() -> None:
    """With others, an alert that goes on firing would be recorded twice."""
    starts = "2026-11-24T02:17:50.912104000Z"
    assert derived_id("alert", "", FINGERPRINT, starts) == "bfd84871-7074-5d1b-9741-dbdf906ece1a"
    assert derived_id("alert", "grafana", FINGERPRINT, starts) == "bbcdb7e2-cd86-52bd-ba73-2e66aef0e16b"


def test_an_incident_at_its_limit_does_not_block_other_alerts(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(api, alert(), alert(fingerprint="2"))
    monkeypatch.setattr(store, "MAX_CHANGES", 0)
    assert send(api, alert("resolved"), alert(fingerprint="2"), alert(fingerprint="3")) == [1, 0, 2]


# ---- whose alerts


@pytest.mark.usefixtures("table")
def test_a_key_resolves_only_what_its_own_alerts_created() -> None:
    def post(caller: str, body: Json, source: str | None = None) -> object:
        authorizer = {"caller": caller, "source": source} if source else {"caller": caller}
        return call("alerts.receive_alerts", "POST /alerts", {"alerts": [body]}, authorizer)

    assert post("alertmanager", alert()) == (200, {"created": 1, "resolved": 0, "unchanged": 0})
    assert post("grafana", alert(), source="partner") == (200, {"created": 1, "resolved": 0, "unchanged": 0})
    assert post("another", alert("resolved")) == (200, {"created": 1, "resolved": 0, "unchanged": 0})
    assert post("alertmanager", alert("resolved")) == (200, {"created": 0, "resolved": 1, "unchanged": 0})
    found = set()
    for incident in store.newest(list(Status), 10):
        statuses = [entry.status.value for entry in store.get_with_history(incident.id)[1]]
        found.add((incident.source.value, *statuses, *{entry.by for entry in store.get_with_history(incident.id)[1]}))
    assert found == {
        ("monitoring", "open", "resolved", "alertmanager"),
        ("partner", "open", "grafana"),
        ("monitoring", "resolved", "another"),
    }


# ---- all or again


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fingerprint", None),
        ("fingerprint", ""),
        ("fingerprint", 7),
        ("fingerprint", "\ud800"),
        ("startsAt", None),
        ("startsAt", "yesterday"),
        ("startsAt", "2026-11-24T02:17:50"),
        ("startsAt", "2026-02-30T02:17:50Z"),
        ("startsAt", "0001-01-01T00:00:00+01:00"),
        ("startsAt", 1763950670),
        ("status", "suppressed"),
        ("status", None),
    ],
)
def test_unreadable_alerts_are_named_once_the_others_are_stored(
    api: httpx.Client, field: str, value: JsonValue
) -> None:
    good = [alert(fingerprint=str(number)) for number in range(3)]
    bad = alert() | {field: value}
    missing = {name: each for name, each in alert().items() if name != field}
    body = {"alerts": [good[0], bad, good[1], missing, 7, good[2]]}
    content = json.dumps(body)
    response = api.post("/alerts", content=content, headers={"Content-Type": "application/json"})
    assert bad_input(response) == [["body", "alerts", 1, field], ["body", "alerts", 3, field], ["body", "alerts", 4]]
    assert statuses(api) == ["open"] * 3


def test_an_invalid_time_is_answered_with_an_example(api: httpx.Client) -> None:
    (error,) = api.post("/alerts", json={"alerts": [alert(startsAt="yesterday")]}).json()["errors"]
    assert error["msg"] == "Input should be a time of RFC 3339, such as 2025-11-08T22:00:00.123456789+03:00"


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        ({}, ["body", "alerts"]),
        ({"alerts": None}, ["body", "alerts"]),
        ({"alerts": {}}, ["body", "alerts"]),
        ([], ["body"]),
        ("alerts", ["body"]),
    ],
)
def test_a_body_without_alerts_is_a_422(api: httpx.Client, body: JsonValue, bad: list[str]) -> None:
    assert bad_input(api.post("/alerts", json=body)) == [bad]


def test_the_errors_of_many_bad_alerts_fit_into_a_response(api: httpx.Client) -> None:
    """Lambda's limit is 6 MB; a 500 would be sent again and again."""
    response = api.post("/alerts", json={"alerts": [{}] * 36_000})
    assert (response.status_code, len(response.json()["errors"])) == (422, 100)
    assert response.json()["detail"].endswith("These are the first 100 of 108000.")


def test_no_alerts_are_nothing_to_do(api: httpx.Client) -> None:
    assert send(api) == [0, 0, 0]


def test_a_body_may_have_1_mib(api: httpx.Client) -> None:
    body = json.dumps({"alerts": [alert()]}).encode()
    headers = {"Content-Type": "application/json"}
    assert_problem(api.post("/alerts", content=body.ljust(1024 * 1024 + 1), headers=headers), 413)
    assert statuses(api) == []
    assert api.post("/alerts", content=body.ljust(1024 * 1024), headers=headers).status_code == 200
    assert statuses(api) == ["open"]


@pytest.mark.parametrize("truncated", [0, 1, 2, None, "many", -1])
def test_alerts_that_were_left_out_are_counted(
    api: httpx.Client, truncated: JsonValue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert api.post("/alerts", json={"alerts": [alert()], "truncatedAlerts": truncated}).status_code == 200
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line.get("AlertsTruncated") == (truncated if truncated in (1, 2) else None)


def test_what_becomes_of_many_alerts_is_counted_once_for_all(
    api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    alerts = [alert(fingerprint=str(number)) for number in range(5)]
    send(api, *alerts)
    send(
        api,
        *[each | {"status": "resolved", "endsAt": ENDED} for each in alerts[:3]],
        *alerts[3:],
        alert(fingerprint="6"),
    )
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["IncidentsCreated"], first["source"], first.get("StatusesSet")) == (5, "monitoring", None)
    assert (second["IncidentsCreated"], second["StatusesSet"], second["status"]) == (1, 3, "resolved")


def test_the_times_to_resolve_of_many_alerts_are_all_counted(
    api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """CloudWatch takes 100 values of a metric from a line."""
    alerts = [alert(fingerprint=str(number)) for number in range(201)]
    send(api, *alerts)
    capsys.readouterr()
    assert send(api, *(each | {"status": "resolved", "endsAt": ENDED} for each in alerts)) == [0, 201, 0]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(line["TimeToResolve"]) for line in lines if isinstance(line["TimeToResolve"], list)] == [100, 100]
    assert sum(isinstance(line["TimeToResolve"], float) for line in lines) == 1
    assert len({line["request_id"] for line in lines}) == 1


def test_alerts_are_not_received_unless_that_is_asked_for() -> None:
    assert not [route for route in TEMPLATE.routes() if route.path == "/alerts"]
    assert [route.key for route in TEMPLATE.routes(Alerts="enabled") if route.path == "/alerts"] == ["POST /alerts"]


# ---- the description


@pytest.mark.parametrize(
    ("annotations", "labels", "lines"),
    [
        ({"summary": "Down"}, {"alertname": "A"}, ["Down", "alertname: A"]),
        ({}, {"alertname": "A", "b": "2"}, ["A", "b: 2"]),
        ({"description": "Why"}, {"alertname": "A"}, ["A", "Why"]),
        ({"description": "Why"}, {"b": "2"}, ["Alert 9fcdbf62e3b8eed9", "Why", "b: 2"]),
        ({"summary": "Same", "description": "Same"}, {"alertname": "Same"}, ["Same"]),
        ({"summary": " \u200b "}, {"alertname": "A"}, ["A"]),
        ({"summary": "a\x00b\x1b[0m", "description": "\ud83d"}, {}, ["ab[0m", "?"]),
        (
            {"summary": None, "description": 7},
            {"a": True, "b": [1], "": "x"},
            ["Alert 9fcdbf62e3b8eed9", "7", "a: True"],
        ),
        ("x", ["y"], ["Alert 9fcdbf62e3b8eed9"]),
        (None, None, ["Alert 9fcdbf62e3b8eed9"]),
        ({}, {"alertname": "A", "__uid__": "1", "replica": "b", "prometheus": "c"}, ["A"]),
        (
            {"message": "The pod restarts", "runbook_url": "http://wiki/pod", "__panelId__": "4"},
            {"alertname": "PodCrashLooping", "pod": "a"},
            ["PodCrashLooping", "message: The pod restarts", "runbook_url: http://wiki/pod", "pod: a"],
        ),
    ],
)
def test_the_description_has_what_the_alert_says(annotations: JsonValue, labels: JsonValue, lines: list[str]) -> None:
    said = alert(annotations=annotations, labels=labels)
    assert Alert.model_validate(said).describe().split("\n") == lines


def test_grafanas_links_end_the_description() -> None:
    links: dict[str, JsonValue] = {
        f"{name}URL": f"http://grafana/{name}" for name in ("dashboard", "panel", "silence", "generator")
    }
    assert Alert.model_validate(alert() | links | {"labels": {}}).describe().split("\n")[1:] == [
        "dashboard: http://grafana/dashboard",
        "panel: http://grafana/panel",
        "silence: http://grafana/silence",
        "http://grafana/generator",
    ]


def test_a_description_that_is_too_long_is_cut(api: httpx.Client) -> None:
    for text, expected in [("я" * 9_998, "A\n" + "я" * 9_998), ("я" * 9_999, "A\n" + "я" * 9_997 + "…")]:
        send(api, alert(fingerprint=text, labels={"alertname": "A"}, annotations={"description": text}))
        description = api.get("/incidents?limit=1").json()[0]["description"]
        assert description == expected
        assert len(description) == MAX_DESCRIPTION


any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.usefixtures("table")
@given(labels=any_json, annotations=any_json, url=any_json, ends=any_json, fingerprint=st.text(min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_alert_is_stored_whatever_it_says(
    labels: JsonValue, annotations: JsonValue, url: JsonValue, ends: JsonValue, fingerprint: str
) -> None:
    said = alert(labels=labels, annotations=annotations, generatorURL=url, endsAt=ends, fingerprint=fingerprint)
    status, counts = call("alerts.receive_alerts", "POST /alerts", {"alerts": [said]})
    assert status == 200
    assert counts in [{"created": 1, "resolved": 0, "unchanged": 0}, {"created": 0, "resolved": 0, "unchanged": 1}]
