"""A list, page by page, against a plain list in memory: whatever happens meanwhile, however the index is cut up."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import ClassVar, NamedTuple

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from types_boto3_dynamodb import DynamoDBClient
from types_boto3_dynamodb.type_defs import QueryOutputTypeDef

import incident
import store
from incident import Change, Incident, NewIncident, Source, Status
from tests.steps import follow

Load = Callable[[list[Status]], list[Incident]]
STATUSES = st.lists(st.sampled_from(Status), min_size=1, unique=True)


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
def shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of shards may be changed; it is one again afterwards."""
    monkeypatch.setattr(store, "SHARDS", 1)


def create(description: str = "x", status: Status = Status.OPEN) -> Incident:
    new = NewIncident(description=description, source=Source.OPERATOR, status=status)
    return store.add(Incident.report(new, id=incident.new_id()), None)


def in_order(incidents: list[Incident]) -> list[Incident]:
    return sorted(incidents, key=lambda each: (each.created_at, each.id), reverse=True)


@pytest.fixture
def load(dynamodb: DynamoDBClient, table: str) -> "Load":
    """Record an incident of each status, many at once; return them as a list shows them."""

    def load(statuses: list[Status]) -> list[Incident]:
        new = [NewIncident(description="x", source=Source.OPERATOR, status=status) for status in statuses]
        incidents = [Incident.report(each, id=incident.new_id()) for each in new]
        for start in range(0, len(incidents), 25):
            items = [store.item(each, None) for each in incidents[start : start + 25]]
            dynamodb.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": item}} for item in items]})
        return in_order(incidents)

    return load


class CutShort:
    """DynamoDB at its most uneven: a page now and then holds less than was asked for, or nothing, and says there is more.

    DynamoDB does so at 1 MB. Here the Limit is lowered on its way out, so that the page and its LastEvaluatedKey are real;
    an empty page is made by taking the items out of the answer.
    """

    def __init__(self, seed: int) -> None:
        self._start = {"id": {"S": "the start"}, "position": {"S": "before every incident"}}
        self._random = random.Random(seed)  # noqa: S311
        self._events = store.client.meta.events

    def __enter__(self) -> None:
        self._events.register("before-parameter-build.dynamodb.Query", self._lower)
        self._events.register("after-call.dynamodb.Query", self._empty)

    def __exit__(self, *_: object) -> None:
        self._events.unregister("before-parameter-build.dynamodb.Query", self._lower)
        self._events.unregister("after-call.dynamodb.Query", self._empty)

    def _lower(self, params: dict[str, object], context: dict[str, object], **_: object) -> None:
        context["from"] = params.get("ExclusiveStartKey", self._start)
        if context["from"] == self._start:
            params.pop("ExclusiveStartKey", None)
        params["Limit"] = self._random.randint(1, int(str(params["Limit"])))

    def _empty(self, parsed: dict[str, object], context: dict[str, object], **_: object) -> None:
        if self._random.random() < 0.2:
            parsed |= {"Items": [], "Count": 0, "LastEvaluatedKey": context["from"]}


class Query(NamedTuple):
    """What was asked of DynamoDB, and how much it answered."""

    partition: str
    items: int
    thread: int


@contextmanager
def queries() -> Iterator[list[Query]]:
    """The queries that are made meanwhile."""
    made: list[Query] = []

    def asked(params: dict[str, dict[str, object]], context: dict[str, str], **_: object) -> None:
        context["partition"] = str(params["ExpressionAttributeValues"][":shard"])

    def answered(parsed: QueryOutputTypeDef, context: dict[str, str], **_: object) -> None:
        made.append(Query(context["partition"], parsed["Count"], threading.get_ident()))

    events = store.client.meta.events
    events.register("before-parameter-build.dynamodb.Query", asked)
    events.register("after-call.dynamodb.Query", answered)
    yield made
    events.unregister("before-parameter-build.dynamodb.Query", asked)
    events.unregister("after-call.dynamodb.Query", answered)


