"""POST /alerts: what Alertmanager and Grafana send becomes incidents."""

import json

import httpx

from tests.conftest import ROOT

RECORDED = ROOT / "tests" / "alertmanager"
"""What Alertmanager 0.25 sent to a webhook; a list holds the deliveries in their order."""


def deliveries(name):
    body = json.loads((RECORDED / f"{name}.json").read_text())
    return body if isinstance(body, list) else [body]


def test_x(api: httpx.Client) -> None:
    for n in (
        "firing",
        "firing",
        "resolved",
        "resolved",
        "firing",
        "firing-two-in-group",
        "resolved-mixed-group",
        "two-replicas",
        "two-episodes",
        "two-replicas",
        "truncated",
    ):
        for b in deliveries(n):
            r = api.post("/alerts", json=b)
            print(n, r.status_code, r.json())
    for i in api.get("/incidents").json():
        print(i)
    assert 0
