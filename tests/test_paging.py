"""Lists, page by page, compared with a plain list in memory."""

import random
from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import combinations, product
from typing import Unpack
from unittest import mock

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from types_boto3_dynamodb import DynamoDBClient
from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryInputTypeDef

import incident
import store
from incident import Status
from infra.local.template import TABLE
from tests.steps import follow, report

Incident = dict[str, str]


def at(milliseconds: int) -> str:
    return f"2025-11-08T10:00:00.{milliseconds:03}Z"


def in_order(incidents: Iterable[Incident]) -> list[Incident]:
    return sorted(incidents, key=lambda each: (each["created_at"], each["id"]), reverse=True)


def fill(api: httpx.Client, statuses: Iterable[Status], time: str, description: str = "x") -> list[Incident]:
    """Report an incident with each status, all at this time; return them in the order of a list."""
    with mock.patch.object(incident, "now", return_value=time):
        return in_order([report(api, description, status=status) for status in statuses])


def change(api: httpx.Client, incidents: list[Incident], number: int, status: Status | None) -> None:
    number %= len(incidents)
    change = {"comment": "x"} | ({"status": status} if status else {})
    incidents[number] = api.patch(f"/incidents/{incidents[number]['id']}", json=change).json()


def cut_short(seed: int) -> AbstractContextManager[object]:
    """Make queries return fewer items than requested, or none, with a LastEvaluatedKey, as DynamoDB does at 1 MB."""
    start: dict[str, AttributeValueTypeDef] = {"id": {"S": "the start"}, "position": {"S": "before every incident"}}
    dice = random.Random(seed)  # noqa: S311
    query = store.client.query

    def shorter(**request: Unpack[QueryInputTypeDef]) -> object:
        key = request.pop("ExclusiveStartKey", start)
        if dice.random() < 0.2:
            return {"Items": [], "LastEvaluatedKey": key}
        request["Limit"] = dice.randint(1, request["Limit"])
        if key != start:
            request["ExclusiveStartKey"] = key
        return query(**request)

    return mock.patch.object(store.client, "query", shorter)


STATUSES = st.sampled_from(Status)


@given(
    shards=st.integers(1, 3),
    groups=st.lists(st.tuples(STATUSES, st.integers(1, 8), st.integers(0, 6)), max_size=5),
    changes=st.lists(st.tuples(st.integers(0, 40), STATUSES | st.none()), max_size=5),
    statuses=st.lists(STATUSES, min_size=1, unique=True),
    limit=st.integers(1, 12),
    bounds=st.fixed_dictionaries({}, optional={"since": st.integers(0, 3).map(at), "until": st.integers(3, 7).map(at)}),
    changed_to=st.none() | STATUSES,
    seed=st.integers(),
)
@settings(max_examples=settings().max_examples // 2, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_list_equals_a_plain_list_in_memory(
    api: httpx.Client,
    dynamodb: DynamoDBClient,
    monkeypatch: pytest.MonkeyPatch,
    shards: int,
    groups: list[tuple[Status, int, int]],
    changes: list[tuple[int, Status | None]],
    statuses: list[Status],
    limit: int,
    bounds: dict[str, str],
    changed_to: Status | None,
    seed: int,
) -> None:
    """After some reports, there is another shard. After the first page, there are another report and another change."""
    for each in dynamodb.scan(TableName=TABLE)["Items"]:
        dynamodb.delete_item(TableName=TABLE, Key={"id": each["id"]})
    monkeypatch.setattr(store, "SHARDS", shards)
    model = [each for status, size, time in groups for each in fill(api, [status] * size, at(time))]
    monkeypatch.setattr(store, "SHARDS", shards + 1)
    model += fill(api, Status, at(3))
    for number, status in changes:
        change(api, model, number, status)
    expected = [
        each
        for each in in_order(model)
        if each["status"] in statuses and bounds.get("since", "") <= each["created_at"] < bounds.get("until", "A")
    ]
    url = httpx.URL("/incidents", params={"status": ",".join(statuses), "limit": limit} | bounds)
    seen: list[Incident] = []
    with cut_short(seed):
        for number, page in enumerate(follow(api, str(url))):
            assert page == in_order(page)
            assert len(page) <= limit
            seen += page
            if number == 0 and changed_to:
                model += fill(api, statuses[:1], at(7))
                change(api, model, len(seen), changed_to)
    unchanged = [each for each in expected if each in model]
    assert [each for each in seen if each in unchanged] == unchanged
    listed = [each for page in follow(api, "/incidents?limit=100") for each in page]
    assert listed == in_order(model)


def test_links_lead_to_every_incident_of_every_filter_once(api: httpx.Client) -> None:
    stored = fill(api, [*Status] * 6, at(0))
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
    fill(api, [Status.CLOSED] * 30, at(0), "🛴" * 10_000)
    fill(api, [Status.OPEN] * newer, at(1))
    dynamodb_calls.clear()
    page = api.get("/incidents?status=open,closed&limit=50").json()
    assert [each["status"] for each in page] == ["open"] * newer + ["closed"] * (50 - newer)
    assert dynamodb_calls == ["Query"] * queries