class Lists(RuleBasedStateMachine):
    """Any sequence of creates, status changes, lists and raised shard counts."""

    clock: ClassVar[Clock]

    def __init__(self) -> None:
        super().__init__()
        self._model: list[Incident] = []

    @initialize(shards=st.integers(1, 3))
    def an_empty_table(self, shards: int) -> None:
        for each in store.newest(list(Status), 10_000):
            store.client.delete_item(TableName=store.TABLE, Key={"id": {"S": each.id}})
        store.SHARDS = shards

    @rule(status=st.sampled_from(Status), times=st.integers(1, 8), later=st.booleans())
    def create(self, status: Status, times: int, later: bool) -> None:  # noqa: FBT001
        self.clock.milliseconds += later
        self._model += [create(status=status) for _ in range(times)]

    @rule(status=st.sampled_from(Status), which=st.integers(0))
    def change(self, status: Status, which: int) -> None:
        if self._model:
            which %= len(self._model)
            self._model[which], _ = store.change(self._model[which].id, Change(status=status), "somebody")
            changed = self._model[which]
            last = store.get_with_history(changed.id)[1][-1]
            assert (last.version, last.status, last.at) == (changed.version, changed.status, changed.updated_at)
            assert len(store.get_with_history(changed.id)[1]) == changed.version

    @rule()
    def raise_the_shards(self) -> None:
        store.SHARDS += 1

    @rule(
        statuses=STATUSES,
        limit=st.integers(1, 12),
        seed=st.integers(),
        change=st.none() | st.sampled_from(Status),
        since=st.just("") | st.integers(0, 9).map(Clock.at),
        until=st.just("") | st.integers(0, 9).map(Clock.at),
    )
    def list_page_by_page(
        self, statuses: list[Status], limit: int, seed: int, change: Status | None, since: str, until: str
    ) -> None:
        """Between the pages, incidents are created and one may change; what stands unchanged is seen once."""
        before = until
        seen: list[Incident] = []
        expected = [
            each
            for each in in_order(self._model)
            if each.status in statuses and since <= each.created_at and (each.created_at < until or not until)
        ]
        with CutShort(seed):
            while page := store.newest(statuses, limit, before, since):
                assert page == in_order(page)
                assert len(page) <= limit
                seen += page
                assert len(seen) <= len(self._model)
                before = page[-1].position
                if change:
                    self.clock.milliseconds += 1
                    self._model.append(create(status=statuses[0]))
                    changed = self._model[len(seen) % len(expected)]
                    expected = [each for each in expected if each.id != changed.id]
                    seen = [each for each in seen if each.id != changed.id]
                    self._model[self._model.index(changed)], _ = store.change(changed.id, Change(status=change), None)
                    change = None
        unchanged = {each.id for each in expected}
        assert [each for each in seen if each.id in unchanged] == expected

    @invariant()
    def everything_is_listed(self) -> None:
        assert store.newest(list(Status), len(self._model) + 1) == in_order(self._model)


