"""The real Alertmanager reports to `make run`, and to functions whose DynamoDB fails for a while.

tests/e2e/test_aws.py has it report to the emulated AWS.
"""

import itertools
import json
import signal
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests import anew
from tests.alerts import real_alertmanager
from tests.alerts.real_alertmanager import Alertmanager, alert, until
from tests.conftest import LocalRun, http_client
from tests.faults import Fault, Proxy
from tests.processes import PATIENT

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

pytestmark = [real_alertmanager.needed, pytest.mark.slow]


class Api:
    """An API that Alertmanager reports to, and what it has been sent, by its log."""

    def __init__(self, client: httpx.Client, log: Path) -> None:
        self.client = client
        self.log = log

    @property
    def url(self) -> str:
        return str(self.client.base_url.join("/alerts"))

    def deliveries(self, status: int = 200) -> int:
        """How many requests of Alertmanager's have had a response with this status."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(line["route"], line["status_code"]) for line in lines].count(("POST /alerts", status))

    def wait_for_deliveries(self, status: int = 200) -> None:
        """Wait until Alertmanager has sent everything again, with what has been reported to it until now."""
        # The first of these may have been under way.
        enough = self.deliveries(status) + 2
        until(lambda: self.deliveries(status) >= enough, f"deliveries that are answered with {status}")

    def incidents(self, group: str) -> list[dict[str, str]]:
        """The incidents of a group of alerts, oldest first."""
        incidents = self.client.get("/incidents?limit=100").json()
        return [each for each in reversed(incidents) if f"group: {group}\n" in each["description"]]

    def histories(self, group: str) -> list[list[str]]:
        """The statuses that each of them has had."""
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
def alertmanager(local: Api) -> Iterator[Alertmanager]:
    """An Alertmanager that reports to it."""
    with real_alertmanager.running(local.url) as alertmanager:
        yield alertmanager


@pytest.fixture
def group() -> str:
    """The name of a new group of alerts."""
    return uuid.uuid4().hex


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_an_alert_fires_is_repeated_resolves_and_fires_again(
    local: Api, alertmanager: Alertmanager, group: str
) -> None:
    first = ago(60)
    alertmanager.post(alert(group, "4567", first))
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
    alertmanager.post(alert(group, "4567", first, summary="Самокат не отвечает уже час"))
    local.wait_for_deliveries()
    assert local.incidents(group) == [incident]

    alertmanager.post(alert(group, "4567", first, ends=ago(30)))
    local.wait_for_histories(group, ["open", "resolved"])
    alertmanager.post(alert(group, "4567", ago(10)))
    local.wait_for_histories(group, ["open", "resolved"], ["open"])
    local.wait_for_deliveries()
    assert local.histories(group) == [["open", "resolved"], ["open"]]


def test_two_replicas_report_one_incident(local: Api, alertmanager: Alertmanager, group: str) -> None:
    earlier, later = ago(63), ago(60)
    alertmanager.post(alert(group, "1", later))
    local.wait_for_histories(group, ["open"])
    # From here on Alertmanager names the earlier start.
    alertmanager.post(alert(group, "1", earlier))
    local.wait_for_deliveries()
    assert local.histories(group) == [["open"]]
    alertmanager.post(alert(group, "1", earlier, ends=ago(1)), alert(group, "1", later, ends=ago(1)))
    local.wait_for_histories(group, ["open", "resolved"])
    alertmanager.post(alert(group, "1", ago(0)))
    local.wait_for_histories(group, ["open", "resolved"], ["open"])


def test_an_end_sent_as_the_start_resolves_the_incident(local: Api, alertmanager: Alertmanager, group: str) -> None:
    """What Alertmanager sends of an alert that is posted twice before a flush: the second time, without a start."""
    alertmanager.post(alert(group, "1", ago(60)))
    local.wait_for_histories(group, ["open"])
    local.wait_for_deliveries()
    for ends in (ago(2), ago(1)):
        ended = alert(group, "1", ago(60), ends=ends)
        del ended["startsAt"]
        alertmanager.post(ended)
    local.wait_for_histories(group, ["open", "resolved"])
    local.wait_for_deliveries()
    assert local.histories(group) == [["open", "resolved"]]


def test_alerts_sent_while_dynamodb_fails_are_stored_later(
    serve: Callable[["WSGIApplication"], str], database: str, group: str, tmp_path: Path
) -> None:
    proxy = Proxy(database)
    with (
        proxy.listening() as failing,
        anew.gateway(PATIENT, DynamoDBEndpoint=failing) as gateway,
        http_client(serve(gateway)) as client,
        real_alertmanager.running(f"{client.base_url}/alerts") as alertmanager,
    ):
        api, starts = Api(client, tmp_path), ago(60)
        alertmanager.post(alert(group, "before", starts))
        api.wait_for_histories(group, ["open"])
        proxy.script = itertools.repeat(Fault("failed", status=500, code="InternalServerError"))
        alertmanager.post(alert(group, "before", starts, ends=ago(30)), alert(group, "meanwhile", ago(20)))
        asked = proxy.asked
        until(lambda: proxy.asked >= asked + 3, "deliveries that are answered with 503")
        proxy.script = iter(())
        api.wait_for_histories(group, ["open", "resolved"], ["open"])
