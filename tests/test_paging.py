"""Lists, page by page, compared with a plain list in memory."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations, product
from typing import ClassVar

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from types_boto3_dynamodb import DynamoDBClient

import incident
import store
from incident import Status
from infra.local import template
from tests.steps import follow, report

Incident = dict[str, str]


class Clock:
    """When incidents are created, in milliseconds since 10:00. It stands still unless a test advances it."""

    def __init__(self) -> None:
        self.milliseconds = 0

    def now(self) -> str:
        return self.at(self.milliseconds)

    @staticmethod
    def at(milliseconds: int) -> str:
        return f"2025-11-08T10:00:{milliseconds // 1000:02}.{milliseconds % 1000:03}Z"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(incident, "now", clock.now)
    return clock


def in_order(incidents: Iterable[Incident]) -> list[Incident]:
    return sorted(incidents, key=lambda each: (each["created_at"], each["id"]), reverse=True)


def fill(api: httpx.Client, statuses: Iterable[Status], description: str = "x") -> list[Incident]:
    """Report an incident with each status; return them in the order of a list."""
    return in_order([report(api, description, status=status) for status in statuses])


@contextmanager
def listening(event: str, handler: Callable[..., None]) -> Iterator[None]:
    """Call the handler on this event of botocore for each Query."""
    store.client.meta.events.register(f"{event}.dynamodb.Query", handler)
    yield
    store.client.meta.events.unregister(f"{event}.dynamodb.Query", handler)


@contextmanager
def cut_short(seed: int) -> Iterator[None]:
    """Make queries return fewer items than requested, or none, with a LastEvaluatedKey, as DynamoDB does at 1 MB.

    The request's Limit is lowered, so a short page and its key are real. An empty page is a real one with its items removed.
    """
    start = {"id": {"S": "the start"}, "position": {"S": "before every incident"}}
    dice = random.Random(seed)  # noqa: S311

    def lower(params: dict[str, object], context: dict[str, object], **_: object) -> None:
        context["from"] = params.get("ExclusiveStartKey", start)
        if context["from"] == start:
            params.pop("ExclusiveStartKey", None)
        params["Limit"] = dice.randint(1, int(str(params["Limit"])))

    def empty(parsed: dict[str, object], context: dict[str, object], **_: object) -> None:
        if dice.random() < 0.2:
            parsed |= {"Items": [], "Count": 0, "LastEvaluatedKey": context["from"]}

    with listening("before-parameter-build", lower), listening("after-call", empty):
        yield


class Lists(RuleBasedStateMachine):
    """Any sequence of creates, changes and lists, with a growing number of shards."""

    api: ClassVar[httpx.Client]
    clock: ClassVar[Clock]
    monkeypatch: ClassVar[pytest.MonkeyPatch]
    dynamodb: ClassVar[DynamoDBClient]

    def __init__(self) -> None:
        super().__init__()
        self._model: list[Incident] = []

    @initialize(shards=st.integers(1, 3))
    def an_empty_table(self, shards: int) -> None:
        for each in self.dynamodb.scan(TableName=template.TABLE)["Items"]:
            self.dynamodb.delete_item(TableName=template.TABLE, Key={"id": each["id"]})
        self._shards = shards
        self.raise_the_shards()

    @rule(status=st.sampled_from(Status), times=st.integers(1, 8), later=st.booleans())
    def create(self, status: Status, times: int, later: bool) -> None:  # noqa: FBT001
        self.clock.milliseconds += later
        self._model += fill(self.api, [status] * times)

    @rule(status=st.none() | st.sampled_from(Status), which=st.integers(0))
    def change(self, status: Status | None, which: int) -> None:
        if self._model:
            which %= len(self._model)
            change = {"comment": "x"} | ({"status": status} if status else {})
            self._model[which] = self.api.patch(f"/incidents/{self._model[which]['id']}", json=change).json()

    @rule()
    def raise_the_shards(self) -> None:
        self._shards += 1
        self.monkeypatch.setattr(store, "SHARDS", self._shards)

    @rule(
        statuses=st.lists(st.sampled_from(Status), min_size=1, unique=True),
        limit=st.integers(1, 12),
        seed=st.integers(),
        changed_to=st.none() | st.sampled_from(Status),
        since=st.just("") | st.integers(0, 9).map(Clock.at),
        until=st.just("") | st.integers(0, 9).map(Clock.at),
    )
    def list_page_by_page(
        self, statuses: list[Status], limit: int, seed: int, changed_to: Status | None, since: str, until: str
    ) -> None:
        """After the first page, an incident is created and another may change; unchanged ones are listed once."""
        if until:
            since, until = sorted((since, until))
        seen: list[Incident] = []
        expected = [
            each
            for each in in_order(self._model)
            if each["status"] in statuses and since <= each["created_at"] and (each["created_at"] < until or not until)
        ]
        bounds = "".join(f"&{name}={bound}" for name, bound in (("since", since), ("until", until)) if bound)
        changed = None
        with cut_short(seed):
            for page in follow(self.api, f"/incidents?status={','.join(statuses)}&limit={limit}{bounds}"):
                assert page == in_order(page)
                assert len(page) <= limit
                seen += page
                if changed_to and changed is None and self._model:
                    self.clock.milliseconds += 1
                    changed = len(seen) % len(self._model)
                    self.create(statuses[0], 1, later=False)
                    self.change(changed_to, changed)
        unchanged = [each for each in expected if each in self._model]
        assert [each for each in seen if each in unchanged] == unchanged

    @invariant()
    def everything_is_listed(self) -> None:
        listed = [each for page in follow(self.api, "/incidents?limit=100") for each in page]
        assert listed == in_order(self._model)


@pytest.mark.hypothesis
def test_a_list_equals_a_plain_list_in_memory(
    api: httpx.Client, dynamodb: DynamoDBClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lists.api, Lists.dynamodb, Lists.clock, Lists.monkeypatch = api, dynamodb, clock, monkeypatch
    run_state_machine_as_test(
        Lists, settings=settings(max_examples=settings().max_examples // 4, stateful_step_count=12)
    )


@pytest.mark.usefixtures("clock")
def test_links_lead_to_every_incident_of_every_filter_once(api: httpx.Client) -> None:
    stored = fill(api, [*Status] * 6)
    assert len({each["created_at"] for each in stored}) == 1
    filters = [chosen for size in range(1, 5) for chosen in combinations(Status, size)]
    for limit, statuses in product([5, 23, 24, 25], filters):
        pages = list(follow(api, f"/incidents?status={','.join(statuses)}&limit={limit}"))
        assert [each for page in pages for each in page] == [each for each in stored if each["status"] in statuses]
        assert {len(page) for page in pages[:-1]} <= {limit}
        assert 0 < len(pages[-1]) <= limit


@pytest.mark.parametrize(("newer", "queries"), [(40, 3), (27, 2), (26, 3)])
def test_a_partition_cut_short_is_queried_again_only_if_needed(
    api: httpx.Client, dynamodb_calls: list[str], newer: int, queries: int
) -> None:
    # A query returns at most 1 MB: 24 of these items, fewer than the partition's share of the page. Whether they suffice
    # depends on the newer incidents. The store asks for 51, one more than the page has.
    fill(api, [Status.CLOSED] * 30, "🛴" * 10_000)
    fill(api, [Status.OPEN] * newer)
    dynamodb_calls.clear()
    page = api.get("/incidents?status=open,closed&limit=50").json()
    assert [each["status"] for each in page] == ["open"] * newer + ["closed"] * (50 - newer)
    assert dynamodb_calls == ["Query"] * queries