@pytest.mark.hypothesis
@pytest.mark.usefixtures("table", "shards")
def test_lists_are_those_of_a_plain_list(clock: Clock) -> None:
    Lists.clock = clock
    run_state_machine_as_test(
        Lists, settings=settings(max_examples=settings().max_examples // 4, stateful_step_count=12)
    )


@pytest.mark.parametrize("limits", [(1, 5, 12, 23, 24, 25, 100), pytest.param(range(2, 23), marks=pytest.mark.slow)])
def test_links_lead_to_every_incident_once_at_every_limit(api: httpx.Client, load: Load, limits: Iterable[int]) -> None:
    stored = load([Status.OPEN] * 24)
    for limit in limits:
        pages = list(follow(api, f"/incidents?status=open&limit={limit}"))
        assert [each["id"] for page in pages for each in page] == [each.id for each in stored]
        assert {len(page) for page in pages[:-1]} <= {limit}
        assert 0 < len(pages[-1]) <= limit


@pytest.mark.parametrize("limit", [pytest.param(1, marks=pytest.mark.slow), 3, 100])
def test_links_lead_to_every_incident_of_every_filter_once(api: httpx.Client, load: Load, limit: int) -> None:
    stored = load([*Status] * 3)
    for statuses in (chosen for size in range(1, 5) for chosen in combinations(Status, size)):
        wanted = [each.id for each in stored if each.status in statuses]
        pages = follow(api, f"/incidents?status={','.join(statuses)}&limit={limit}")
        assert [each["id"] for page in pages for each in page] == wanted


@pytest.mark.parametrize("number", [240, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("clock")
def test_incidents_of_one_millisecond_are_all_listed(api: httpx.Client, load: Load, number: int) -> None:
    stored = load([*Status] * (number // 4))
    assert len({each.created_at for each in stored}) == 1
    listed = [each["id"] for page in follow(api, "/incidents?limit=100") for each in page]
    assert listed == [each.id for each in stored]


@pytest.mark.usefixtures("shards")
def test_raising_the_shards_loses_nothing(api: httpx.Client) -> None:
    stored = []
    for store.SHARDS in (1, 2, 7):
        stored += [create(status=status) for _ in range(3) for status in Status]
    listed = [each["id"] for page in follow(api, "/incidents?limit=5") for each in page]
    assert listed == [each.id for each in in_order(stored)]
    for each in stored:
        api.patch(f"/incidents/{each.id}", json={"status": "closed"})
    listed = [each["id"] for page in follow(api, "/incidents?status=closed") for each in page]
    assert listed == [each.id for each in in_order(stored)]


def test_a_page_larger_than_dynamodb_gives_at_once_is_whole(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    stored = in_order([create("🛴" * 10_000) for _ in range(60)])
    dynamodb_calls.clear()
    response = api.get("/incidents?status=open&limit=59")
    assert [each["id"] for each in response.json()] == [each.id for each in stored[:59]]
    assert len(response.content) > 2 * 1024 * 1024
    # 25 of these items make 1 MB.
    assert dynamodb_calls == ["Query"] * 3
    assert [len(page) for page in follow(api, "/incidents?limit=59")] == [59, 1]


@pytest.mark.parametrize(("newer", "asked"), [(40, 3), (27, 2), (26, 3)])
def test_a_partition_cut_short_is_asked_again_only_if_it_is_needed(
    api: httpx.Client, dynamodb_calls: list[str], newer: int, asked: int
) -> None:
    # Of these moto gives 24 at once, less than their part of the page. Whether that is enough depends on the newer ones: a
    # page of 50 is asked for with one more, which tells whether another page follows.
    for _ in range(30):
        create("🛴" * 10_000, Status.CLOSED)
    for _ in range(newer):
        create(status=Status.OPEN)
    dynamodb_calls.clear()
    listed = api.get("/incidents?status=open,closed&limit=50").json()
    assert [each["status"] for each in listed] == ["open"] * newer + ["closed"] * (50 - newer)
    assert dynamodb_calls == ["Query"] * asked


def test_a_list_asks_each_partition_for_its_part_of_the_page(api: httpx.Client, load: Load, clock: Clock) -> None:
    clock.step = 1  # in one millisecond the order would be that of the ids, and the statuses unevenly spread
    stored = load([*Status] * 50)
    with queries() as asked:
        listed = api.get("/incidents").json()
    assert [each["id"] for each in listed] == [each.id for each in stored[:50]]
    assert len(asked) == len(Status)
    assert sum(query.items for query in asked) < 1.5 * len(listed)


@pytest.mark.parametrize("number", [1, 16])
@pytest.mark.usefixtures("shards")
def test_a_list_of_one_status_alone_takes_one_round_more(api: httpx.Client, load: Load, number: int) -> None:
    store.SHARDS = number
    stored = load([Status.CLOSED] * 200)
    with queries() as asked:
        listed = api.get("/incidents").json()
    assert [each["id"] for each in listed] == [each.id for each in stored[:50]]
    assert len(asked) > len(Status) * number
    assert max(Counter(query.partition for query in asked).values()) == 2


@pytest.mark.parametrize(("number", "threads"), [(1, {1}), (16, {2, 3, 4, 5})])
@pytest.mark.usefixtures("shards")
def test_few_queries_take_turns_and_many_are_made_four_at_a_time(
    api: httpx.Client, load: Load, number: int, threads: set[int]
) -> None:
    """Every thread has a connection of its own, and each connection loads all root certificates.

    A second round of few queries runs in the thread that answers, beside the four.
    """
    store.SHARDS = number
    load([*Status] * 50)
    with queries() as asked:
        assert len(api.get("/incidents?status=open,in_progress,resolved,closed").json()) == 50
    assert len({query.thread for query in asked}) in threads
