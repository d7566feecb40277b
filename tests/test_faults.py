"""What becomes of reports when clients repeat them, race each other, and DynamoDB fails."""

import inspect
import itertools
import json
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import botocore.exceptions
import botocore.session
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import dynamodb
import store
from dynamodb import Unavailable
from incident import HistoryEntry, Status, derived_id
from rfc3339 import parse_instant
from tests.conftest import TEMPLATE, http_client
from tests.faults import LASTING, PASSING, Fault, Proxy
from tests.processes import Answer, Request, ask, change_until_answered, running
from tests.steps import assert_problem, report

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NEW = {"description": "The point does not answer", "source": "partner"}
ALERT = {"status": "firing", "fingerprint": "9fcdbf62e3b8eed9", "startsAt": "2026-11-24T02:17:50.912104Z"}
# What boto3 tries again by itself, and at once.
REPEATED = [fault for fault in PASSING if fault.status in (0, 500, 503)]
# What is asked for, by DynamoDB's operation.
REQUESTS = {
    "PutItem": ("POST", "/incidents", NEW),
    "GetItem": ("GET", f"/incidents/{UNKNOWN}", None),
    "Query": ("GET", "/incidents?status=open", None),
    "UpdateItem": ("PATCH", f"/incidents/{UNKNOWN}", {"status": "closed"}),
    "BatchGetItem": ("POST", "/alerts", {"alerts": [ALERT]}),
}


@pytest.fixture(scope="module")
def listening(database: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the database, and its address."""
    proxy = Proxy(database)
    with proxy.listening() as address:
        yield proxy, address


@pytest.fixture
def proxy(listening: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The proxy between the functions and the database. The functions lose patience sooner than on AWS."""
    proxy, address = listening
    proxy.script, proxy.asked = iter(()), 0
    # A client of its own for each test: botocore stops repeating when many of a client's requests have failed.
    monkeypatch.setattr(store, "client", dynamodb.connect(2, endpoint=address, read_timeout=1))
    return proxy


@pytest.fixture
def client(address: str, proxy: Proxy) -> Iterator[httpx.Client]:  # noqa: ARG001 (the proxy has to be there)
    """A client of the API behind which the faults are."""
    with http_client(address) as client:
        yield client


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_failure_that_passes_is_a_503_and_never_a_2xx(
    client: httpx.Client, proxy: Proxy, fault: Fault, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(1, endpoint=store.client.meta.endpoint_url, read_timeout=0.3))
    proxy.script = itertools.repeat(fault)
    method, path, body = REQUESTS[operation]
    response = client.request(method, path, json=body)
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("fault", LASTING, ids=repr)
def test_a_fault_of_the_deployment_is_not_made_out_to_pass(
    client: httpx.Client, proxy: Proxy, fault: Fault, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As patient as on AWS: what is counted below is what DynamoDB's answer alone brings about.
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint=store.client.meta.endpoint_url))
    proxy.script = itertools.repeat(fault)
    method, path, body = REQUESTS[operation]
    response = client.request(method, path, json=body)
    # The gateway's answer to a function that has failed.
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})
    assert proxy.asked == 1


@pytest.mark.parametrize("fault", REPEATED, ids=repr)
def test_a_put_that_boto3_repeats_is_one_incident_and_no_replay(
    client: httpx.Client, proxy: Proxy, fault: Fault
) -> None:
    proxy.script = iter([fault])
    response = client.post("/incidents", json=NEW | {"description": repr(fault)})
    assert response.status_code == 201
    assert "Idempotent-Replayed" not in response.headers
    assert proxy.asked == 2
    listed = client.get("/incidents?limit=100").json()
    assert [each for each in listed if each["description"] == repr(fault)] == [response.json()]


@pytest.mark.parametrize("fault", REPEATED, ids=repr)
def test_a_guarded_change_that_boto3_repeats_is_made_once(client: httpx.Client, proxy: Proxy, fault: Fault) -> None:
    path = f"/incidents/{report(client)['id']}"
    proxy.script = iter([fault])
    response = client.patch(path, json={"status": "closed"}, headers={"If-Match": '"1"'})
    assert (response.status_code, response.json()["status"], response.json()["version"]) == (200, "closed", 2)


