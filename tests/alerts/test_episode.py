"""One alert's life: what its senders tell, in the order in which it arrives, and the incidents that it leaves."""

import itertools
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dynamodb
import store
from tests.conftest import http_client
from tests.faults import PASSING, Fault, Proxy

ZERO = "0001-01-01T00:00:00Z"
AHEAD = "ahead"
"""An hour after the report's arrival."""

Time = int | str | None
"""An hour of a day that has passed, or a time as it is written."""


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
    if time == AHEAD:
        return (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    return f"2026-11-24T{time:02}:00:00Z" if isinstance(time, int) else time


def fires(starts: Time) -> Told:
    return Told("firing", starts)


def ends(starts: Time, ends: Time = ZERO) -> Told:
    return Told("resolved", starts, ends)


LIVES: dict[str, tuple[list[Told], list[str]]] = {
    "fires": ([fires(1)], ["open"]),
    "fires and ends": ([fires(1), ends(1, 2)], ["resolved"]),
    "everything is repeated": ([fires(1), fires(1), ends(1, 2), ends(1, 2), fires(1)], ["resolved"]),
    "two episodes": ([fires(1), ends(1, 2), fires(3)], ["resolved", "open"]),
    "the second begins when the first ends": ([fires(1), ends(1, 2), fires(2)], ["resolved", "open"]),
    "its firing was never delivered": ([ends(1, 2), ends(1, 2)], ["resolved"]),
    "the firing of the second was never delivered": ([fires(1), ends(1, 2), ends(3, 4)], ["resolved", "resolved"]),
    "the end of the first was never told": ([fires(1), fires(3), ends(3, 4)], ["resolved", "resolved"]),
    "the end of the first is late": ([fires(1), fires(3), ends(1, 2)], ["resolved", "open"]),
    "an earlier episode is told of late": ([fires(3), ends(1, 2)], ["open", "resolved"]),
    # Another node of a cluster sends what has ended (alertmanager 2447).
    "a late firing": ([fires(1), ends(1, 3), fires(1), fires(2)], ["resolved"]),
    "fires on after a wrong end": ([fires(1), ends(1, 2), fires(1)], ["resolved"]),
    # Two replicas of Prometheus.
    "an earlier start": ([fires(2), fires(1), ends(1, 3)], ["resolved"]),
    "a resolve names a later start": ([fires(1), ends(2, 3), fires(4)], ["resolved", "open"]),
    "another replica's end": ([fires(1), ends(1, 3), ends(2, 4)], ["resolved"]),
    # Grafana names the end as the start (grafana 106065), Alertmanager 0.25 does if it is posted to twice before a flush.
    "the end as start and end": ([fires(1), ends(2, 2), ends(2, 2), fires(3)], ["resolved", "open"]),
    "the end as start": ([fires(1), ends(2)], ["resolved"]),
    "the end as start, and an end before it": ([fires(1), ends(2, 1)], ["resolved"]),
    "the end as start, and no end": ([fires(1), ends(2, None)], ["resolved"]),
    "an earlier start, and no end": ([fires(2), ends(1, None), ends(1, ""), ends(1, "soon")], ["resolved"]),
    # Times that cannot be true.
    "the zero time as start": ([fires(ZERO), fires(ZERO), ends(ZERO, 2), fires(ZERO)], ["resolved", "open"]),
    "the zero time everywhere": ([fires(ZERO), ends(ZERO), ends(ZERO)], ["resolved"]),
    "a clock that is ahead": ([fires(AHEAD), fires(AHEAD), ends(AHEAD, AHEAD)], ["resolved"]),
    "an end that is ahead": ([fires(1), ends(1, AHEAD), ends(1, AHEAD)], ["resolved"]),
    "the zero time while it fires": ([fires(1), fires(ZERO), fires(AHEAD)], ["open"]),
}


@pytest.mark.parametrize(("told", "expected"), LIVES.values(), ids=LIVES)
def test_a_life_leaves_its_incidents(api: httpx.Client, told: list[Told], expected: list[str]) -> None:
    for each in told:
        assert api.post("/alerts", json={"alerts": [each.alert("a")]}).status_code == 200
    assert [incident["status"] for incident in reversed(api.get("/incidents").json())] == expected


def test_an_alert_after_a_corrected_clock_is_an_incident(api: httpx.Client) -> None:
    ahead = written(AHEAD)
    for each in (fires(ahead), ends(ahead, datetime.now(UTC).isoformat())):
        api.post("/alerts", json={"alerts": [each.alert("a")]})
    late, anew = fires(ahead), fires(datetime.now(UTC).isoformat())
    for each, created in ((late, 0), (anew, 1)):
        assert api.post("/alerts", json={"alerts": [each.alert("a")]}).json()["created"] == created
    assert [incident["status"] for incident in api.get("/incidents").json()] == ["open", "resolved"]


def test_an_episode_whose_end_was_never_told_is_resolved_first(api: httpx.Client) -> None:
    for each in (fires(1), fires(3)):
        counts = api.post("/alerts", json={"alerts": [each.alert("a")]}).json()
    assert counts == {"created": 1, "resolved": 0, "unchanged": 0}
    second, first = api.get("/incidents").json()
    resolved = api.get(f"/incidents/{first['id']}/history").json()[-1]
    assert resolved["status"] == "resolved"
    assert resolved["at"] <= second["created_at"]


def test_what_a_person_closed_stays_closed(api: httpx.Client) -> None:
    api.post("/alerts", json={"alerts": [fires(1).alert("a")]})
    (incident,) = api.get("/incidents").json()
    api.patch(f"/incidents/{incident['id']}", json={"status": "closed"})
    for each in (fires(1), ends(2, 2), ends(1, 2), fires(3)):
        api.post("/alerts", json={"alerts": [each.alert("a")]})
    assert [each["status"] for each in api.get("/incidents").json()] == ["open", "closed"]


# ---- any sequence of reports, through faults


@pytest.fixture(scope="module")
def proxy(database: str) -> Iterator[tuple[Proxy, str]]:
    proxy = Proxy(database)
    with proxy.listening() as address:
        yield proxy, address


@pytest.fixture
def client(address: str, proxy: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    # Of its own for each test: botocore stops repeating when many of a client's requests have failed.
    monkeypatch.setattr(store, "client", dynamodb.connect(1, endpoint=proxy[1], read_timeout=1))
    with http_client(address) as client:
        yield client


def deliver(client: httpx.Client, fingerprint: str, *told: Told) -> None:
    """Send reports as Alertmanager does, all of them again after a 503."""
    for _ in range(20):
        response = client.post("/alerts", json={"alerts": [each.alert(fingerprint) for each in told]})
        if response.status_code == 200:
            return
        assert response.status_code == 503, response.text
    raise AssertionError("the faults have no end")


def active(client: httpx.Client, fingerprint: str) -> int:
    # On a busy machine, the impatient client may give up.
    while (response := client.get("/incidents?limit=100&status=open,in_progress")).status_code == 503:
        pass
    incidents = response.json()
    return sum(incident["description"] == fingerprint for incident in incidents)


TIMES = st.integers(0, 9)
ANY_TIME = TIMES | st.sampled_from([ZERO, AHEAD])
REPORTS = st.builds(Told, st.sampled_from(["firing", "resolved"]), ANY_TIME, ANY_TIME | st.sampled_from([None, "soon"]))
QUICK = [fault for fault in PASSING if not fault.stalls]
SCRIPTS = st.lists(st.none() | st.sampled_from(QUICK), max_size=6)


@given(reports=st.lists(REPORTS, max_size=12), script=SCRIPTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_alert_has_one_active_incident_at_most(
    client: httpx.Client, proxy: tuple[Proxy, str], reports: list[Told], script: list[Fault | None]
) -> None:
    fingerprint = uuid.uuid4().hex
    for number, told in enumerate(reports):
        proxy[0].script = iter(script)
        deliver(client, fingerprint, told)
        proxy[0].script = iter(())
        found = active(client, fingerprint)
        assert found <= 1
        earlier = [each.starts for each in reports[:number]]
        if told.status == "resolved" and not isinstance(told.ends, int):
            assert found == 0, "nothing is active after a resolve, whatever start it names"
        if told.status == "firing" and told.starts == ZERO:
            assert found == 1, "what fires now is not swallowed"
        if told.status == "firing" and isinstance(told.starts, int):
            ended = [each.ends for each in reports[:number] if isinstance(each.ends, int)]
            if not {ZERO, AHEAD} & set(earlier) and AHEAD not in [each.ends for each in reports[:number]]:
                newest = max([-1, *ended, *[start for start in earlier if isinstance(start, int)]])
                assert found == 1 or told.starts <= newest, "what starts after everything told is not swallowed"


@given(instants=st.sets(st.integers(0, 20), min_size=1, max_size=8).map(sorted), script=SCRIPTS, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_true_reports_in_any_order_leave_open_what_fires(
    client: httpx.Client, proxy: tuple[Proxy, str], instants: list[int], script: list[Fault | None], data: st.DataObject
) -> None:
    """The times of its episodes, of which the last may go on; each report comes at least once, several at once."""
    fingerprint = uuid.uuid4().hex
    life = list(itertools.zip_longest(instants[::2], instants[1::2]))
    reports = [fires(start) for start, _ in life] + [ends(start, end) for start, end in life if end is not None]
    order = data.draw(st.permutations(reports + data.draw(st.lists(st.sampled_from(reports), max_size=4))))
    proxy[0].script = iter(script)
    while order:
        size = data.draw(st.integers(1, 3))
        deliver(client, fingerprint, *order[:size])
        order = order[size:]
    proxy[0].script = iter(())
    assert active(client, fingerprint) == (life[-1][1] is None)


def test_alerts_are_stored_all_or_sent_again(
    client: httpx.Client, proxy: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is not the machine's load that makes a failure.
    monkeypatch.setattr(store, "client", dynamodb.connect(1, endpoint=proxy[1], read_timeout=20))
    fingerprints = [uuid.uuid4().hex for _ in range(100)]
    body = json.dumps({"alerts": [fires(1).alert(each) for each in fingerprints]})
    headers = {"Content-Type": "application/json"}
    # The first request asks for what is known; then 20 pass, and from there on each fails.
    failed = Fault("failed", status=500, code="InternalServerError")
    proxy[0].script = itertools.chain([None] * 21, itertools.repeat(failed))
    proxy[0].asked = 0
    assert client.post("/alerts", content=body, headers=headers).status_code == 503
    assert proxy[0].asked <= 21 + dynamodb.CONNECTIONS, "the rest is not even tried"
    proxy[0].script = iter(())
    assert client.post("/alerts", content=body, headers=headers).status_code == 200
    listed = {each["description"] for each in client.get("/incidents?limit=100").json()}
    assert listed >= set(fingerprints)
