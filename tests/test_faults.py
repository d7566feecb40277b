"""What becomes of reports when DynamoDB fails, clients repeat them, and clients race each other."""

import importlib
import itertools
import json
import random
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import botocore.config
import botocore.exceptions
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue, TypeAdapter
from werkzeug.test import Client

from incident import Status
from tests import anew
from tests.conftest import TEMPLATE, http_client
from tests.faults import LASTING, PASSING, Fault, Proxy
from tests.processes import Answer, Request, ask, change_until_answered, running
from tests.steps import assert_problem

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NEW = {"description": "The point does not answer", "source": "partner"}
ALERT = {"status": "firing", "fingerprint": "9fcdbf62e3b8eed9", "startsAt": "2026-11-24T02:17:50.912104Z"}
# A request for each of DynamoDB's operations.
REQUESTS = {
    "PutItem": ("POST", "/incidents", NEW),
    "GetItem": ("GET", f"/incidents/{UNKNOWN}", None),
    "Query": ("GET", "/incidents?status=open", None),
    "UpdateItem": ("PATCH", f"/incidents/{UNKNOWN}", {"status": "closed", "comment": "Fixed"}),
    "alerts": ("POST", "/alerts", {"alerts": [ALERT]}),
}

impatient = pytest.mark.parametrize(
    "client",
    [{"read_timeout": 0.3, "retries": {"mode": "standard", "total_max_attempts": 1}}],
    ids=["impatient"],
    indirect=True,
    scope="module",
)
"""The functions try once and briefly. Otherwise they are as patient as on AWS."""


