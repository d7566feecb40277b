"""The reports of one alert, in the order of arrival, and the incidents that they leave."""

import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, cast
from unittest import mock

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts import episode
from incident import derived_id
from infra.local.gateway import Context
from infra.local.template import TABLE
from tests import anew
from tests.conftest import http_client
from tests.faults import PASSING, Fault, Proxy, cancelled
from tests.processes import PATIENT, ask, running
from tests.steps import follow

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

ZERO = "0001-01-01T00:00:00Z"
UNIX_ZERO = "1970-01-01T00:00:00Z"
FUTURE = "2199-01-01T00:00:00Z"
AHEAD, NOW = timedelta(hours=1), timedelta()
"""Relative to the time of sending."""

Time = float | timedelta | str | None
"""An hour of a past day, an offset from now, or any text."""


class Report(NamedTuple):
    """One report of the alert."""

    status: str
    starts: Time
    ends: Time = ZERO

    def alert(self, fingerprint: str) -> dict[str, object]:
        """The alert as JSON."""
        fields = {"status": self.status, "fingerprint": fingerprint, "labels": {"alertname": fingerprint}}
        return {**fields, "startsAt": written(self.starts), "endsAt": written(self.ends)}


def written(time: Time) -> str | None:
    if isinstance(time, timedelta):
        return (datetime.now(UTC) + time).isoformat()
    if isinstance(time, float | int):
        return (datetime(2025, 11, 24, tzinfo=UTC) + timedelta(hours=time)).isoformat()
    return time


def fires(starts: Time) -> Report:
    return Report("firing", starts)


def ends(starts: Time, ends: Time = ZERO) -> Report:
    return Report("resolved", starts, ends)


REPORTED: dict[str, tuple[list[Report], list[str]]] = {
    "firing": ([fires(1)], ["open"]),
    "firing and resolved": ([fires(1), ends(1, 2)], ["resolved"]),
    "an end equal to the start": ([fires(1), ends(1, 1), ends(2, 3)], ["resolved", "resolved"]),
    "every report repeated": ([fires(1), fires(1), ends(1, 2), ends(1, 2), fires(1)], ["resolved"]),
    "two episodes": ([fires(1), ends(1, 2), fires(3)], ["resolved", "open"]),
    "a second start at the first end": ([fires(1), ends(1, 2), fires(2)], ["resolved", "open"]),
    "no firing": ([ends(1, 2), ends(1, 2), fires(1)], ["resolved"]),
    "no second firing": ([fires(1), ends(1, 2), ends(2, 4)], ["resolved", "resolved"]),
    "no first end": ([fires(1), fires(3), ends(3, 4)], ["resolved", "resolved"]),
    "a late first end": ([fires(1), fires(3), ends(1, 3)], ["resolved", "open"]),
    "a late first end without a time": ([fires(1), fires(3), ends(1)], ["resolved", "open"]),
    "a late earlier episode": ([fires(3), ends(1, 2), ends(1, 2)], ["open", "resolved"]),
    "two ends, the first of which counts": ([ends(1, 2), ends(1, 4), fires(3)], ["resolved", "open"]),
    "two ends, the first without a time": ([fires(2), ends(1, None), ends(2, 4), fires(3)], ["resolved", "open"]),
    # Another node of a cluster sends an alert that has ended (alertmanager 2447).
    "a late firing": ([fires(1), ends(1, 3), fires(1), fires(2)], ["resolved"]),
    "a late firing after no end": ([fires(2), ends(1, None), fires(2), fires(1)], ["resolved"]),
    "firing after a wrong end": ([fires(1), ends(1, 2), fires(1)], ["resolved"]),
    # Two replicas of Prometheus name different starts.
    "an earlier start": ([fires(2), fires(1), ends(1, 3)], ["resolved"]),
    "a later start in the resolve": ([fires(1), ends(2, 3), fires(4)], ["resolved", "open"]),
    "a second replica's end": ([fires(1), ends(1, 3), ends(2, 4)], ["resolved"]),
    "a second replica's end, late": ([fires(2), ends(1, 3), fires(4), ends(1, 3)], ["resolved", "open"]),
    # Grafana sends the end as the start (grafana 106065), as does Alertmanager 0.25 after two posts before a flush.
    "the end as start and end": ([fires(1), ends(2, 2), ends(2, 2), fires(3)], ["resolved", "open"]),
    "the end as start and end, late": ([fires(1), ends(2, 2), fires(3), ends(2, 2)], ["resolved", "open"]),
    "the end as start and end, very late": (
        [fires(1), ends(2, 2), fires(3), ends(4, 4), fires(5), ends(2, 2)],
        ["resolved", "resolved", "open"],
    ),
    "the end as start and end, after a later one": (
        [fires(1), ends(2, 2), ends(4, 4), ends(2, 2)],
        ["resolved", "resolved"],
    ),
    "the end as start and end, after a firing": ([fires(1), fires(3), ends(2, 2)], ["resolved", "open", "resolved"]),
    "the end as start": ([fires(1), ends(2)], ["resolved"]),
    "the end as start, late": ([fires(1), ends(2), fires(3), ends(2)], ["resolved", "open"]),
    "the end as start, with an earlier end": ([fires(1), ends(2, 1)], ["resolved"]),
    "the end as start, with no end": ([fires(1), ends(2, None)], ["resolved"]),
    "the end as start, before the firing": ([ends(2, 2), fires(1)], ["resolved"]),
    "an earlier start and no end": ([fires(2), ends(1, None), ends(1, ""), ends(1, "soon")], ["resolved"]),
    "no end, then zero as start": ([ends(1, None), fires(ZERO)], ["resolved", "open"]),
    # Impossible times.
    "zero as start": ([fires(ZERO), fires(ZERO), ends(ZERO, 2), fires(ZERO)], ["resolved", "open"]),
    "Unix's zero as start": ([fires(UNIX_ZERO), ends(UNIX_ZERO), fires(UNIX_ZERO)], ["resolved", "open"]),
    "zero as start, and a past end": ([fires(ZERO), ends(1, 2)], ["resolved"]),
    "zero everywhere": ([fires(ZERO), ends(ZERO), ends(ZERO)], ["resolved"]),
    "zero in the resolve": ([fires(1), ends(1, 2), fires(3), ends(ZERO)], ["resolved", "resolved"]),
    "zero in the resolve, before the firing": ([ends(ZERO), ends(ZERO), fires(1)], ["resolved", "open"]),
    "zero while firing": ([fires(1), fires(ZERO), fires(AHEAD)], ["open"]),
    "a clock ahead": ([fires(AHEAD), fires(AHEAD), ends(AHEAD, AHEAD), fires(NOW)], ["resolved", "open"]),
    "a clock that stays ahead": ([fires(AHEAD), ends(AHEAD, AHEAD), fires(AHEAD)], ["resolved", "open"]),
    "a clock ahead that is corrected": ([fires(AHEAD), fires(NOW), ends(NOW, NOW)], ["resolved"]),
    "one start ahead": ([fires(FUTURE), fires(FUTURE), ends(FUTURE, NOW), fires(FUTURE)], ["resolved"]),
    "an end ahead": ([fires(1), ends(1, AHEAD), ends(1, AHEAD), fires(NOW)], ["resolved", "open"]),
    "an end ahead, without a firing": ([fires(1), ends(1, 2), ends(AHEAD, AHEAD)], ["resolved", "resolved"]),
}


