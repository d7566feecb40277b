"""What the functions log and count, as CloudWatch gets it."""

import json
import signal
from collections.abc import Callable

from pydantic import BaseModel, JsonValue

from tests.conftest import LocalRun

NEW = {"description": "a secret", "source": "partner"}
KEY = {"Idempotency-Key": "another-secret"}


def test_every_request_is_one_line_and_what_happened_is_counted(run_local: Callable[[], LocalRun]) -> None:
    local = run_local()
    api = local.client
    incident_id = api.post("/incidents", json=NEW, headers=KEY).json()["id"]
    path = f"/incidents/{incident_id}"
    api.post("/incidents", json=NEW, headers=KEY)
    api.post("/incidents", json=NEW | {"description": "other"}, headers=KEY)
    api.patch(path, json={"status": "closed"}, headers={"If-Match": '"1"'})
    api.patch(path, json={"status": "open"}, headers={"If-Match": '"1"'})
    api.get(path)
    api.get("/incidents")
    api.post("/incidents", json={"description": "a third secret", "source": "chat"})
    local.stop(signal.SIGTERM)

    log = (local.data / "functions.log").read_text()
    assert "secret" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    requests = [line for line in lines if "_aws" not in line]
    assert [(line["route"], line["status"], line.get("incident_id")) for line in requests] == [
        ("POST /incidents", 201, incident_id),
        ("POST /incidents", 201, incident_id),
        ("POST /incidents", 422, None),
        ("PATCH /incidents/{id}", 200, incident_id),
        ("PATCH /incidents/{id}", 412, None),
        ("GET /incidents/{id}", 200, incident_id),
        ("GET /incidents", 200, None),
        ("POST /incidents", 422, None),
    ]
    assert len({line["request_id"] for line in requests}) == len(requests)

    counted = [line for line in lines if "_aws" in line]
    assert [(metric_of(line), line.get("source"), line.get("status")) for line in counted] == [
        ("IncidentsCreated", "partner", None),
        ("Replays", None, None),
        ("Conflicts", None, None),
        ("StatusesSet", None, "closed"),
        ("Conflicts", None, None),
    ]


class Embedded(BaseModel):
    """A line in CloudWatch's embedded metric format, as far as it is looked at."""

    class Directive(BaseModel):
        Namespace: str
        Metrics: list[dict[str, str]]

    CloudWatchMetrics: list[Directive]


def metric_of(line: dict[str, JsonValue]) -> str:
    """The one metric of a line, which counts one."""
    (directive,) = Embedded.model_validate(line["_aws"]).CloudWatchMetrics
    (metric,) = directive.Metrics
    assert (directive.Namespace, metric["Unit"], line[metric["Name"]]) == ("IncidentApi", "Count", [1.0])
    return metric["Name"]
