"""What the functions log and count, as CloudWatch receives it."""

import io
import json
import sys
import time
from datetime import datetime
from typing import Any

import pytest
from werkzeug.test import Client

import dynamodb
import store
from infra.local.gateway import Gateway

NEW = {"description": "a secret", "source": "partner"}
KEY = {"Idempotency-Key": "another-secret"}


def metrics(line: dict[str, Any]) -> list[str]:
    """What a log line counts, such as `StatusesSet Count status=closed`."""
    directives = line["_aws"]["CloudWatchMetrics"] if "_aws" in line else []
    assert {each["Namespace"] for each in directives} <= {"IncidentApi/local"}
    assert all(isinstance(line[metric["Name"]], int | float) for each in directives for metric in each["Metrics"])
    return [
        " ".join([metric["Name"], metric["Unit"], *(f"{name}={line[name]}" for name in dimensions)])
        for each in directives
        for metric, dimensions in zip(each["Metrics"], each["Dimensions"], strict=True)
    ]


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
    assert [(line["route"], line["status_code"], line.get("incident_id"), metrics(line)) for line in lines] == [
        ("POST /incidents", 201, incident_id, ["IncidentsCreated Count source=partner"]),
        ("POST /incidents", 201, incident_id, ["Replays Count"]),
        ("POST /incidents", 422, None, ["Conflicts Count"]),
        (
            "PATCH /incidents/{id}",
            200,
            incident_id,
            ["StatusesSet Count status=closed", "TimeToResolve Seconds source=partner"],
        ),
        ("PATCH /incidents/{id}", 200, incident_id, []),
        ("PATCH /incidents/{id}", 412, None, ["Conflicts Count"]),
        ("GET /incidents/{id}", 200, incident_id, []),
        ("GET /incidents", 200, None, []),
        ("POST /incidents", 422, None, []),
    ]
    assert len({line["request_id"] for line in lines}) == len(lines)


@pytest.mark.usefixtures("dynamodb")  # without a table
def test_an_exception_is_logged_by_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/incidents/00000000-0000-4000-8000-000000000000"
    assert Client(Gateway()).get(path).status_code == 500
    line = json.loads(capsys.readouterr().out)
    assert line.pop("request_id")
    assert line == {"route": "GET /incidents/{id}", "status_code": 500, "exception": "ResourceNotFoundException"}


def test_a_failure_of_dynamodb_is_counted_when_it_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint="http://127.0.0.1:9"))
    before = time.time()
    assert Client(Gateway()).get("/incidents?status=open").status_code == 503
    line = json.loads(capsys.readouterr().out)
    assert metrics(line) == ["Unavailable Count"]
    assert before - 1 <= line["_aws"]["Timestamp"] / 1000 <= time.time()  # milliseconds since 1970


def test_a_request_is_logged_before_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda may stop the process as soon as it has the response."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    Client(Gateway()).get("/incidents?limit=0")
    assert json.loads(written.getvalue())["status_code"] == 422


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
    assert metrics(lines[0]) == []
    took = datetime.fromisoformat(changed[2]["updated_at"]) - datetime.fromisoformat(created["created_at"])
    assert lines[2]["TimeToResolve"] == took.total_seconds()