@pytest.fixture(scope="module")
def listening(database: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the database, and its address."""
    proxy = Proxy(database)
    with proxy.listening() as address:
        yield proxy, address


@pytest.fixture
def proxy(listening: tuple[Proxy, str]) -> Proxy:
    """The proxy, which passes every request on until it has another script."""
    proxy, _ = listening
    proxy.script, proxy.asked = iter(()), 0
    return proxy


@pytest.fixture(scope="module")
def client(
    request: pytest.FixtureRequest, listening: tuple[Proxy, str], serve: Callable[["WSGIApplication"], str]
) -> Iterator[httpx.Client]:
    """A client of functions behind the proxy."""
    with (
        anew.gateway(getattr(request, "param", None), DynamoDBEndpoint=listening[1]) as gateway,
        http_client(serve(gateway)) as client,
    ):
        yield client


# ---- one request


@impatient
@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_failure_that_passes_is_a_503(client: httpx.Client, proxy: Proxy, fault: Fault, operation: str) -> None:
    proxy.script = itertools.repeat(fault)
    method, path, body = REQUESTS[operation]
    response = client.request(method, path, json=body)
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("fault", LASTING, ids=repr)
def test_a_fault_of_the_deployment_is_a_500_at_once(
    client: httpx.Client, proxy: Proxy, fault: Fault, operation: str
) -> None:
    proxy.script = itertools.repeat(fault)
    method, path, body = REQUESTS[operation]
    response = client.request(method, path, json=body)
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})
    assert proxy.asked == 1


CONNECTION_ERRORS = [
    error
    for error in vars(botocore.exceptions).values()
    if isinstance(error, type)
    and issubclass(error, (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError))
]


@pytest.mark.parametrize("error", CONNECTION_ERRORS)
def test_every_connection_error_of_botocore_is_a_503(client: httpx.Client, error: type[Exception]) -> None:
    def fail(**_: object) -> None:
        raise error(**{"error": OSError(), "endpoint_url": "", "proxy_url": ""})

    events = importlib.import_module("store").client.meta.events
    events.register("request-created.dynamodb", fail)
    responses = [client.request(method, path, json=body) for method, path, body in REQUESTS.values()]
    events.unregister("request-created.dynamodb", fail)
    for response in responses:
        assert_problem(response, 503)


@impatient
def test_a_batch_answered_in_part_is_a_503(client: httpx.Client, proxy: Proxy) -> None:
    # https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
    table = TEMPLATE.table()["TableName"]
    answer = {"Responses": {table: []}, "UnprocessedKeys": {table: {"Keys": [{"id": {"S": "1"}}]}}}
    proxy.script = iter([Fault("throttled in part", answer=json.dumps(answer).encode())])
    assert_problem(client.post("/alerts", json={"alerts": [ALERT]}), 503)
    assert proxy.asked == 1


# ---- attempts

REPEATED = [
    pytest.param(fault, marks=[pytest.mark.slow] if fault.stalls else [])
    for fault in PASSING
    if fault.status in (0, 500, 503) or (fault.status == 200 and fault.done)
]
"""The faults after which boto3 asks again by itself."""


@pytest.mark.parametrize("fault", REPEATED, ids=repr)
def test_a_write_that_boto3_repeats_is_made_once(client: httpx.Client, proxy: Proxy, fault: Fault) -> None:
    proxy.script = iter([fault])
    created = client.post("/incidents", json=NEW)
    assert (created.status_code, proxy.asked) == (201, 2)
    assert "Idempotent-Replayed" not in created.headers
    path = created.headers["Location"]
    assert client.get(path).json() == created.json()
    proxy.script = iter([fault])
    changed = client.patch(path, json={"status": "closed"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["status"], changed.json()["version"]) == (200, "closed", 2)


@pytest.mark.parametrize(
    ("script", "status", "asked"),
    [
        ([Fault("slow", delay=1)], 201, 1),
        ([PASSING[0]] * 2, 201, 3),
        ([PASSING[0]] * 3, 503, 3),
    ],
)
def test_dynamodb_is_asked_three_times_with_patience(
    client: httpx.Client, proxy: Proxy, script: list[Fault], status: int, asked: int
) -> None:
    proxy.script = iter(script)
    assert client.post("/incidents", json=NEW).status_code == status
    assert proxy.asked == asked


def test_the_longest_wait_for_dynamodb_is_inside_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    original = botocore.config.Config

    def config(
        *, connect_timeout: int, read_timeout: int, retries: dict[str, JsonValue], **options: object
    ) -> botocore.config.Config:
        attempts = int(str(retries["total_max_attempts"]))
        assert retries["mode"] == "standard"
        # botocore's own: waits of 1 and 2 seconds at the most when throttled, and 5 more if DynamoDB asks for them.
        pauses = sum(2**attempt + 5 for attempt in range(attempts - 1))
        waits.append(attempts * (connect_timeout + read_timeout) + pauses)
        return original(**options)  # type: ignore[arg-type]

    monkeypatch.setattr(botocore.config, "Config", config)
    with anew.gateway():
        pass
    timeout = TEMPLATE.Globals["Function"]["Timeout"]
    assert isinstance(timeout, int)
    assert max(waits) < timeout < 30


def test_a_list_of_many_partitions_keeps_its_connections(
    listening: tuple[Proxy, str], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level("WARNING", "urllib3.connectionpool"),
        anew.gateway(DynamoDBEndpoint=listening[1], StatusShards="16") as gateway,
    ):
        # Before any incident, so that no partition has to be asked a second time, whatever other tests have stored.
        assert Client(gateway).get("/incidents?until=2000-01-01T00:00:00Z").get_json() == []
    assert proxy.asked == 16 * len(Status)
    assert caplog.messages == [], "more threads than the pool has connections"


# ---- clients that retry

# The faults that take no time: boto3 waits for the end of a stall, and up to a second after a throttle.
QUICK = [fault for fault in PASSING if not fault.stalls and not fault.throttles]
SCRIPTS = st.lists(st.none() | st.sampled_from(QUICK), max_size=8)
with_faults = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def until_answered(client: httpx.Client, method: str, path: str, lost: list[bool], **request: object) -> httpx.Response:
    """Ask as the README tells a client to: again after a 503, and after a response that is lost."""
    for is_lost in [*lost, *[False] * 20]:
        response = client.request(method, path, **request)  # type: ignore[arg-type]
        if response.status_code != 503 and not is_lost:
            return response
    raise AssertionError("the faults have an end; the 503s have none")


@given(script=SCRIPTS, lost=st.lists(st.booleans(), max_size=3))
@with_faults
def test_a_client_that_retries_makes_one_incident_and_one_change(
    client: httpx.Client, proxy: Proxy, script: list[Fault | None], lost: list[bool]
) -> None:
    """Whatever is cut between the function and DynamoDB, and whichever answers are lost on their way to the client."""
    key = str(uuid.uuid4())
    proxy.script = iter(script)
    response = until_answered(
        client, "POST", "/incidents", lost, json=NEW | {"description": key}, headers={"Idempotency-Key": key}
    )
    assert response.status_code == 201
    created = response.json()
    path = f"/incidents/{created['id']}"
    change = {"status": "closed", "comment": "Fixed"}
    response = until_answered(client, "PATCH", path, lost, json=change, headers={"If-Match": '"1"'})
    assert response.status_code == 200
    proxy.script = iter(())
    expected = created | {"status": "closed", "version": 2, "updated_at": response.json()["updated_at"]}
    assert response.json() == until_answered(client, "GET", path, []).json() == expected
    newest = until_answered(client, "GET", "/incidents?limit=3", []).json()
    assert [each["id"] for each in newest if each["description"] == key] == [created["id"]]


Episode = tuple[int, int | None]
"""The minutes when an alert starts to fire and when it ends: None while it fires."""


def alert(name: str, episode: Episode, minute: int, *, replica: bool) -> dict[str, JsonValue]:
    """What is sent of an episode at that minute; another replica of Prometheus names a start a minute earlier."""
    first, end = episode

    def instant(minute: int) -> str:
        return (datetime(2026, 11, 24, tzinfo=UTC) + timedelta(minutes=minute)).isoformat()

    return {
        "status": "firing" if end is None or minute < end else "resolved",
        "fingerprint": name,
        "startsAt": instant(first - replica),
        "endsAt": "0001-01-01T00:00:00Z" if end is None or minute < end else instant(end),
        "annotations": {"summary": name},
    }


@st.composite
def lives(draw: st.DrawFn) -> list[Episode]:
    """The episodes of an alert, in order; the last one may go on."""
    minutes = sorted(draw(st.sets(st.integers(0, 1000), min_size=1, max_size=8)))
    return list(itertools.zip_longest(minutes[::2], minutes[1::2]))


@given(life=lives(), replica=st.integers(0, 1000), notifications=st.lists(st.tuples(st.integers(0, 1000), SCRIPTS)))
@with_faults
def test_alertmanager_makes_one_incident_for_each_episode(
    client: httpx.Client,
    proxy: Proxy,
    life: list[Episode],
    replica: int,
    notifications: list[tuple[int, list[Fault | None]]],
) -> None:
    """A notification tells the present state and may fail for good. From some minute on, another replica names the start."""
    name = uuid.uuid4().hex
    told: set[int] = set()
    delivered: dict[int, str] = {}
    for minute, script in [*sorted(notifications, key=lambda each: each[0]), (1001, [])]:
        episode = max((each for each in life if each[0] <= minute), default=None)
        if episode is None:
            continue
        sent = alert(name, episode, minute, replica=minute >= replica)
        if sent["status"] == "resolved" and episode[0] not in delivered:
            continue  # Alertmanager does not send the end of an alert that it has not delivered
        told.add(episode[0])
        proxy.script = iter(script)
        if client.post("/alerts", json={"alerts": [sent]}).status_code == 200:
            delivered[episode[0]] = str(sent["status"])
    proxy.script = iter(())
    incidents = until_answered(client, "GET", "/incidents?limit=100", []).json()
    statuses = [each["status"] for each in incidents if each["description"].startswith(name)]
    assert len(delivered) <= len(statuses) <= len(told)
    start, end = life[-1]
    if end is None:
        assert statuses.count("open") == 1
    elif start in delivered:
        assert statuses.count("open") == 0


# ---- races: functions in processes of their own, as on Lambda

Race = Callable[[list[Request]], list[Answer]]


@pytest.fixture(scope="module")
def processes(listening: tuple[Proxy, str]) -> Iterator[ProcessPoolExecutor]:
    """Four processes with the functions, behind the proxy."""
    with running(4, listening[1]) as processes:
        yield processes


@pytest.fixture
def race(processes: ProcessPoolExecutor) -> Race:
    """Send all the requests at once, through the four processes."""
    return lambda requests: list(processes.map(ask, requests))


@pytest.fixture
def path(proxy: Proxy, race: Race) -> str:  # noqa: ARG001 (it is to have no script yet)
    """The path of a new incident."""
    ((_, incident, _),) = race([("POST", "/incidents", NEW, {})])
    return f"/incidents/{incident['id']}"


@pytest.mark.slow
@pytest.mark.usefixtures("proxy")
def test_100_creates_with_one_key_are_one_incident(race: Race) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    answers = race([("POST", "/incidents", NEW, key)] * 100)
    assert {status for status, _, _ in answers} == {201}
    assert all(incident == answers[0][1] for _, incident, _ in answers)
    assert None in {replayed for _, _, replayed in answers}


@pytest.mark.slow
def test_of_100_changes_of_one_version_one_is_made(race: Race, path: str) -> None:
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
def test_100_racing_comments_are_each_a_version(race: Race, path: str) -> None:
    statuses = [None, "in_progress", None, "open"] * 25
    changes: list[dict[str, str]] = [
        {"comment": str(number)} | ({"status": status} if status else {}) for number, status in enumerate(statuses)
    ]
    answers = race([("PATCH", path, change, {}) for change in changes])
    (_, history, _), *_ = race([("GET", f"{path}/history", {}, {})])
    entries = TypeAdapter(list[dict[str, JsonValue]]).validate_python(history)
    assert [entry["version"] for entry in entries] == [*range(1, 102)]
    for change, (_, changed, _) in zip(changes, answers, strict=True):
        version = int(str(changed["version"]))
        before, entry = entries[version - 2 : version]
        assert entry["comment"] == change["comment"]
        assert entry["status"] == change.get("status", before["status"]) == changed["status"]
    assert [entry["at"] for entry in entries] == sorted(str(entry["at"]) for entry in entries)


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 0.3])
@pytest.mark.parametrize("guarded", [True, False])
def test_100_racing_changes_are_in_the_history_version_by_version(
    processes: ProcessPoolExecutor, proxy: Proxy, race: Race, path: str, *, guarded: bool, failing: float
) -> None:
    dice = random.Random(guarded)  # noqa: S311
    proxy.script = iter([dice.choice(QUICK) if dice.random() < failing else None for _ in range(300)])
    statuses = ["in_progress", "resolved", "closed", "open"] * 25
    answers = list(processes.map(change_until_answered, [(path, status, guarded) for status in statuses]))
    proxy.script = iter(())
    ((_, stored, _), (_, history, _)) = race([("GET", path, {}, {}), ("GET", f"{path}/history", {}, {})])
    entries = TypeAdapter(list[dict[str, JsonValue]]).validate_python(history)
    assert [entry["version"] for entry in entries] == [*range(1, len(entries) + 1)]
    last = entries[-1]
    assert (last["version"], last["status"], last["at"]) == (stored["version"], stored["status"], stored["updated_at"])
    assert all(entry["status"] != following["status"] for entry, following in itertools.pairwise(entries))
    # Each answer is the version that made the change, or that had made it already.
    assert [entries[version - 1]["status"] for _, version in answers] == statuses
    assert {entry["version"] for entry in entries[1:]} >= {version for _, version in answers if version > 1}
