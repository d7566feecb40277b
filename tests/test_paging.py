"""A list, page by page, against a plain list in memory: whatever happens meanwhile, however the index is cut up."""

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations, product
from typing import ClassVar

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pydantic import JsonValue
from types_boto3_dynamodb import DynamoDBClient

import incident
import store
from incident import Status
from infra.local import template
from tests.steps import follow, report

Incident = dict[str, str]


class Clock:
    """The time that incidents are given: it stands still until it is told otherwise, or goes on by a step for each."""

    def __init__(self) -> None:
        self.milliseconds = 0
        self.step = 0

    def now(self) -> str:
        self.milliseconds += self.step
        return self.at(self.milliseconds)

    @staticmethod
    def at(milliseconds: int) -> str:
        return f"2025-11-08T10:00:{milliseconds // 1000:02}.{milliseconds % 1000:03}Z"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(incident, "now", clock.now)
    return clock


@pytest.fixture
def set_shards(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the number of shards; it is one again afterwards."""
    return lambda number: monkeypatch.setattr(store, "SHARDS", number)


def in_order(incidents: Iterable[Incident]) -> list[Incident]:
    return sorted(incidents, key=lambda each: (each["created_at"], each["id"]), reverse=True)


def fill(api: httpx.Client, statuses: Iterable[Status], description: str = "x") -> list[Incident]:
    """Report an incident of each status; return them as a list shows them."""
    return in_order([report(api, description, status=status) for status in statuses])


def listed(api: httpx.Client) -> list[Incident]:
    """All incidents, page by page."""
    return [each for page in follow(api, "/incidents?limit=100") for each in page]


@contextmanager
def listening(event: str, handler: Callable[..., None]) -> Iterator[None]:
    """Have botocore call this handler at its event for a Query."""
    store.client.meta.events.register(f"{event}.dynamodb.Query", handler)
    yield
    store.client.meta.events.unregister(f"{event}.dynamodb.Query", handler)


@contextmanager
def cut_short(seed: int) -> Iterator[None]:
    """DynamoDB at its most uneven: a page now and then holds less than was asked for, or nothing, and says there is more.

    DynamoDB does so at 1 MB. Here the Limit is lowered on its way out, so that the page and its LastEvaluatedKey are real;
    an empty page is made by taking the items out of the answer.
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
    """Any sequence of creates, status changes, lists and raised shard counts."""

    api: ClassVar[httpx.Client]
    clock: ClassVar[Clock]
    set_shards: ClassVar[Callable[[int], None]]
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
        type(self).set_shards(self._shards)

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
        """After the first page, an incident is created and another may change; what does not change is seen once."""
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
        assert listed(self.api) == in_order(self._model)


@pytest.mark.hypothesis
def test_lists_are_those_of_a_plain_list(
    api: httpx.Client, dynamodb: DynamoDBClient, clock: Clock, set_shards: Callable[[int], None]
) -> None:
    Lists.api, Lists.dynamodb, Lists.clock, Lists.set_shards = api, dynamodb, clock, staticmethod(set_shards)
    run_state_machine_as_test(
        Lists, settings=settings(max_examples=settings().max_examples // 4, stateful_step_count=12)
    )


@pytest.mark.parametrize("limits", [(5, 23, 24, 25, 100), pytest.param((1, 2, 3, 11, 22), marks=pytest.mark.slow)])
def test_links_lead_to_every_incident_of_every_filter_once(api: httpx.Client, limits: Iterable[int]) -> None:
    stored = fill(api, [*Status] * 6)
    filters = [chosen for size in range(1, 5) for chosen in combinations(Status, size)]
    for limit, statuses in product(limits, filters):
        pages = list(follow(api, f"/incidents?status={','.join(statuses)}&limit={limit}"))
        assert [each for page in pages for each in page] == [each for each in stored if each["status"] in statuses]
        assert {len(page) for page in pages[:-1]} <= {limit}
        assert 0 < len(pages[-1]) <= limit


@pytest.mark.parametrize("number", [240, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("clock")
def test_incidents_of_one_millisecond_are_all_listed(api: httpx.Client, number: int) -> None:
    stored = fill(api, [*Status] * (number // 4))
    assert len({each["created_at"] for each in stored}) == 1
    assert listed(api) == stored


def test_a_page_larger_than_dynamodb_gives_at_once_is_whole(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    stored = fill(api, [Status.OPEN] * 60, "🛴" * 10_000)
    dynamodb_calls.clear()
    response = api.get("/incidents?status=open&limit=59")
    assert response.json() == stored[:59]
    assert len(response.content) > 2 * 1024 * 1024
    # 25 of these items make 1 MB.
    assert dynamodb_calls == ["Query"] * 3
    assert [len(page) for page in follow(api, "/incidents?limit=59")] == [59, 1]


@pytest.mark.parametrize(("newer", "asked"), [(40, 3), (27, 2), (26, 3)])
def test_a_partition_cut_short_is_asked_again_only_if_needed(
    api: httpx.Client, dynamodb_calls: list[str], newer: int, asked: int
) -> None:
    # Of these moto gives 24 at once, less than their part of the page. Whether that is enough depends on the newer ones: a
    # page of 50 is asked for with one more, which tells whether another page follows.
    fill(api, [Status.CLOSED] * 30, "🛴" * 10_000)
    fill(api, [Status.OPEN] * newer)
    dynamodb_calls.clear()
    page = api.get("/incidents?status=open,closed&limit=50").json()
    assert [each["status"] for each in page] == ["open"] * newer + ["closed"] * (50 - newer)
    assert dynamodb_calls == ["Query"] * asked


EVEN = [*Status] * 25
UNEVEN = [Status.CLOSED] * 100


@pytest.mark.parametrize(
    ("shards", "stored", "rounds", "threads"),
    [(1, EVEN, 1, {1}), (1, UNEVEN, 2, {1}), (16, EVEN, 2, {2, 3, 4, 5}), (16, UNEVEN, 2, {2, 3, 4, 5})],
)
def test_a_list_asks_each_partition_for_its_share(
    api: httpx.Client,
    clock: Clock,
    set_shards: Callable[[int], None],
    shards: int,
    stored: list[Status],
    rounds: int,
    threads: set[int],
) -> None:
    """A second round only where the statuses are uneven. Each thread has a connection, which loads all root certificates."""
    clock.step = 1  # in one millisecond the order would be that of the ids, and the statuses unevenly spread
    set_shards(shards)
    newest = fill(api, stored)[:50]
    asked: Counter[str] = Counter()
    asking = set()
    read = []

    def ask(params: dict[str, JsonValue], **_: object) -> None:
        (partition,) = re.findall(r"'(\w+#\d+)'", str(params["ExpressionAttributeValues"]))
        asked[partition] += 1
        asking.add(threading.get_ident())

    def answer(parsed: dict[str, int], **_: object) -> None:
        read.append(parsed["Count"])

    with listening("before-parameter-build", ask), listening("after-call", answer):
        assert api.get("/incidents").json() == newest
    assert len(asked) == len(Status) * shards
    assert max(asked.values()) <= rounds
    assert len(asking) in threads  # a second round of few runs in the thread that answers
    assert sum(read) < (1.5 if shards == 1 else 4) * len(newest)
