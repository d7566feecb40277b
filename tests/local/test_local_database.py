"""The database of the local run: the index that it keeps in order, its journal, and what moto answers for it."""

import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast
from uuid import UUID

import boto3
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.dynamodb.models import dynamo_type as moto_types

from infra.local.database import Database
from infra.local.index import Index
from infra.local.journal import Journal
from tests.conftest import ROOT, TEMPLATE, LocalRun
from tests.steps import follow, report

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from botocore.awsrequest import AWSRequest
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryInputTypeDef

    Item = dict[str, AttributeValueTypeDef]

TABLE = TEMPLATE.table()["TableName"]
PARTITIONS = ["open#0", "closed#0"]
POSITIONS = [f"2026-11-24T10:00:00.00{number}Z" for number in range(6)]


def key(number: int) -> "Item":
    return {"id": {"S": str(UUID(int=number))}}


def item(number: int, partition: str = "open#0", description: str = "x") -> "Item":
    """An item; each has a position of its own."""
    return key(number) | {
        "description": {"S": description},
        "status_shard": {"S": partition},
        "position": {"S": POSITIONS[number % 6]},
        "history": {"S": "not in the index"},
    }


def line(item: "Item") -> bytes:
    return json.dumps(item).encode() + b"\n"


# ---- the index

Request = dict[str, object]


def query(**changes: object) -> Request:
    """A Query in the form in which the store sends it."""
    return {
        "TableName": TABLE,
        "IndexName": "by-status",
        "KeyConditionExpression": "status_shard = :shard AND #position BETWEEN :first AND :last",
        "ProjectionExpression": "id, description",
        "ExpressionAttributeNames": {"#position": "position"},
        "ExpressionAttributeValues": {":shard": {"S": "open#0"}, ":first": {"S": "0"}, ":last": {"S": "A"}},
        "ScanIndexForward": False,
        "Limit": 3,
    } | changes


class Page(TypedDict, total=False):
    """What of an answer counts."""

    Items: "list[Item]"
    LastEvaluatedKey: "Item"


def of_index(index: Index, request: Request) -> Page | None:
    return cast("Page | None", index.query(json.dumps(request).encode()))


def of_dynamodb(dynamodb: "DynamoDBClient", request: Request) -> Page:
    return cast("Page", dynamodb.query(**cast("QueryInputTypeDef", request)))


def pages(ask: Callable[[Request], Page | None], request: Request) -> "Iterator[list[Item]]":
    """The items of each page, from the first to the last."""
    page = ask(request)
    while page:
        yield page["Items"]
        page = ask(request | {"ExclusiveStartKey": page["LastEvaluatedKey"]}) if "LastEvaluatedKey" in page else None