@pytest.mark.parametrize(("reports", "expected"), REPORTED.values(), ids=REPORTED)
def test_each_episode_is_one_incident(api: httpx.Client, reports: list[Report], expected: list[str]) -> None:
    """`expected`: the incidents' statuses, oldest first."""
    for report in reports:
        deliver(api, "a", report)
    assert [incident["status"] for incident in reversed(api.get("/incidents").json())] == expected


def test_episodes_differ_even_if_a_clock_is_behind() -> None:
    earlier, later = "2025-11-24T01:00:00.000000000Z", "2025-11-24T02:00:00.000000000Z"
    zero = episode.Told(firing=True, starts="0001-01-01T00:00:00.000000000Z", ends=None, arrived=earlier)
    assert episode.after(episode.Episode(later, later), zero).latest.starts > later


def test_an_episode_without_an_end_is_resolved_first(api: httpx.Client) -> None:
    deliver(api, "a", fires(1))
    assert deliver(api, "a", fires(3)) == {"created": 1, "resolved": 0, "unchanged": 0}
    second, first = api.get("/incidents").json()
    assert first["status"] == "resolved"
    assert first["updated_at"] <= second["created_at"]


# ---- any sequence of reports, with faults and concurrent requests


@pytest.fixture(scope="module")
def proxy(database: str) -> Proxy:
    """A proxy in front of the database."""
    return Proxy(database)


