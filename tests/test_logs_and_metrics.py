"""What the functions log and count, as CloudWatch gets it."""

import io
import json
import sys
import time
from datetime import datetime

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel, JsonValue
from werkzeug.test import Client

import dynamodb
import store
from api import Api
from infra.local.gateway import Gateway

NEW = {"description": "a secret", "source": "partner"}
KEY = {"Idempotency-Key": "another-secret"}


@pytest.mark.usefixtures("table")
def test_every_request_is_one_line_and_what_happened_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    api = Client(Gateway())
    created = api.post("/incidents", json=NEW, headers=KEY).get_json()
    incident_id = created["id"]
    path = f"/incidents/{incident_id}"
    api.post("/incidents", json=NEW, headers=KEY)
    api.post("/incidents", json=NEW | {"description": "other"}, headers=KEY)
    for _ in range(2):
        api.patch(path, json={"status": "closed"}, headers={"If-Match": '"1"'})
    api.patch(path, json={"status": "open"}, headers={"If-Match": '"1"'})
    api.get(path)
    api.get("/incidents")
    api.post("/incidents", json={"description": "a third secret", "source": "chat"})

    log = capsys.readouterr().out
    assert "secret" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert [(line["route"], line["status_code"], line.get("incident_id"), counted(line)) for line in lines] == [
        ("POST /incidents", 201, incident_id, {"IncidentsCreated", "source: partner"}),
        ("POST /incidents", 201, incident_id, {"Replays"}),
        ("POST /incidents", 422, None, {"Conflicts"}),
        (
            "PATCH /incidents/{id}",
            200,
            incident_id,
            {"StatusesSet", "status: closed", "TimeToResolve", "source: partner"},
        ),
        ("PATCH /incidents/{id}", 200, incident_id, set()),
        ("PATCH /incidents/{id}", 412, None, {"Conflicts"}),
        ("GET /incidents/{id}", 200, incident_id, set()),
        ("GET /incidents", 200, None, set()),
        ("POST /incidents", 422, None, set()),
    ]
    assert len({line["request_id"] for line in lines}) == len(lines)


@pytest.mark.usefixtures("dynamodb")  # without a table
def test_an_exception_is_logged_by_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/incidents/00000000-0000-4000-8000-000000000000"
    assert Client(Gateway()).get(path, environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 500
    line = json.loads(capsys.readouterr().out)
    assert line.pop("request_id")
    assert line == {"route": "GET /incidents/{id}", "status_code": 500, "exception": "ResourceNotFoundException"}


def test_a_failure_of_dynamodb_is_counted_when_it_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint="http://127.0.0.1:9"))
    before = time.time()
    response = Client(Gateway()).get("/incidents?status=open", environ_base={"REMOTE_ADDR": "127.0.0.1"})
    assert response.status_code == 503
    line = json.loads(capsys.readouterr().out)
    assert counted(line) == {"Unavailable"}
    assert before - 1 <= line["_aws"]["Timestamp"] / 1000 <= time.time()  # milliseconds since 1970


def test_a_request_is_logged_before_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda may stop the process as soon as it has the response."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    Client(Gateway()).get("/incidents?limit=0", environ_base={"REMOTE_ADDR": "127.0.0.1"})
    assert json.loads(written.getvalue())["status_code"] == 422


def test_every_metric_of_a_request_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    app = Api()

    @app.get("/")
    def count_twice() -> None:
        app.count("Replays", 3)
        app.count("StatusesSet", status="closed")

    http = {"method": "GET", "path": "/"}
    context = {"http": http, "requestId": "1", "stage": "$default"}
    for _ in range(2):  # nothing is left of the request before
        app.resolve({"routeKey": "GET /", "rawPath": "/", "requestContext": context, "headers": {}}, LambdaContext())
        line = json.loads(capsys.readouterr().out)
        embedded = Embedded.model_validate(line["_aws"])
        assert [(each.Metrics[0]["Name"], each.Dimensions) for each in embedded.CloudWatchMetrics] == [
            ("Replays", [[]]),
            ("StatusesSet", [["status"]]),
        ]
        assert (line["Replays"], line["StatusesSet"], line["status"]) == (3, 1, "closed")


@pytest.mark.usefixtures("table")
def test_the_time_to_resolve_is_counted_once_the_work_ends(capsys: pytest.CaptureFixture[str]) -> None:
    api = Client(Gateway())
    created = api.post("/incidents", json=NEW).get_json()
    changes = [
        {"comment": "Called"},
        {"status": "in_progress"},
        {"status": "resolved", "comment": "Fixed"},  # here
        {"status": "resolved", "comment": "Fixed"},
        {"status": "closed"},
        {"status": "open"},
        {"status": "closed"},  # and here, as it has been open again
    ]
    changed = [api.patch(f"/incidents/{created['id']}", json=change).get_json() for change in changes]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]
    assert ["TimeToResolve" in line for line in lines] == [False, False, True, False, False, False, True]
    assert "StatusesSet" not in lines[0]
    took = datetime.fromisoformat(changed[2]["updated_at"]) - datetime.fromisoformat(created["created_at"])
    assert lines[2]["TimeToResolve"] == took.total_seconds()
    (unit,) = [
        each.Metrics[0]["Unit"]
        for each in Embedded.model_validate(lines[2]["_aws"]).CloudWatchMetrics
        if each.Metrics[0]["Name"] == "TimeToResolve"
    ]
    assert unit == "Seconds"


class Embedded(BaseModel):
    """CloudWatch's embedded metric format, as far as it is looked at."""

    class Directive(BaseModel):
        Namespace: str
        Dimensions: list[list[str]]
        Metrics: list[dict[str, str]]

    Timestamp: int
    CloudWatchMetrics: list[Directive]


def counted(line: dict[str, JsonValue]) -> set[str]:
    """The metrics that a line counts, and their dimensions."""
    if "_aws" not in line:
        return set()
    found = set()
    for directive in Embedded.model_validate(line["_aws"]).CloudWatchMetrics:
        (metric,) = directive.Metrics
        (dimensions,) = directive.Dimensions
        assert directive.Namespace == "IncidentApi/local"
        assert isinstance(line[metric["Name"]], int | float)
        found |= {metric["Name"], *(f"{name}: {line[name]}" for name in dimensions)}
    return found