@given(
    writes=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([*PARTITIONS, None])), max_size=12),
    bounds=st.tuples(st.sampled_from(["0", *POSITIONS]), st.sampled_from([*POSITIONS, "A"])).map(sorted),
    limit=st.integers(1, 4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_index_has_what_moto_finds(
    dynamodb: "DynamoDBClient", table: str, writes: list[tuple[int, str | None]], bounds: list[str], limit: int
) -> None:
    index = Index(TEMPLATE.table())
    for number in range(6):
        dynamodb.delete_item(TableName=table, Key=key(number))
    for number, partition in writes:
        if partition:
            dynamodb.put_item(TableName=table, Item=item(number, partition))
        else:
            dynamodb.delete_item(TableName=table, Key=key(number))
        index.put(str(UUID(int=number)), line(item(number, partition) if partition else key(number)))
    for partition in PARTITIONS:
        values = {":shard": {"S": partition}, ":first": {"S": bounds[0]}, ":last": {"S": bounds[1]}}
        request = query(ExpressionAttributeValues=values, Limit=limit)
        found = [page for page in pages(lambda request: of_index(index, request), request) if page]
        assert found == [page for page in pages(lambda request: of_dynamodb(dynamodb, request), request) if page]


def test_the_index_cuts_a_page_at_1_mb_as_dynamodb_does() -> None:
    index = Index(TEMPLATE.table())
    for number in range(6):
        index.put(str(UUID(int=number)), line(item(number, description="x" * 300_000)))
    found = list(pages(lambda request: of_index(index, request), query(Limit=6)))
    assert [len(page) for page in found] == [3, 3]


@pytest.mark.usefixtures("table")
def test_the_index_answers_every_query_of_the_store(api: httpx.Client) -> None:
    index = Index(TEMPLATE.table())
    asked: list[bytes] = []

    def note(request: "AWSRequest", operation_name: str, **_: object) -> None:
        if operation_name == "Query":
            asked.append(cast("bytes", request.body))

    for _ in range(3):
        report(api)
    events = importlib.import_module("store").client.meta.events
    events.register("request-created.dynamodb", note)
    assert sum(len(page) for page in follow(api, "/incidents?limit=1")) == 3
    assert len(api.get("/incidents?status=open&since=2020-01-01T00:00:00Z").json()) == 3
    events.unregister("request-created.dynamodb", note)
    assert len(asked) > 10
    assert [body for body in asked if index.query(body) is None] == []


@pytest.mark.parametrize(
    "change",
    [
        {"TableName": "Another"},
        {"IndexName": "another"},
        {"ScanIndexForward": True},
        {"FilterExpression": "id = :first"},
        {"KeyConditionExpression": "status_shard = :shard AND #position >= :first AND :last"},
        {"KeyConditionExpression": "#position = :shard AND #position BETWEEN :first AND :last"},
        {"KeyConditionExpression": "status_shard = :shard AND begins_with(#position, :first)"},
        {"ProjectionExpression": "id, history"},
        {"ExpressionAttributeNames": {"#position": "position", "#unused": "id"}},
        {"ExpressionAttributeNames": {"#position": "id"}},
        {"ExclusiveStartKey": {"id": {"S": "1"}}},
        {"Limit": 0},
        {"Limit": None},
    ],
    ids=str,
)
def test_the_index_leaves_other_queries_to_moto(change: Request) -> None:
    index = Index(TEMPLATE.table())
    index.put(str(UUID(int=1)), line(item(1)))
    assert of_index(index, query()) is not None
    assert of_index(index, query(**change)) is None


@pytest.fixture
def database(serve: Callable[["WSGIApplication"], str], tmp_path: Path) -> Iterator[str]:
    """The address of a database without items, whatever other tests have stored in theirs."""
    database = Database(tmp_path, TEMPLATE)
    yield serve(database)
    database.close()


def test_what_the_index_does_not_answer_is_found_in_all_items(database: str) -> None:
    client = boto3.client("dynamodb", endpoint_url=database)
    for number in (2, 1, 3):
        client.put_item(TableName=TABLE, Item=item(number))
    client.delete_item(TableName=TABLE, Key=key(3))
    condition = {
        "KeyConditionExpression": "status_shard = :shard",
        "ExpressionAttributeValues": {":shard": {"S": "open#0"}},
    }
    request = cast("QueryInputTypeDef", {"TableName": TABLE, "IndexName": "by-status", **condition})
    assert [found["id"] for found in client.query(**request)["Items"]] == [key(1)["id"], key(2)["id"]]
    assert client.scan(TableName=TABLE)["Count"] == 2
    assert client.get_item(TableName=TABLE, Key=key(1))["Item"] == item(1)
    assert "Item" not in client.get_item(TableName=TABLE, Key=key(3))
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as failed:
        client.put_item(
            TableName=TABLE,
            Item=item(1, description="other"),
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert failed.value.response["Item"] == item(1)  # type: ignore[typeddict-item]  # boto3's types do not know of it
    for number in (1, 2):
        client.delete_item(TableName=TABLE, Key=key(number))
    assert client.scan(TableName=TABLE)["Count"] == 0


def test_a_full_page_has_a_key_to_go_on_from_as_dynamodb_s_has(database: str) -> None:
    """The one answer in which the index differs from moto, which looks whether anything follows."""
    client = boto3.client("dynamodb", endpoint_url=database)
    for number in range(3):
        client.put_item(TableName=TABLE, Item=item(number))
    page = of_dynamodb(client, query())
    assert [found["id"] for found in page["Items"]] == [key(number)["id"] for number in (2, 1, 0)]
    assert page["LastEvaluatedKey"] == {name: item(0)[name] for name in ("id", "status_shard", "position")}
    for number in range(3):
        client.delete_item(TableName=TABLE, Key=key(number))


def test_no_item_is_kept_in_memory_as_an_object(database: str) -> None:
    def alive() -> int:
        return sum(isinstance(each, moto_types.Item) for each in gc.get_objects())

    client = boto3.client("dynamodb", endpoint_url=database)
    before = alive()
    for number in range(5):
        client.put_item(TableName=TABLE, Item=item(number))
        client.get_item(TableName=TABLE, Key=key(number))
        client.scan(TableName=TABLE)
        client.delete_item(TableName=TABLE, Key=key(number))
    assert alive() == before


# ---- the journal


def write(folder: Path, *items: "Item") -> Path:
    """A journal of these lines; return its path."""
    path = folder / "incidents.jsonl"
    path.write_bytes(b"".join(line(each) for each in items))
    return path


def items(folder: Path) -> dict[str, bytes]:
    """What a start finds in the folder."""
    journal = Journal(folder)
    journal.close()
    return journal.items


def test_a_journal_of_mostly_outdated_lines_is_replaced_at_the_start(run_local: Callable[[], LocalRun]) -> None:
    local = run_local()
    first = report(local.client)
    for status in ("closed", "open", "resolved"):
        local.client.patch(f"/incidents/{first['id']}", json={"status": status})
    local.stop(signal.SIGKILL)
    journal = local.data / "incidents.jsonl"
    assert len(journal.read_bytes().splitlines()) == 4

    local = run_local()
    assert len(journal.read_bytes().splitlines()) == 1
    (current,) = local.client.get("/incidents").json()
    assert (current["id"], current["status"], current["version"]) == (first["id"], "resolved", 4)
    second = report(local.client)
    local.stop(signal.SIGKILL)
    assert items(local.data).keys() == {first["id"], second["id"]}


def test_an_item_of_which_the_last_line_is_the_key_alone_is_gone(tmp_path: Path) -> None:
    write(tmp_path, item(1), item(2), key(1))
    assert items(tmp_path) == {str(UUID(int=2)): line(item(2))}


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What is made to reach the disk, which a power failure would show: each file, and what it holds by then."""
    calls: list[tuple[str, bytes]] = []

    def fsync(number: int) -> None:
        inode = os.fstat(number).st_ino
        found = [path for path in (tmp_path, *tmp_path.iterdir()) if path.stat().st_ino == inode]
        calls.extend((path.name, b"" if path.is_dir() else path.read_bytes()) for path in found)

    monkeypatch.setattr(os, "fsync", fsync)
    return calls


def test_a_line_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, synced: list[tuple[str, bytes]]) -> None:
    journal = Journal(tmp_path)
    assert synced == [(tmp_path.name, b"")]
    for number in (1, 2):
        journal.append(line(item(number)))
    journal.close()
    path = "incidents.jsonl"
    assert synced[1:] == [(path, line(item(1))), (path, line(item(1)) + line(item(2)))]


def test_a_new_journal_is_on_the_disk_before_and_after_it_replaces_the_old_one(
    tmp_path: Path, synced: list[tuple[str, bytes]]
) -> None:
    write(tmp_path, item(1), item(1), item(1, "closed#0"))
    items(tmp_path)
    assert synced == [(tmp_path.name, b""), ("incidents.new", line(item(1, "closed#0"))), (tmp_path.name, b"")]


def test_a_journal_of_mostly_current_lines_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, item(1), item(2), item(1, "closed#0"), item(2, "closed#0"))
    written = path.read_bytes()
    assert len(items(tmp_path)) == 2
    assert path.read_bytes() == written


def test_the_new_journal_has_the_permissions_of_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path, item(1), item(1), item(1))
    path.chmod(0o600)
    items(tmp_path)
    assert path.read_bytes() == line(item(1))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_cannot_be_replaced_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, *[item(1)] * 100, item(1, "closed#0"))
    written = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as if the disk were full
    try:
        found = items(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found == {str(UUID(int=1)): line(item(1, "closed#0"))}
    assert path.read_bytes() == written
    assert list(tmp_path.iterdir()) == [path]
    assert "keeps its outdated lines: File too large." in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("reached", ["new file", "replaced"])
def test_a_kill_while_the_journal_is_replaced_loses_nothing(tmp_path: Path, reached: str) -> None:
    path = write(
        tmp_path,
        *[item(number, partition) for partition in ("closed#0", "closed#0", "open#0") for number in range(3000)],
    )
    inode = path.stat().st_ino

    def done() -> bool:
        replaced = path.stat().st_ino != inode
        return replaced or (reached == "new file" and path.with_suffix(".new").exists())

    command = [sys.executable, "-m", "infra.local", "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not done():
            assert process.poll() is None
        process.kill()
    assert items(tmp_path) == {str(UUID(int=number)): line(item(number)) for number in range(3000)}
    assert len(path.read_bytes().splitlines()) == 3000
