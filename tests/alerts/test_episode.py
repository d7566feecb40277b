"""One alert's life: what its senders tell, in the order in which it arrives, and the incidents that it leaves."""

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
AHEAD, NOW = timedelta(hours=1), timedelta()
"""Relative to the moment when a report is sent."""

Time = float | timedelta | str | None
"""An hour of a day that has passed, a moment, or a time as it is written."""


class Told(NamedTuple):
    """One report of the alert."""

    status: str
    starts: Time
    ends: Time = ZERO

    def alert(self, fingerprint: str) -> dict[str, object]:
        """As it is sent."""
        fields = {"status": self.status, "fingerprint": fingerprint, "labels": {"alertname": fingerprint}}
        return {**fields, "startsAt": written(self.starts), "endsAt": written(self.ends)}


def written(time: Time) -> str | None:
    if isinstance(time, timedelta):
        return (datetime.now(UTC) + time).isoformat()
    if isinstance(time, float | int):
        return (datetime(2025, 11, 24, tzinfo=UTC) + timedelta(hours=time)).isoformat()
    return time


def fires(starts: Time) -> Told:
    return Told("firing", starts)


def ends(starts: Time, ends: Time = ZERO) -> Told:
    return Told("resolved", starts, ends)


LIVES: dict[str, tuple[list[Told], list[str]]] = {
    "fires": ([fires(1)], ["open"]),
    "fires and ends": ([fires(1), ends(1, 2)], ["resolved"]),
    "ends when it fires": ([fires(1), ends(1, 1), ends(2, 3)], ["resolved", "resolved"]),
    "everything is repeated": ([fires(1), fires(1), ends(1, 2), ends(1, 2), fires(1)], ["resolved"]),
    "two episodes": ([fires(1), ends(1, 2), fires(3)], ["resolved", "open"]),
    "the second begins when the first ends": ([fires(1), ends(1, 2), fires(2)], ["resolved", "open"]),
    "its firing was never delivered": ([ends(1, 2), ends(1, 2), fires(1)], ["resolved"]),
    "the firing of the second was never delivered": ([fires(1), ends(1, 2), ends(2, 4)], ["resolved", "resolved"]),
    "the end of the first was never told": ([fires(1), fires(3), ends(3, 4)], ["resolved", "resolved"]),
    "the end of the first is late": ([fires(1), fires(3), ends(1, 3)], ["resolved", "open"]),
    "the end of the first is late, and no time": ([fires(1), fires(3), ends(1)], ["resolved", "open"]),
    "an earlier episode is told of late": ([fires(3), ends(1, 2), ends(1, 2)], ["open", "resolved"]),
    "the end that is told first stands": ([ends(1, 2), ends(1, 4), fires(3)], ["resolved", "open"]),
    "even if it is no time": ([fires(2), ends(1, None), ends(2, 4), fires(3)], ["resolved", "open"]),
    # Another node of a cluster sends what has ended (alertmanager 2447).
    "a late firing": ([fires(1), ends(1, 3), fires(1), fires(2)], ["resolved"]),
    "a late firing, and no end": ([fires(2), ends(1, None), fires(2), fires(1)], ["resolved"]),
    "fires on after a wrong end": ([fires(1), ends(1, 2), fires(1)], ["resolved"]),
    # Two replicas of Prometheus.
    "an earlier start": ([fires(2), fires(1), ends(1, 3)], ["resolved"]),
    "a resolve names a later start": ([fires(1), ends(2, 3), fires(4)], ["resolved", "open"]),
    "another replica's end": ([fires(1), ends(1, 3), ends(2, 4)], ["resolved"]),
    "another replica's end is repeated late": ([fires(2), ends(1, 3), fires(4), ends(1, 3)], ["resolved", "open"]),
    # Grafana names the end as the start (grafana 106065); so does Alertmanager 0.25 if it is posted to twice before a flush.
    "the end as start and end": ([fires(1), ends(2, 2), ends(2, 2), fires(3)], ["resolved", "open"]),
    "the end as start and end, late": ([fires(1), ends(2, 2), fires(3), ends(2, 2)], ["resolved", "open"]),
    "the end as start and end, very late": (
        [fires(1), ends(2, 2), fires(3), ends(4, 4), fires(5), ends(2, 2)],
        ["resolved", "resolved", "open"],
    ),
    "the end as start and end, after another's": (
        [fires(1), ends(2, 2), ends(4, 4), ends(2, 2)],
        ["resolved", "resolved"],
    ),
    "the end as start and end, after the next": ([fires(1), fires(3), ends(2, 2)], ["resolved", "open", "resolved"]),
    "the end as start": ([fires(1), ends(2)], ["resolved"]),
    "the end as start, late": ([fires(1), ends(2), fires(3), ends(2)], ["resolved", "open"]),
    "the end as start, and an end before it": ([fires(1), ends(2, 1)], ["resolved"]),
    "the end as start, and no end": ([fires(1), ends(2, None)], ["resolved"]),
    "the end as start, before its firing": ([ends(2, 2), fires(1)], ["resolved"]),
    "an earlier start, and no end": ([fires(2), ends(1, None), ends(1, ""), ends(1, "soon")], ["resolved"]),
    "no end, then the zero time as start": ([ends(1, None), fires(ZERO)], ["resolved", "open"]),
    # Times that cannot be true.
    "the zero time as start": ([fires(ZERO), fires(ZERO), ends(ZERO, 2), fires(ZERO)], ["resolved", "open"]),
    "Unix's zero time as start": ([fires(UNIX_ZERO), ends(UNIX_ZERO), fires(UNIX_ZERO)], ["resolved", "open"]),
    "the zero time as start, and an end in the past": ([fires(ZERO), ends(1, 2)], ["resolved"]),
    "the zero time everywhere": ([fires(ZERO), ends(ZERO), ends(ZERO)], ["resolved"]),
    "an end of the zero time": ([fires(1), ends(1, 2), fires(3), ends(ZERO)], ["resolved", "resolved"]),
    "only an end of the zero time": ([ends(ZERO), ends(ZERO), fires(1)], ["resolved", "open"]),
    "the zero time while it fires": ([fires(1), fires(ZERO), fires(AHEAD)], ["open"]),
    "a clock that is ahead": ([fires(AHEAD), fires(AHEAD), ends(AHEAD, AHEAD), fires(NOW)], ["resolved", "open"]),
    "a clock that stays ahead": ([fires(AHEAD), ends(AHEAD, AHEAD), fires(AHEAD)], ["resolved", "open"]),
    "a clock that was ahead and is set right": ([fires(AHEAD), fires(NOW), ends(NOW, NOW)], ["resolved"]),
    "an end that is ahead": ([fires(1), ends(1, AHEAD), ends(1, AHEAD), fires(NOW)], ["resolved", "open"]),
    "an end that is ahead was never reported": ([fires(1), ends(1, 2), ends(AHEAD, AHEAD)], ["resolved", "resolved"]),
}


