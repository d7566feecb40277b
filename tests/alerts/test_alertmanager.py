"""Real Prometheus and Alertmanager report to `make run`, and Alertmanager to functions whose DynamoDB fails temporarily."""

import itertools
import json
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import httpx
import pytest

from tests import anew
from tests.alerts import real_alertmanager
from tests.alerts.real_alertmanager import PROMETHEUS, alert, post, reports
from tests.conftest import LocalRun, http_client
from tests.faults import Fault, Proxy
from tests.processes import PATIENT
from tests.steps import until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

pytestmark = [real_alertmanager.needed, pytest.mark.slow]


class Api:
    """An API that Alertmanager reports to, with the log of its requests."""

    def __init__(self, client: httpx.Client, log: Path) -> None:
        self.client = client
        self.log = log

    @property
    def url(self) -> str:
        return str(self.client.base_url.join("/alerts"))

    def deliveries(self) -> int:
        """The number of Alertmanager's requests with the response 200."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(line["route"], line["status_code"]) for line in lines].count(("POST /alerts", 200))

    def wait_for_deliveries(self) -> None:
        """Wait until Alertmanager has sent all alerts once more, including those posted just now."""
        # The first delivery may have started earlier.
        enough = self.deliveries() + 2
        until(lambda: self.deliveries() >= enough, "two more deliveries")

    def incidents(self, group: str) -> list[dict[str, str]]:
        """The incidents of a group of alerts, oldest first."""
        incidents = self.client.get("/incidents?limit=100").json()
        return [each for each in reversed(incidents) if f"group: {group}\n" in each["description"]]

    def histories(self, group: str) -> list[list[str]]:
        """Each incident's statuses, oldest first."""
        paths = [f"/incidents/{each['id']}/history" for each in self.incidents(group)]
        return [[entry["status"] for entry in self.client.get(path).json()] for path in paths]

    def wait_for_histories(self, group: str, *histories: list[str]) -> None:
        until(lambda: self.histories(group) == list(histories), f"{histories}, but {self.histories(group)}")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """`make run PARAMETERS="Alerts=enabled"`."""
    run = LocalRun(tmp_path_factory.mktemp("local") / "data", "--parameters", "Alerts=enabled")
    yield Api(run.client, run.data / "functions.log")
    run.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def alertmanager(local: Api) -> Iterator[httpx.Client]:
    """An Alertmanager that reports to it."""
    with real_alertmanager.running(local.url) as alertmanager:
        # It fires until the end, so there are always deliveries to wait for.
        post(alertmanager, alert("repeated", "1", ago(60)))
        yield alertmanager


@pytest.fixture
def group() -> str:
    """The name of a new alert group."""
    return uuid.uuid4().hex


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_an_alert_fires_repeats_resolves_and_fires_again(local: Api, alertmanager: httpx.Client, group: str) -> None:
    first = ago(60)
    post(alertmanager, alert(group, "4567", first))
    local.wait_for_histories(group, ["open"])
    (incident,) = local.incidents(group)
    assert incident["description"].splitlines() == [
        "Самокат не отвечает",
        "alertname: ScooterOffline",
        f"group: {group}",
        "instance: 4567",
        "http://prometheus.example/graph",
    ]
    local.wait_for_deliveries()
    post(alertmanager, alert(group, "4567", first, summary="Самокат не отвечает уже час"))
    local.wait_for_deliveries()
    assert local.incidents(group) == [incident]

    post(alertmanager, alert(group, "4567", first, ends=ago(30)))
    local.wait_for_histories(group, ["open", "resolved"])
    post(alertmanager, alert(group, "4567", ago(10)))
    local.wait_for_histories(group, ["open", "resolved"], ["open"])
    local.wait_for_deliveries()
    assert local.histories(group) == [["open", "resolved"], ["open"]]


def test_alerts_sent_while_dynamodb_fails_are_stored_later(
    serve: Callable[["WSGIApplication"], str], database: str, group: str, tmp_path: Path
) -> None:
    with (
        Proxy(database).listening() as proxy,
        anew.gateway(PATIENT, DynamoDBEndpoint=proxy.url) as gateway,
        http_client(serve(gateway)) as client,
        real_alertmanager.running(f"{client.base_url}/alerts") as alertmanager,
    ):
        api, starts = Api(client, tmp_path), ago(60)
        post(alertmanager, alert(group, "before", starts))
        api.wait_for_histories(group, ["open"])
        proxy.script = itertools.repeat(Fault("failed", status=500, code="InternalServerError"))
        post(alertmanager, alert(group, "before", starts, ends=ago(30)), alert(group, "meanwhile", ago(20)))
        asked = proxy.asked
        until(lambda: proxy.asked >= asked + 3, "deliveries with the response 503")
        proxy.script = iter(())
        api.wait_for_histories(group, ["open", "resolved"], ["open"])


@pytest.mark.skipif(not shutil.which(PROMETHEUS), reason=f"{PROMETHEUS} is not installed")
def test_two_prometheus_report_one_incident_though_one_restarts(
    local: Api, alertmanager: httpx.Client, group: str, serve: Callable[["WSGIApplication"], str], tmp_path: Path
) -> None:
    offline = Event()

    def metrics(_: object, start_response: "StartResponse") -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4")])
        return [f"scooter_offline {offline.is_set():d}\n".encode()]

    exporter = serve(metrics)

    def replica(name: str) -> AbstractContextManager[httpx.Client]:
        return real_alertmanager.prometheus(tmp_path / name, name, exporter, group, alertmanager)

    with replica("a") as a:
        with replica("b") as b:
            offline.set()
            wait_for_reports(a, b)
            local.wait_for_histories(group, ["open"])
        with replica("b") as b:
            wait_for_reports(a, b)
            local.wait_for_deliveries()
            assert local.histories(group) == [["open"]]
            offline.clear()
            local.wait_for_histories(group, ["open", "resolved"])
            wait_for_reports(a, b)
            offline.set()
            local.wait_for_histories(group, ["open", "resolved"], ["open"])


def wait_for_reports(*replicas: httpx.Client) -> None:
    """Wait until each has sent the alert again."""
    before = [reports(each) for each in replicas]
    until(lambda: all(reports(each) > number for each, number in zip(replicas, before, strict=True)), "reports")