@pytest.fixture(scope="module", params=["together", pytest.param("singly", marks=pytest.mark.slow)])
def client(
    proxy: Proxy, serve: Callable[["WSGIApplication"], str], request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """A client of functions behind the proxy that write alerts in transactions or one by one."""
    with (
        proxy.listening(),
        anew.gateway(PATIENT, DynamoDBEndpoint=proxy.url) as gateway,
        http_client(serve(gateway)) as client,
        mock.patch("alerts.receive_alerts.TOGETHER", 1 if request.param == "together" else 10_000),
    ):
        yield client


@pytest.fixture(scope="module")
def other(database: str) -> Iterator[ProcessPoolExecutor]:
    """A process with the functions that bypasses the proxy."""
    with running(1, database) as processes:
        yield processes


with_faults = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def deliver(client: httpx.Client, fingerprint: str, *told: Report) -> object:
    """Send reports and, like Alertmanager, retry after a 503; return the counts."""
    body = {"alerts": [each.alert(fingerprint) for each in told]}
    for _ in range(20):
        response = client.post("/alerts", json=body)
        if response.status_code == 200:
            return response.json()
        assert response.status_code == 503, response.text
    raise AssertionError("still a 503 after 20 attempts")


def active(client: httpx.Client, fingerprint: str) -> int:
    """The number of the alert's active incidents."""
    incidents = client.get("/incidents?limit=100&status=open,in_progress").json()
    return sum(incident["description"] == fingerprint for incident in incidents)


TIMES = st.integers(0, 9) | st.sampled_from([ZERO, AHEAD, NOW])
REPORTS = st.builds(fires, TIMES) | st.builds(ends, TIMES, TIMES | st.none())
QUICK = st.none() | st.sampled_from([fault for fault in PASSING if not fault.stalls])


@given(reports=st.lists(st.tuples(REPORTS, st.lists(QUICK | REPORTS, max_size=6)), max_size=6))
@with_faults
def test_an_alert_has_at_most_one_active_incident(
    client: httpx.Client,
    other: ProcessPoolExecutor,
    proxy: Proxy,
    reports: list[tuple[Report, list[Fault | Report | None]]],
) -> None:
    """Any request to DynamoDB may fail, or another process may handle a report just before it."""
    fingerprint = uuid.uuid4().hex
    others: list[int] = []

    def script(steps: list[Fault | Report | None]) -> Iterator[Fault | None]:
        for step in steps:
            if isinstance(step, Report):
                body = {"alerts": [step.alert(fingerprint)]}
                others.append(other.submit(ask, "POST", "/alerts", body).result()[0])
            yield step if isinstance(step, Fault) else None

    for report, steps in reports:
        proxy.script = script(steps)
        deliver(client, fingerprint, report)
        proxy.script = iter(())
        assert active(client, fingerprint) <= 1
    assert set(others) <= {200}
    deliver(client, fingerprint, ends(NOW, NOW))
    assert active(client, fingerprint) == 0, "an incident is active after a resolve"
    deliver(client, fingerprint, fires(NOW))
    assert active(client, fingerprint) == 1, "a new episode has no incident"


LIFE = st.sets(st.integers(0, 20), min_size=1, max_size=8).map(sorted)
"""The hours at which an alert starts, ends, starts again and so on."""


@given(life=LIFE, script=st.lists(QUICK, max_size=6), data=st.data())
@with_faults
def test_reports_in_any_order_leave_only_a_firing_alert_open(
    client: httpx.Client, proxy: Proxy, life: list[int], script: list[Fault | None], data: st.DataObject
) -> None:
    """A resolve may name an earlier or later start, or the end; each report comes at least once, up to three together."""
    fingerprint = uuid.uuid4().hex
    reports = [fires(start) for start in life[::2]]
    for start, end in zip(life[::2], life[1::2], strict=False):
        reports.append(ends(data.draw(st.sampled_from([start, start - 0.5, start + 0.5, end])), end))
    order = data.draw(st.permutations(reports + data.draw(st.lists(st.sampled_from(reports), max_size=4))))
    proxy.script = iter(script)
    while order:
        size = data.draw(st.integers(1, 3))
        deliver(client, fingerprint, *order[:size])
        order = order[size:]
    proxy.script = iter(())
    assert active(client, fingerprint) == len(life) % 2


@given(life=LIFE, data=st.data())
@with_faults
def test_a_late_repetition_changes_nothing(client: httpx.Client, life: list[int], data: st.DataObject) -> None:
    """Whichever end a resolve names, if any; some resolves are never sent."""
    fingerprint = uuid.uuid4().hex
    sent: list[Report] = []
    for start, end in itertools.zip_longest(life[::2], life[1::2]):
        resolves = [] if end is None else [ends(start, end), ends(end, end), ends(end, None), ends(end, start), None]
        for report in (fires(start), data.draw(st.sampled_from([*resolves, None]))):
            if report:
                deliver(client, fingerprint, report)
                sent.append(report)
                for repeated in data.draw(st.lists(st.sampled_from(sent), max_size=2)):
                    deliver(client, fingerprint, repeated)
                assert active(client, fingerprint) == (report.status == "firing")


# ---- many alerts at once


def alerts(number: int) -> tuple[dict[str, object], set[str]]:
    """A body with this many alerts, and their incidents' descriptions."""
    fingerprints = [uuid.uuid4().hex for _ in range(number)]
    return {"alerts": [fires(1).alert(each) for each in fingerprints]}, set(fingerprints)


def listed(client: httpx.Client) -> list[str]:
    """The descriptions of all incidents."""
    return [each["description"] for page in follow(client, "/incidents?limit=100") for each in page]


@pytest.fixture
def together(client: httpx.Client) -> Iterator[None]:  # noqa: ARG001 (which may patch it first)
    """Alerts are written in transactions."""
    with mock.patch("alerts.receive_alerts.TOGETHER", 1):
        yield


def test_a_failed_request_stops_writing_and_can_be_retried(client: httpx.Client, proxy: Proxy) -> None:
    body, fingerprints = alerts(400)
    # Four batches of reads and one write succeed; every later request fails.
    failed = Fault("failed", status=500, code="InternalServerError")
    proxy.script, proxy.asked = itertools.chain([None] * 5, itertools.repeat(failed)), 0
    assert client.post("/alerts", json=body).status_code == 503
    assert 5 < proxy.asked <= 5 + 4, "each of the four threads fails at most once"
    proxy.script = iter(())
    # On a slow machine, one request has no time for 400 single writes.
    while (status := client.post("/alerts", json=body).status_code) == 503:
        pass
    assert status == 200
    assert fingerprints <= set(listed(client))


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_temporarily_cancelled_transaction_is_a_503(client: httpx.Client, proxy: Proxy, reason: str) -> None:
    body, _ = alerts(20)
    proxy.script = iter([None, cancelled(reason, *["None"] * 39)])
    assert client.post("/alerts", json=body).status_code == 503
    assert client.post("/alerts", json=body).json()["created"] == 20


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("reasons", [["ConditionalCheckFailed", "ValidationError"], ["None", "None"]])
def test_an_invalid_transaction_is_a_500(client: httpx.Client, proxy: Proxy, reasons: list[str]) -> None:
    body, _ = alerts(20)
    proxy.script = iter([None, cancelled(*reasons, *["None"] * 38)])
    assert client.post("/alerts", json=body).status_code == 500


def test_a_concurrent_request_does_not_block_the_other_alerts(
    client: httpx.Client, proxy: Proxy, other: ProcessPoolExecutor
) -> None:
    body, fingerprints = alerts(120)
    part = {"alerts": cast("list[object]", body["alerts"])[::40]}

    def script() -> Iterator[None]:
        yield None
        yield None
        assert other.submit(ask, "POST", "/alerts", part).result()[0] == 200

    proxy.script = script()
    assert client.post("/alerts", json=body).json() == {"created": 117, "resolved": 0, "unchanged": 3}
    assert sum(each in fingerprints for each in listed(client)) == 120


@pytest.mark.parametrize(("missing", "status"), [(1, 200), (2, 503)], ids=["a full response", "throttling"])
def test_unprocessed_keys_are_requested_again(client: httpx.Client, proxy: Proxy, missing: int, status: int) -> None:
    sent = [fires(1).alert(uuid.uuid4().hex) for _ in range(2)]
    keys = [{"id": {"S": f"alert#{derived_id('alert', '', str(each['fingerprint']))}"}} for each in sent]
    answer = {"Responses": {TABLE: []}, "UnprocessedKeys": {TABLE: {"Keys": keys[:missing]}}}
    proxy.script = iter([Fault("partial", status=200, answer=json.dumps(answer).encode())])
    assert client.post("/alerts", json={"alerts": sent}).status_code == status
    assert client.post("/alerts", json={"alerts": sent}).status_code == 200


@pytest.mark.usefixtures("together")
def test_an_overload_is_a_503_and_retries_make_progress(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    body, _ = alerts(500)

    def remaining(context: Context) -> int:
        """Time for three writes in each request."""
        context.asked = getattr(context, "asked", 0) + 1  # type: ignore[attr-defined]  # only here
        return 25_000 if context.asked <= 3 else 0  # type: ignore[attr-defined]

    monkeypatch.setattr(Context, "get_remaining_time_in_millis", remaining)
    refused = [client.post("/alerts", json=body).status_code for _ in range(3)]
    assert (refused, client.post("/alerts", json=body).status_code) == ([503] * 3, 200)