def test_a_database_that_is_not_there_is_a_503(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint="http://127.0.0.1:9"))
    for method, path, body in REQUESTS.values():
        assert_problem(client.request(method, path, json=body), 503)


def test_dynamodb_is_asked_three_times_with_patience(
    client: httpx.Client, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the configuration of AWS."""
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint=store.client.meta.endpoint_url))
    cut, slow = Fault("cut before the work"), Fault("slow", delay=1)
    proxy.script = iter([slow])
    assert client.post("/incidents", json=NEW).status_code == 201
    assert proxy.asked == 1
    proxy.script = iter([cut, cut])
    assert client.post("/incidents", json=NEW).status_code == 201
    assert proxy.asked == 1 + 3
    proxy.script = iter([cut, cut, cut])
    assert_problem(client.post("/incidents", json=NEW), 503)
    assert proxy.asked == 1 + 3 + 3


def test_a_list_of_many_partitions_keeps_its_connections(
    client: httpx.Client, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(endpoint=store.client.meta.endpoint_url))
    monkeypatch.setattr(store, "SHARDS", 16)
    with caplog.at_level("WARNING", "urllib3.connectionpool"):
        # Before any incident, so that no partition has to be asked a second time, whatever other tests have stored.
        assert client.get("/incidents?until=2000-01-01T00:00:00Z").json() == []
    assert proxy.asked == 16 * len(Status)
    assert caplog.messages == [], "more threads than the pool has connections"


def until_answered(client: httpx.Client, method: str, path: str, **request: dict[str, str]) -> httpx.Response:
    """Ask as the README tells a client to: again after a 503 or a cut connection."""
    for _ in range(20):
        response = client.request(method, path, json=request["json"], headers=request["headers"])
        if response.status_code != 503:
            return response
    raise AssertionError("the faults have an end; the 503s have none")


# The faults that take no time: boto3 waits for the end of a stall, and up to a second after a throttle.
QUICK = [
    fault
    for fault in PASSING
    if not fault.stalls and not fault.code.endswith(("Exceeded", "ExceededException", "ingException"))
]
SCRIPTS = st.lists(st.none() | st.sampled_from(QUICK), max_size=8)


@given(script=SCRIPTS, lost=st.lists(st.booleans(), max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_client_that_retries_ends_with_one_incident_for_each_report(
    client: httpx.Client, proxy: Proxy, script: list[Fault | None], lost: list[bool]
) -> None:
    """Whatever is cut between the function and DynamoDB, and whichever answers are lost on their way to the client."""
    key = str(uuid.uuid4())
    new = NEW | {"description": key}
    proxy.script = iter(script)
    for is_lost in [*lost, False]:
        response = until_answered(client, "POST", "/incidents", json=new, headers={"Idempotency-Key": key})
        if not is_lost:
            break
    assert response.status_code == 201
    created = response.json()
    path = f"/incidents/{created['id']}"
    for is_lost in [*lost, False]:
        response = until_answered(client, "PATCH", path, json={"status": "closed"}, headers={"If-Match": '"1"'})
        if not is_lost:
            break
    assert response.status_code == 200
    proxy.script = iter(())
    expected = created | {"status": "closed", "version": 2, "updated_at": response.json()["updated_at"]}
    assert response.json() == client.get(path).json() == expected
    newest = client.get("/incidents?limit=3").json()
    assert [each["id"] for each in newest if each["description"] == key] == [created["id"]]


# ---- alerts, as Alertmanager sends them


def instant(minutes: int) -> str:
    """A time of an alert."""
    return (datetime(2026, 11, 24, tzinfo=UTC) + timedelta(minutes=minutes)).isoformat()


class Told(NamedTuple):
    """What is said of an alert: that it fires since a minute, or that it fired from one to another."""

    starts: int
    ends: int | None = None

    def alert(self, fingerprint: str) -> dict[str, object]:
        """As it is sent."""
        return {
            "status": "firing" if self.ends is None else "resolved",
            "fingerprint": fingerprint,
            "startsAt": instant(self.starts),
            "endsAt": "0001-01-01T00:00:00Z" if self.ends is None else instant(self.ends),
            "labels": {"alertname": "A"},
            "annotations": {"summary": fingerprint},
        }


def send_alerts(client: httpx.Client, alerts: list[dict[str, object]], attempts: int = 20) -> bool:
    """Send alerts as Alertmanager does, all of them again after a 503; return whether they have been stored."""
    for _ in range(attempts):
        response = client.post("/alerts", json={"alerts": alerts})
        if response.status_code != 503:
            assert response.status_code == 200, response.text
            return True
    return False


def incidents_of(client: httpx.Client, fingerprint: str, starts: Iterable[int]) -> list[tuple[int, str, int]]:
    """The start, the status and the version of each incident of an alert. No other start than these may have led to one."""
    ids = {derived_id("alert", "", fingerprint, parse_instant(instant(each))): each for each in starts}
    incidents = client.get("/incidents?limit=100").json()
    found = [each for each in incidents if each["description"].startswith(fingerprint)]
    return sorted((ids[each["id"]], each["status"], each["version"]) for each in found)


def test_alerts_are_stored_all_or_sent_again(
    client: httpx.Client, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", dynamodb.connect(1, endpoint=store.client.meta.endpoint_url, read_timeout=20))
    fingerprints = [uuid.uuid4().hex for _ in range(100)]
    alerts = [Told(0).alert(fingerprint) for fingerprint in fingerprints]
    failed = Fault("failed", status=500, code="InternalServerError")
    # The first request asks for what is known; then 20 pass, and from there on each fails.
    proxy.script = itertools.chain([None] * 21, itertools.repeat(failed))
    assert_problem(client.post("/alerts", json={"alerts": alerts}, timeout=60), 503)
    assert proxy.asked < 100, "the rest is not even tried"
    proxy.script = iter(())
    counts = client.post("/alerts", json={"alerts": alerts}, timeout=60).json()
    assert counts["created"] + counts["unchanged"] == 100
    assert counts["created"] >= 80
    listed = [each["description"].partition("\n")[0] for each in client.get("/incidents?limit=100").json()]
    assert sorted(listed) == sorted(fingerprints)


def test_a_batch_that_dynamodb_answers_in_part_is_a_503(client: httpx.Client, proxy: Proxy) -> None:
    # https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
    table = TEMPLATE.table()["TableName"]
    answer = {"Responses": {table: []}, "UnprocessedKeys": {table: {"Keys": [{"id": {"S": "1"}}]}}}
    proxy.script = iter([Fault("throttled in part", answer=json.dumps(answer).encode())])
    assert_problem(client.post("/alerts", json={"alerts": [ALERT]}), 503)
    assert proxy.asked == 1


@st.composite
def lives(draw: st.DrawFn) -> list[Told]:
    """The times when an alert fires, in order; the last one may go on."""
    instants = sorted(draw(st.sets(st.integers(0, 1000), min_size=1, max_size=8)))
    return [Told(*times) for times in itertools.zip_longest(instants[::2], instants[1::2])]


@given(life=lives(), script=SCRIPTS, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_alerts_in_any_order_leave_open_what_fires_and_nothing_else(
    client: httpx.Client, proxy: Proxy, life: list[Told], script: list[Fault | None], data: st.DataObject
) -> None:
    fingerprint = uuid.uuid4().hex
    reports = [Told(told.starts) for told in life] + [told for told in life if told.ends is not None]
    order = data.draw(st.permutations(reports + data.draw(st.lists(st.sampled_from(reports), max_size=4))))
    proxy.script = iter(script)
    while order:
        size = data.draw(st.integers(1, 3))
        assert send_alerts(client, [told.alert(fingerprint) for told in order[:size]])
        order = order[size:]
    proxy.script = iter(())
    found = incidents_of(client, fingerprint, [told.starts for told in life])
    assert [starts for starts, status, _ in found if status != "resolved"] == [
        told.starts for told in life if told.ends is None
    ]
    # Its end may have come while an earlier episode had not ended, as another replica's does: then that one stands for both.
    assert all(found[0][0] <= told.starts for told in life)


class Firing:
    """An episode of an alert in Alertmanager: the starts that its replicas have named, and what has been delivered."""

    def __init__(self, starts: int) -> None:
        self.starts = [starts]
        self.ends: int | None = None
        self.delivered = self.end_delivered = False

    def to_send(self) -> Told | None:
        """What a notification says of it: nothing of an episode that ends before it has been delivered."""
        if self.ends is None:
            return Told(self.starts[-1])
        return Told(self.starts[-1], self.ends) if self.delivered and not self.end_delivered else None


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["fires", "fired earlier", "ends"]))
    | st.tuples(st.integers(1, 2), SCRIPTS),
    max_size=15,
)


@given(steps=STEPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_group_of_alerts_that_alertmanager_retries_is_one_incident_for_each_episode(
    client: httpx.Client, proxy: Proxy, steps: list[tuple[int, str] | tuple[int, list[Fault | None]]]
) -> None:
    """A notification may fail for good; the next one then says how things are by then."""
    alerts: dict[str, list[Firing]] = {uuid.uuid4().hex: [] for _ in range(3)}

    def notify(attempts: int) -> None:
        latest = [(name, episodes[-1], episodes[-1].to_send()) for name, episodes in alerts.items() if episodes]
        if send_alerts(client, [told.alert(name) for name, _, told in latest if told], attempts):
            for _, episode, told in latest:
                episode.delivered |= told is not None
                episode.end_delivered |= bool(told and told.ends)

    for minute, (number, step) in enumerate([*steps, (20, [])], start=1):
        if isinstance(step, list):
            proxy.script = iter(step)
            notify(attempts=number)
            proxy.script = iter(())
            continue
        episodes = list(alerts.values())[number]
        fires = bool(episodes) and episodes[-1].ends is None
        if step == "fires" and not fires:
            episodes.append(Firing(100 * minute))
        elif step == "fired earlier" and fires:
            episodes[-1].starts.append(episodes[-1].starts[-1] - 1)
        elif step == "ends" and fires:
            episodes[-1].ends = 100 * minute
    for name, episodes in alerts.items():
        found = incidents_of(client, name, [starts for episode in episodes for starts in episode.starts])
        for episode in episodes:
            mine = [(status, version) for starts, status, version in found if starts in episode.starts]
            if episode.end_delivered:
                assert mine == [("resolved", 2)]
            elif episode.delivered and episode.ends is None:
                assert mine == [("open", 1)]
            elif episode.delivered:
                assert mine in [[("open", 1)], [("resolved", 2)]]  # its end was sent, and not acknowledged
            else:
                assert mine in [[], [("open", 1)]]


# ---- races: functions in processes of their own, as on Lambda

Race = Callable[[list[Request]], list[Answer]]


@pytest.fixture(scope="module")
def processes(listening: tuple[Proxy, str]) -> Iterator[ProcessPoolExecutor]:
    """Four processes with the functions, behind the proxy."""
    _, address = listening
    with running(4, address) as processes:
        yield processes


@pytest.fixture
def race(listening: tuple[Proxy, str], processes: ProcessPoolExecutor) -> Race:
    """Send all the requests at once, through the four processes, with no fault."""
    proxy, _ = listening
    proxy.script = iter(())
    return lambda requests: list(processes.map(ask, requests))


@pytest.mark.slow
def test_100_creates_with_one_key_are_one_incident(race: Race) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answers = race([("POST", "/incidents", NEW, key)] * 100)
    assert {status for status, _, _ in answers} == {201}
    assert len({incident["id"] for _, incident, _ in answers}) == 1
    assert all(incident == answers[0][1] for _, incident, _ in answers)
    assert None in {replayed for _, _, replayed in answers}

    ((status, problem, _),) = race([("POST", "/incidents", NEW | {"description": "Another"}, key)])
    assert (status, problem["title"]) == (422, "Unprocessable Content")


@pytest.mark.slow
def test_of_100_changes_of_one_version_one_is_made(race: Race) -> None:
    path = f"/incidents/{race([('POST', '/incidents', NEW, {})])[0][1]['id']}"
    statuses = ["in_progress", "resolved", "closed", "open"] * 25
    answers = race([("PATCH", path, {"status": status}, {"If-Match": '"1"'}) for status in statuses])
    ((_, stored, _),) = race([("GET", path, {}, {})])
    assert stored["version"] == 2
    for asked, (status, answer, _) in zip(statuses, answers, strict=True):
        if asked == stored["status"]:
            assert (status, answer) == (200, stored)
        else:
            # The first version is open: a change to what already stands is taken for one that got through.
            assert status == 412 or (status, answer["version"], asked) == (200, 1, "open")


@pytest.mark.slow
def test_every_unguarded_change_is_a_version(race: Race) -> None:
    path = f"/incidents/{race([('POST', '/incidents', NEW, {})])[0][1]['id']}"
    statuses = ["in_progress", "resolved", "closed"] * 33
    answers = race([("PATCH", path, {"status": status}, {}) for status in statuses])
    ((_, stored, _),) = race([("GET", path, {}, {})])
    assert [incident["status"] for _, incident, _ in answers] == statuses
    # A change to the status that another request has just set makes no version: each version was some request's answer.
    assert {incident["version"] for _, incident, _ in answers} == {*range(2, int(str(stored["version"])) + 1)}


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False])
def test_a_race_through_faults_is_in_the_history_version_by_version(
    listening: tuple[Proxy, str], processes: ProcessPoolExecutor, race: Race, *, guarded: bool
) -> None:
    proxy, _ = listening
    path = f"/incidents/{race([('POST', '/incidents', NEW, {})])[0][1]['id']}"
    dice = random.Random(guarded)  # noqa: S311
    proxy.script = iter([dice.choice(QUICK) if dice.random() < 0.3 else None for _ in range(300)])
    statuses = ["in_progress", "resolved", "closed", "open"] * 25
    answers = list(processes.map(change_until_answered, [(path, status, guarded) for status in statuses]))
    proxy.script = iter(())
    ((_, stored, _), (_, history, _)) = race([("GET", path, {}, {}), ("GET", f"{path}/history", {}, {})])
    entries = TypeAdapter(list[HistoryEntry]).validate_python(history)
    assert [entry.version for entry in entries] == [*range(1, len(entries) + 1)]
    assert (entries[-1].version, entries[-1].status, entries[-1].at) == (
        stored["version"],
        stored["status"],
        stored["updated_at"],
    )
    assert all(entry.status != following.status for entry, following in itertools.pairwise(entries))
    # Each answer is the version that made the change, or that had made it already.
    assert [entries[version - 1].status for _, version in answers] == statuses
    assert {entry.version for entry in entries[1:]} >= {version for _, version in answers if version > 1}


# ---- nothing is forgotten


def test_every_failure_of_a_connection_is_mapped() -> None:
    connection = (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)
    for name, error in inspect.getmembers(botocore.exceptions, inspect.isclass):
        if issubclass(error, connection):
            with pytest.raises(Unavailable), dynamodb.translate_errors():
                raise error(error=OSError(name), endpoint_url="", proxy_url="")


def test_every_error_that_dynamodb_documents_is_tried_above() -> None:
    service = botocore.session.get_session().get_service_model("dynamodb")
    documented = {error.name for operation in REQUESTS for error in service.operation_model(operation).error_shapes}
    tried = {fault.code for fault in [*PASSING, *LASTING]}
    assert documented - tried == {"ConditionalCheckFailedException"}


def test_the_longest_wait_for_dynamodb_is_inside_the_functions_timeout() -> None:
    config = vars(store.client.meta.config)
    attempts = config["retries"]["total_max_attempts"]
    # botocore's own: waits of 1 and 2 seconds at the most when throttled, and 5 more where DynamoDB asks for them.
    waits = sum(2**attempt + 5 for attempt in range(attempts - 1))
    longest = attempts * (config["connect_timeout"] + config["read_timeout"]) + waits
    timeout = TEMPLATE.Globals["Function"]["Timeout"]
    assert config["retries"]["mode"] == "standard"
    assert isinstance(timeout, int)
    assert longest < timeout < 30