@pytest.mark.parametrize(("told", "expected"), LIVES.values(), ids=LIVES)
def test_a_life_leaves_its_incidents(api: httpx.Client, told: list[Told], expected: list[str]) -> None:
    """One incident for each episode, oldest first."""
    for each in told:
        deliver(api, "a", each)
    assert [incident["status"] for incident in reversed(api.get("/incidents").json())] == expected


def test_a_start_ahead_names_one_episode(api: httpx.Client) -> None:
    ahead = written(AHEAD)
    for told in (fires(ahead), fires(ahead), ends(ahead, NOW), fires(ahead)):
        deliver(api, "a", told)
    assert [incident["status"] for incident in api.get("/incidents").json()] == ["resolved"]


def test_a_clock_behind_another_functions_makes_another_episode() -> None:
    earlier, later = "2025-11-24T01:00:00.000000000Z", "2025-11-24T02:00:00.000000000Z"
    zero = episode.Told(firing=True, starts="0001-01-01T00:00:00.000000000Z", ends=None, arrived=earlier)
    assert episode.after(episode.Episode(later, later), zero).latest.starts > later


def test_an_episode_whose_end_was_never_told_is_resolved_first(api: httpx.Client, caller: str | None) -> None:
    for told in (fires(1), fires(3)):
        counts = deliver(api, "a", told)
    assert counts == {"created": 1, "resolved": 0, "unchanged": 0}
    second, first = api.get("/incidents").json()
    resolved = api.get(f"/incidents/{first['id']}/history").json()[-1]
    assert (resolved["status"], resolved["by"]) == ("resolved", caller)
    assert resolved["at"] <= second["created_at"]


def test_what_a_person_closed_stays_closed(api: httpx.Client) -> None:
    deliver(api, "a", fires(1))
    (incident,) = api.get("/incidents").json()
    api.patch(f"/incidents/{incident['id']}", json={"status": "closed"})
    for told in (fires(1), ends(2, 2), ends(1, 2), fires(3)):
        deliver(api, "a", told)
    assert [each["status"] for each in api.get("/incidents").json()] == ["open", "closed"]


