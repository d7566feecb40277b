"""What the functions log and count, as CloudWatch receives it."""

import io
import json
import sys
import time
from datetime import datetime

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from werkzeug.test import Client

import dynamodb
import store
from api import Api
from infra.local.gateway import Gateway

NEW = {"description": "a secret", "source": "partner"}
KEY = {"Idempotency-Key": "another-secret"}
LOCALHOST = {"REMOTE_ADDR": "127.0.0.1"}


def units(line: dict[str, object]) -> dict[str, object]:
    """The unit of each metric in a log line. Its dimensions are fields of the line."""
    embedded = line.get("_aws", {"CloudWatchMetrics": []})
    assert isinstance(embedded, dict)
    found = {}
    for directive in embedded["CloudWatchMetrics"]:
        (metric,), (dimensions,) = directive["Metrics"], directive["Dimensions"]
        assert directive["Namespace"] == "IncidentApi/local"
        assert metric["Name"] in line
        assert set(dimensions) <= set(line)
        found[metric["Name"]] = metric["Unit"]
    return found


@pytest.mark.usefixtures("table")
def test_a_request_is_one_line_with_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    api = Client(Gateway())
    incident_id = api.post("/incidents", json=NEW, headers=KEY).get_json()["id"]
    path = f"/incidents/{incident_id}"
    api.post("/incidents", json=NEW, headers=KEY)
    api.post("/incidents", json=NEW | {"description": "other"}, headers=KEY)
    for status in ("closed", "closed", "open"):
        api.patch(path, json={"status": status}, headers={"If-Match": '"1"'})
    api.get(path)
    api.get("/incidents")
    api.post("/incidents", json={"description": "a third secret", "source": "chat"})

    log = capsys.readouterr().out
    assert "secret" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert [(line["route"], line["status_code"], line.get("incident_id"), [*units(line)]) for line in lines] == [
        ("POST /incidents", 201, incident_id, ["IncidentsCreated"]),
        ("POST /incidents", 201, incident_id, ["Replays"]),
        ("POST /incidents", 422, None, ["Conflicts"]),
        ("PATCH /incidents/{id}", 200, incident_id, ["StatusesSet", "TimeToResolve"]),
        ("PATCH /incidents/{id}", 200, incident_id, []),
        ("PATCH /incidents/{id}", 412, None, ["Conflicts"]),
        ("GET /incidents/{id}", 200, incident_id, []),
        ("GET /incidents", 200, None, []),
        ("POST /incidents", 422, None, []),
    ]
    assert (lines[0]["source"], lines[3]["status"], lines[3]["source"]) == ("partner", "closed", "partner")
    assert len({line["request_id"] for line in lines}) == len(lines)


@pytest.mark.usefixtures("dynamodb")  # without a table
def test_an_exception_is_logged_by_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/incidents/00000000-0000-4000-8000-000000000000"
    assert Client(Gateway()).get(path, environ_base=LOCALHOST).status_code == 500
    line = json.loads(capsys.readouterr().out)
    assert line.pop("request_id")
    assert line == {"route": "GET /incidents/{id}", "status_code": 500, "exception": "ResourceNotFoundException"}


def test_a_failure_of_dynamodb_is_counted_when_it_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint="http://127.0.0.1:9"))
    before = time.time()
    assert Client(Gateway()).get("/incidents?status=open", environ_base=LOCALHOST).status_code == 503
    line = json.loads(capsys.readouterr().out)
    assert units(line) == {"Unavailable": "Count"}
    assert before - 1 <= line["_aws"]["Timestamp"] / 1000 <= time.time()  # milliseconds since 1970


def test_a_request_is_logged_before_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda may stop the process as soon as it has the response."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    Client(Gateway()).get("/incidents?limit=0", environ_base=LOCALHOST)
    assert json.loads(written.getvalue())["status_code"] == 422


def test_a_request_counts_its_own_metrics_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    app = Api()

    @app.get("/")
    def count_twice() -> None:
        app.count("Replays", 3)
        app.count("StatusesSet", status="closed")

    context = {"http": {"method": "GET", "path": "/"}, "requestId": "1", "stage": "$default"}
    for _ in range(2):
        app.resolve({"routeKey": "GET /", "rawPath": "/", "requestContext": context, "headers": {}}, LambdaContext())
        line = json.loads(capsys.readouterr().out)
        assert units(line) == {"Replays": "Count", "StatusesSet": "Count"}
        assert [each["Dimensions"] for each in line["_aws"]["CloudWatchMetrics"]] == [[[]], [["status"]]]
        assert (line["Replays"], line["StatusesSet"], line["status"]) == (3, 1, "closed")


@pytest.mark.usefixtures("table")
def test_the_time_to_resolve_is_counted_when_the_work_ends(capsys: pytest.CaptureFixture[str]) -> None:
    api = Client(Gateway())
    created = api.post("/incidents", json=NEW).get_json()
    changes = [
        {"comment": "Called"},
        {"status": "in_progress"},
        {"status": "resolved", "comment": "Fixed"},  # counted
        {"status": "resolved", "comment": "Fixed"},
        {"status": "closed"},
        {"status": "open"},
        {"status": "closed"},  # counted
    ]
    changed = [api.patch(f"/incidents/{created['id']}", json=change).get_json() for change in changes]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]
    assert [number for number, line in enumerate(lines) if "TimeToResolve" in line] == [2, 6]
    assert units(lines[0]) == {}
    assert units(lines[2]) == {"StatusesSet": "Count", "TimeToResolve": "Seconds"}
    took = datetime.fromisoformat(changed[2]["updated_at"]) - datetime.fromisoformat(created["created_at"])
    assert lines[2]["TimeToResolve"] == took.total_seconds()
