"""What becomes of requests when DynamoDB fails, clients retry, and clients race each other."""

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from werkzeug.test import Client

import store
from incident import Status
from tests import anew
from tests.conftest import TEMPLATE, http_client
from tests.faults import LASTING, PASSING, Fault, Proxy
from tests.processes import change_until_answered, running
from tests.steps import assert_problem

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NEW = {"description": "The point does not answer", "source": "partner"}
ALERTS: JsonValue = [{"status": "firing", "fingerprint": "9fcdbf62e3b8eed9", "startsAt": "2026-11-24T02:17:50.912104Z"}]
REQUESTS: dict[str, tuple[str, str, dict[str, JsonValue] | None]] = {
    "PutItem": ("POST", "/incidents", {**NEW}),
    "GetItem": ("GET", f"/incidents/{UNKNOWN}", None),
    "Query": ("GET", "/incidents?status=open", None),
    "UpdateItem": ("PATCH", f"/incidents/{UNKNOWN}", {"status": "closed", "comment": "Fixed"}),
    "BatchGetItem": ("POST", "/alerts", {"alerts": ALERTS}),
}
"""Method, path and body of a request for each of DynamoDB's operations."""

impatient = pytest.mark.parametrize(
    "client",
    [{"read_timeout": 0.3, "retries": {"mode": "standard", "total_max_attempts": 1}}],
    ids=["impatient"],
    indirect=True,
    scope="module",
)
"""The functions make one short attempt. By default, they are as patient as on AWS."""


@pytest.fixture(scope="module")
def listening(database: str) -> Iterator[Proxy]:
    """A proxy in front of the database."""
    with Proxy(database).listening() as proxy:
        yield proxy


@pytest.fixture
def proxy(listening: Proxy) -> Proxy:
    """The proxy, which forwards every request until a test sets its script."""
    listening.script, listening.asked = iter(()), 0
    return listening


@pytest.fixture(scope="module")
def client(
    request: pytest.FixtureRequest, listening: Proxy, serve: Callable[["WSGIApplication"], str]
) -> Iterator[httpx.Client]:
    """A client of functions that reach the database through the proxy."""
    with (
        anew.gateway(getattr(request, "param", None), DynamoDBEndpoint=listening.url) as gateway,
        http_client(serve(gateway)) as client,
    ):
        yield client


def send(client: httpx.Client, operation: str) -> httpx.Response:
    method, path, body = REQUESTS[operation]
    return client.request(method, path, json=body)


# ---- one request


@impatient
@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_a_transient_failure_is_a_503(client: httpx.Client, proxy: Proxy, fault: Fault, operation: str) -> None:
    proxy.script = itertools.repeat(fault)
    response = send(client, operation)
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("operation", REQUESTS)
@pytest.mark.parametrize("fault", LASTING, ids=repr)
def test_a_permanent_failure_is_a_500_without_another_attempt(
    client: httpx.Client, proxy: Proxy, fault: Fault, operation: str
) -> None:
    proxy.script = itertools.repeat(fault)
    response = send(client, operation)
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})
    assert proxy.asked == 1


# ---- attempts

REPEATED = [
    fault
    for fault in PASSING
    if (fault.status in (0, 500, 503) or (fault.status == 200 and fault.done)) and not fault.stalls
]
"""The faults after which boto3 repeats the request, except for those that take time."""


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
    [([Fault("slow", delay=1)], 201, 1), ([PASSING[0]] * 2, 201, 3), ([PASSING[0]] * 3, 503, 3)],
)
def test_the_functions_make_three_attempts(
    client: httpx.Client, proxy: Proxy, script: list[Fault], status: int, asked: int
) -> None:
    proxy.script = iter(script)
    assert send(client, "PutItem").status_code == status
    assert proxy.asked == asked


def test_all_attempts_together_end_within_the_timeout() -> None:
    config = vars(store.client.meta.config)
    attempts = config["retries"]["total_max_attempts"]
    assert config["retries"]["mode"] == "standard"
    # botocore waits 1 and 2 seconds at the most, and 5 more each time if DynamoDB asks for them.
    waits = sum(2**attempt + 5 for attempt in range(attempts - 1))
    timeout = TEMPLATE.Globals["Function"]["Timeout"]
    assert isinstance(timeout, int)
    assert attempts * (config["connect_timeout"] + config["read_timeout"]) + waits < timeout < 30


def test_a_list_of_many_partitions_reuses_its_connections(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level("WARNING", "urllib3.connectionpool"),
        anew.gateway(DynamoDBEndpoint=proxy.url, StatusShards="16") as gateway,
    ):
        # Before every incident, so that no partition is asked a second time, whatever other tests have stored.
        assert Client(gateway).get("/incidents?until=2000-01-01T00:00:00Z").get_json() == []
    assert proxy.asked == 16 * len(Status)
    assert caplog.messages == [], "more threads than the pool has connections"


# ---- clients that retry

# Not those that take time: boto3 waits until a stall times out, and up to a second after throttling.
QUICK = [fault for fault in PASSING if not fault.stalls and not fault.throttles]
SPLICES = st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=3))
DAMAGED = SPLICES.map(lambda splice: Fault(f"damaged {splice}", done=True, status=200, damage=splice))
SCRIPTS = st.lists(st.none() | st.sampled_from(QUICK) | DAMAGED, max_size=8)


def until_answered(client: httpx.Client, method: str, path: str, lost: list[bool], **request: object) -> httpx.Response:
    """Send a request and retry it, as the README says, after a 503 and after a response that is lost."""
    for is_lost in [*lost, *[False] * 20]:
        response = client.request(method, path, **request)  # type: ignore[arg-type]
        if response.status_code != 503 and not is_lost:
            return response
    raise AssertionError("503 even after the last fault")


@given(script=SCRIPTS, lost=st.lists(st.booleans(), max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_retries_make_one_incident_and_one_change(
    client: httpx.Client, proxy: Proxy, script: list[Fault | None], lost: list[bool]
) -> None:
    """Whatever fails between the function and DynamoDB, and whichever responses do not reach the client."""
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


# ---- races between functions in separate processes, as on Lambda


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False])
def test_the_history_has_each_of_100_racing_changes(client: httpx.Client, proxy: Proxy, *, guarded: bool) -> None:
    path = client.post("/incidents", json=NEW).headers["Location"]
    dice = random.Random(guarded)  # noqa: S311
    proxy.script = iter([dice.choice(QUICK) if dice.random() < 0.3 else None for _ in range(300)])
    statuses = ["in_progress", "resolved", "closed", "open"] * 25
    with running(4, proxy.url) as processes:
        answers = list(processes.map(change_until_answered, [(path, status, guarded) for status in statuses]))
    proxy.script = iter(())
    stored, entries = client.get(path).json(), client.get(f"{path}/history").json()
    assert [entry["version"] for entry in entries] == [*range(1, len(entries) + 1)]
    last = entries[-1]
    assert (last["version"], last["status"], last["at"]) == (stored["version"], stored["status"], stored["updated_at"])
    assert all(entry["status"] != following["status"] for entry, following in itertools.pairwise(entries))
    # Each response names a version with the requested status: the client's own change, or an equal one before it.
    assert [entries[version - 1]["status"] for _, version in answers] == statuses
    assert {entry["version"] for entry in entries[1:]} >= {version for _, version in answers if version > 1}