# ---- any sequence of reports, through faults, and with other requests in between


@pytest.fixture(scope="module")
def proxy(database: str) -> Proxy:
    """A proxy before the database."""
    return Proxy(database)


@pytest.fixture(scope="module", params=["together", pytest.param("singly", marks=pytest.mark.slow)])
def client(
    proxy: Proxy, serve: Callable[["WSGIApplication"], str], request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """A client of functions behind the proxy, which write all alerts in transactions, or each of them singly."""
    with (
        proxy.listening() as address,
        anew.gateway(PATIENT, DynamoDBEndpoint=address) as gateway,
        http_client(serve(gateway)) as client,
        mock.patch("alerts.receive_alerts.TOGETHER", 1 if request.param == "together" else 10_000),
    ):
        yield client


@pytest.fixture(scope="module")
def other(database: str) -> Iterator[ProcessPoolExecutor]:
    """Another process with the functions, beside the proxy."""
    with running(1, database) as processes:
        yield processes


with_faults = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def deliver(client: httpx.Client, fingerprint: str, *told: Told) -> object:
    """Send reports as Alertmanager does, all of them again after a 503; return what became of them."""
    body = {"alerts": [each.alert(fingerprint) for each in told]}
    for _ in range(20):
        response = client.post("/alerts", json=body)
        if response.status_code == 200:
            return response.json()
        assert response.status_code == 503, response.text
    raise AssertionError("the faults have no end")


def active(client: httpx.Client, fingerprint: str) -> int:
    """How many incidents of the alert are active."""
    incidents = client.get("/incidents?limit=100&status=open,in_progress").json()
    return sum(incident["description"] == fingerprint for incident in incidents)


TIMES = st.integers(0, 9) | st.sampled_from([ZERO, AHEAD, NOW])
REPORTS = st.builds(fires, TIMES) | st.builds(ends, TIMES, TIMES | st.none())
QUICK = st.none() | st.sampled_from([fault for fault in PASSING if not fault.stalls])


@given(told=st.lists(st.tuples(REPORTS, st.lists(QUICK | REPORTS, max_size=6)), max_size=6))
@with_faults
def test_an_alert_has_at_most_one_active_incident(
    client: httpx.Client, other: ProcessPoolExecutor, proxy: Proxy, told: list[tuple[Told, list[Fault | Told | None]]]
) -> None:
    """A request for DynamoDB may fail, and another function handle a report just before it."""
    fingerprint = uuid.uuid4().hex
    others: list[int] = []

    def script(steps: list[Fault | Told | None]) -> Iterator[Fault | None]:
        for step in steps:
            if isinstance(step, Told):
                body = {"alerts": [step.alert(fingerprint)]}
                others.append(other.submit(ask, ("POST", "/alerts", body, {})).result()[0])
            yield step if isinstance(step, Fault) else None

    for report, steps in told:
        proxy.script = script(steps)
        deliver(client, fingerprint, report)
        proxy.script = iter(())
        assert active(client, fingerprint) <= 1
    assert set(others) <= {200}
    deliver(client, fingerprint, ends(NOW, NOW))
    assert active(client, fingerprint) == 0, "nothing is active after a resolve"
    deliver(client, fingerprint, fires(NOW))
    assert active(client, fingerprint) == 1, "what fires now is not swallowed"


LIFE = st.sets(st.integers(0, 20), min_size=1, max_size=8).map(sorted)
"""When an alert starts, ends, starts again and so on."""


@given(life=LIFE, script=st.lists(QUICK, max_size=6), data=st.data())
@with_faults
def test_true_ends_in_any_order_leave_open_what_fires(
    client: httpx.Client, proxy: Proxy, life: list[int], script: list[Fault | None], data: st.DataObject
) -> None:
    """Replicas name earlier and later starts, Grafana the end; each report comes at least once, several at once."""
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
def test_what_is_repeated_late_changes_nothing(client: httpx.Client, life: list[int], data: st.DataObject) -> None:
    """Whatever end a resolve names, or none; some ends are never told."""
    fingerprint = uuid.uuid4().hex
    told: list[Told] = []
    for start, end in itertools.zip_longest(life[::2], life[1::2]):
        resolves = [] if end is None else [ends(start, end), ends(end, end), ends(end, None), ends(end, start), None]
        for report in (fires(start), data.draw(st.sampled_from([*resolves, None]))):
            if report:
                deliver(client, fingerprint, report)
                told.append(report)
                for repeated in data.draw(st.lists(st.sampled_from(told), max_size=2)):
                    deliver(client, fingerprint, repeated)
                assert active(client, fingerprint) == (report.status == "firing")


def test_alerts_are_stored_all_or_sent_again(client: httpx.Client, proxy: Proxy) -> None:
    fingerprints = [uuid.uuid4().hex for _ in range(400)]
    body = {"alerts": [fires(1).alert(each) for each in fingerprints]}
    # Four batches of reads and one write pass; every later request fails.
    failed = Fault("failed", status=500, code="InternalServerError")
    proxy.script, proxy.asked = itertools.chain([None] * 5, itertools.repeat(failed)), 0
    assert client.post("/alerts", json=body).status_code == 503
    assert 5 < proxy.asked <= 5 + 4, "each of the four threads fails at most once"
    proxy.script = iter(())
    # On a slow machine, one request has no time for 400 single writes.
    while (status := client.post("/alerts", json=body).status_code) == 503:
        pass
    assert status == 200
    listed = {each["description"] for page in follow(client, "/incidents?limit=100") for each in page}
    assert listed >= set(fingerprints)


def alerts(number: int) -> tuple[dict[str, object], set[str]]:
    """A body with so many alerts, and what their incidents say."""
    fingerprints = [uuid.uuid4().hex for _ in range(number)]
    return {"alerts": [fires(1).alert(each) for each in fingerprints]}, set(fingerprints)


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_transaction_that_may_pass_later_is_sent_again(client: httpx.Client, proxy: Proxy, reason: str) -> None:
    body, _ = alerts(20)
    with mock.patch("alerts.receive_alerts.TOGETHER", 1):
        proxy.script = iter([None, cancelled(reason, *["None"] * 39)])
        assert client.post("/alerts", json=body).status_code == 503
        assert client.post("/alerts", json=body).json()["created"] == 20


def test_a_transaction_that_can_never_pass_is_a_500(client: httpx.Client, proxy: Proxy) -> None:
    body, _ = alerts(20)
    with mock.patch("alerts.receive_alerts.TOGETHER", 1):
        proxy.script = iter([None, cancelled("ConditionalCheckFailed", "ValidationError", *["None"] * 38)])
        assert client.post("/alerts", json=body).status_code == 500


def test_alerts_that_others_store_meanwhile_do_not_hold_the_rest_up(
    client: httpx.Client, proxy: Proxy, other: ProcessPoolExecutor
) -> None:
    body, fingerprints = alerts(120)
    part = {"alerts": cast("list[object]", body["alerts"])[::40]}

    def meanwhile() -> Iterator[None]:
        yield None
        yield None
        assert other.submit(ask, ("POST", "/alerts", part, {})).result()[0] == 200
        while True:
            yield None

    proxy.script = meanwhile()
    assert client.post("/alerts", json=body).json() == {"created": 117, "resolved": 0, "unchanged": 3}
    proxy.script = iter(())
    listed = [each["description"] for page in follow(client, "/incidents?limit=100") for each in page]
    assert sum(each in fingerprints for each in listed) == 120


@pytest.mark.parametrize(("missing", "status"), [(1, 200), (2, 503)], ids=["a full response", "throttling"])
def test_what_dynamodb_has_not_looked_up_is_asked_for_again(
    client: httpx.Client, proxy: Proxy, missing: int, status: int
) -> None:
    told = [fires(1).alert(uuid.uuid4().hex) for _ in range(2)]
    keys = [{"id": {"S": f"alert#{derived_id('alert', '', str(each['fingerprint']))}"}} for each in told]
    answer = {"Responses": {TABLE: []}, "UnprocessedKeys": {TABLE: {"Keys": keys[:missing]}}}
    proxy.script = iter([Fault("partial", status=200, answer=json.dumps(answer).encode())])
    assert client.post("/alerts", json={"alerts": told}).status_code == status
    proxy.script = iter(())
    assert client.post("/alerts", json={"alerts": told}).status_code == 200


def test_an_overload_is_a_503_in_time_and_each_retry_gets_further(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, _ = alerts(500)

    def remaining(context: Context) -> int:
        """Time for three writes in each request."""
        context.asked = getattr(context, "asked", 0) + 1  # type: ignore[attr-defined]  # noted here alone
        return 25_000 if context.asked <= 3 else 0  # type: ignore[attr-defined]

    monkeypatch.setattr(Context, "get_remaining_time_in_millis", remaining)
    requests = 0
    with mock.patch("alerts.receive_alerts.TOGETHER", 1):
        while (status := client.post("/alerts", json=body).status_code) == 503:
            requests += 1
    assert (status, requests) == (200, 3)
