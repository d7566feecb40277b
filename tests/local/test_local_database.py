"""The local run's database over HTTP, compared with moto's DynamoDB."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from infra.local.database import Database
from tests.conftest import TEMPLATE

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryInputTypeDef

    Item = dict[str, AttributeValueTypeDef]

TABLE = TEMPLATE.table()["TableName"]
PARTITIONS = ["open#0", "closed#0"]
POSITIONS = [f"2026-11-24T10:00:00.00{number}Z" for number in range(6)]


def key(number: int) -> "Item":
    return {"id": {"S": str(UUID(int=number))}}


def item(number: int, partition: str = "open#0") -> "Item":
    place: Item = {"status_shard": {"S": partition}, "position": {"S": POSITIONS[number]}}
    return {**key(number), **place, "incident": {"M": {"description": {"S": f"я{number}"}}}, "history": {"L": []}}


def query(partition: str = "open#0", first: str = "0", last: str = "A", limit: int = 6) -> "QueryInputTypeDef":
    """A Query as the store sends it."""
    return store._query(partition, first, last, limit)


@pytest.fixture
def local(database: str) -> "Iterator[DynamoDBClient]":
    """A client of the local run's database, which is empty before and after."""
    client = boto3.client("dynamodb", endpoint_url=database)
    _empty(client)
    yield client
    _empty(client)  # other tests' API cannot read these items


def _empty(client: "DynamoDBClient") -> None:
    for found in client.scan(TableName=TABLE)["Items"]:
        client.delete_item(TableName=TABLE, Key={"id": found["id"]})


def pages(client: "DynamoDBClient", request: "QueryInputTypeDef") -> "list[list[Item]]":
    """The pages of a Query that have items."""
    found = client.get_paginator("query").paginate(**request)  # type: ignore[misc]  # there is no ExclusiveStartKey
    return [page["Items"] for page in found if page["Items"]]


@given(
    writes=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([*PARTITIONS, None])), max_size=12),
    bounds=st.tuples(st.sampled_from(["0", *POSITIONS]), st.sampled_from([*POSITIONS, "A"])).map(sorted),
    limit=st.integers(1, 4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_query_returns_what_moto_returns(
    dynamodb: "DynamoDBClient",
    table: str,
    local: "DynamoDBClient",
    writes: list[tuple[int, str | None]],
    bounds: list[str],
    limit: int,
) -> None:
    for client in (dynamodb, local):
        for number in range(6):
            client.delete_item(TableName=table, Key=key(number))
        for number, partition in writes:
            if partition:
                client.put_item(TableName=table, Item=item(number, partition))
            else:
                client.delete_item(TableName=table, Key=key(number))
    for partition in PARTITIONS:
        request = query(partition, bounds[0], bounds[1], limit)
        assert pages(local, request) == pages(dynamodb, request)


def test_the_index_answers_the_stores_queries(local: "DynamoDBClient") -> None:
    for number in range(6):
        local.put_item(TableName=TABLE, Item=item(number))
    # After a full page moto knows that nothing follows; the index, like DynamoDB, does not.
    assert "LastEvaluatedKey" in local.query(**query(limit=6))


def test_other_requests_are_left_to_moto(local: "DynamoDBClient") -> None:
    for number in (2, 1, 3):
        local.put_item(TableName=TABLE, Item=item(number))
    local.delete_item(TableName=TABLE, Key=key(3))
    values: Item = {":shard": {"S": "open#0"}}
    found = local.query(
        TableName=TABLE,
        IndexName="by-status",
        KeyConditionExpression="status_shard = :shard",
        ExpressionAttributeValues=values,
    )
    assert [each["id"] for each in found["Items"]] == [key(1)["id"], key(2)["id"]]
    assert local.scan(TableName=TABLE)["Count"] == 2
    assert local.get_item(TableName=TABLE, Key=key(1))["Item"] == item(1)
    assert "Item" not in local.get_item(TableName=TABLE, Key=key(3))
    batch = local.batch_get_item(RequestItems={TABLE: {"Keys": [key(1), key(2), key(3)]}})
    assert len(batch["Responses"][TABLE]) == 2
    with pytest.raises(local.exceptions.ClientError, match="not TransactGetItems"):
        local.transact_get_items(TransactItems=[{"Get": {"TableName": TABLE, "Key": key(1)}}])


def test_a_transaction_writes_all_or_nothing(local: "DynamoDBClient") -> None:
    def write(condition: str) -> None:
        delete = {"TableName": TABLE, "Key": key(2), "ConditionExpression": condition}
        put = {"TableName": TABLE, "Item": item(1)}
        local.transact_write_items(TransactItems=[{"Put": put}, {"Delete": delete}])  # type: ignore[typeddict-item]

    local.put_item(TableName=TABLE, Item=item(2))
    with pytest.raises(local.exceptions.TransactionCanceledException):
        write("attribute_not_exists(id)")
    assert local.scan(TableName=TABLE)["Items"] == [item(2)]
    local.put_item(TableName=TABLE, Item=item(2, "closed#0"))
    write("attribute_exists(id)")
    assert local.scan(TableName=TABLE)["Items"] == [item(1)]


def test_racing_writes_are_each_made(tmp_path: Path) -> None:
    database = Database(tmp_path, TEMPLATE)
    add_one = {"UpdateExpression": "ADD changes :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
    update = json.dumps({"TableName": TABLE, "Key": key(1), **add_one}).encode()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # seconds: threads take turns within a write
    with ThreadPoolExecutor(4) as threads:
        statuses = [status for status, _ in threads.map(database.answer, ["UpdateItem"] * 100, [update] * 100)]
    sys.setswitchinterval(before)
    _, answer = database.answer("GetItem", json.dumps({"TableName": TABLE, "Key": key(1)}).encode())
    database.close()
    assert (statuses, json.loads(answer)["Item"]["changes"]) == ([200] * 100, {"N": "100"})
