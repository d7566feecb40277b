"""The incidents' table: the only module that knows DynamoDB.

A function of this module that returns has DynamoDB's acknowledgement. One that raises `StoreUnavailable` has not, though
what it asked for may have been done; it is safe to ask again.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, TypedDict, TypeVar, cast
from zlib import crc32

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from pydantic_core import from_json

from incident import (
    ID_PATTERN,
    MAX_CHANGES,
    HistoryEntry,
    Incident,
    IncidentNotFound,
    Status,
    StoreUnavailable,
    TooManyChanges,
    VersionConflict,
    now,
)

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        GetItemOutputTypeDef,
        QueryInputTypeDef,
        QueryOutputTypeDef,
    )

    class _Response(TypedDict):
        status_code: int
        headers: dict[str, str]
        body: bytes


TABLE = os.environ["TABLE_NAME"]
INDEX = "by-status"
FIELDS = {f"#{name}": name for name in Incident.model_fields}
"""The attributes that make an incident. An item has others: its history, and its place in the index."""

SHARDS = int(os.environ["STATUS_SHARDS"])
BATCH = 100
"""Keys in a BatchGetItem: DynamoDB's quota."""
SPARE = 4
"""Incidents that a partition is asked for beyond its fair share of a page: fewer pages then need a second round."""
CONNECTIONS = 4
"""To DynamoDB, at the same time: more requests than that keep a function of 512 MB busy, and each waits for CPU time."""

# Three attempts of at most 1 + 2 seconds; between them, when throttled, at most 1 and 2 seconds, and 5 more each if DynamoDB
# asks for them: an answer within 22 seconds, inside the functions' timeout (25), inside the gateway's (30).
CONFIG = Config(
    connect_timeout=1,
    read_timeout=2,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=CONNECTIONS,
    # botocore describes itself and its surroundings anew in every request: a sixth of a warm create's CPU time.
    user_agent="incident-api",
    # Types and tests have checked what is sent: 4 % of a warm read's.
    parameter_validation=False,
)


def connect(endpoint: str | None = None, config: Config = CONFIG) -> "DynamoDBClient":
    """A client of DynamoDB, the region's own unless there is another endpoint."""
    client = boto3.client("dynamodb", endpoint_url=endpoint, config=config)
    client.meta.events.register("before-parse.dynamodb", reject_truncated_response)
    client.meta.events.register("before-parse.dynamodb", parse_response)
    return client


def reject_truncated_response(response_dict: "_Response", **_: object) -> None:
    """Raise an error where the connection was cut; botocore takes such a response for a whole one, without an incident."""
    if len(response_dict["body"]) < int(response_dict["headers"].get("content-length", 0)):
        raise ConnectionClosedError(endpoint_url="dynamodb")


def parse_response(response_dict: "_Response", customized_response_dict: dict[str, object], **_: object) -> None:
    """Parse a successful response in one go, and leave botocore an empty object to walk through.

    botocore looks up the type of every value in its model of DynamoDB: 40 % of a warm list's CPU time. What the store asks
    for comes out the same either way, as it holds no binary values. Errors are left to botocore. A success that is no JSON
    object is an error like a cut connection: botocore would take it for an empty object, and a write for done.
    """
    if response_dict["status_code"] != HTTPStatus.OK:
        return
    try:
        parsed = from_json(response_dict["body"])
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ConnectionClosedError(endpoint_url="dynamodb")
    customized_response_dict.update(parsed)
    response_dict["body"] = b"{}"


T = TypeVar("T")

_dynamodb = connect()
_threads = ThreadPoolExecutor(max_workers=CONNECTIONS)

# The errors below 500 that a retry may overcome. Any other is a fault of the code or of the deployment, and propagates.
TRANSIENT_CODES = {
    "ExpiredTokenException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
}


@contextmanager
def translate_errors() -> Iterator[None]:
    try:
        yield
    except (BotoConnectionError, HTTPClientError) as error:
        raise StoreUnavailable from error
    except ClientError as error:
        failed = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        if failed or error.response["Error"]["Code"] in TRANSIENT_CODES:
            raise StoreUnavailable from error
        raise


@translate_errors()
def add(incident: Incident, by: str | None) -> Incident:
    """Record an incident that `by` reports, unless one with its id is stored; return the one that is now stored."""
    try:
        _dynamodb.put_item(
            TableName=TABLE,
            Item=_item(incident) | {"history": {"L": [_entry(incident.status, incident.created_at, by)]}},
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except _dynamodb.exceptions.ConditionalCheckFailedException as error:
        return _incident(existing_item(error))
    return incident


@translate_errors()
def get(id: str) -> Incident:
    """The incident with this id, as of the last acknowledged write. Raises `IncidentNotFound`."""
    return _incident(_read(id, FIELDS))


def history(id: str) -> list[HistoryEntry]:
    """Every version of this incident, oldest first, as of the last acknowledged write. Raises `IncidentNotFound`.

    Of an incident that was recorded before histories were, the versions since are known, and at least the last one.
    """
    return get_with_history(id)[1]


@translate_errors()
def get_with_history(id: str) -> tuple[Incident, list[HistoryEntry]]:
    """An incident and its `history`, both of the same moment. Raises `IncidentNotFound`."""
    item = _read(id, FIELDS | {"#history": "history"})
    incident = _incident(item)
    entries = item.get("history", {"L": []})["L"] or [_entry(incident.status, incident.updated_at, None)]
    first = incident.version - len(entries) + 1
    return incident, [_history_entry(entry, version) for version, entry in enumerate(entries, first)]


def _read(id: str, attributes: dict[str, str]) -> "dict[str, AttributeValueTypeDef]":
    response = _dynamodb.get_item(
        TableName=TABLE,
        Key=_key(id),
        ConsistentRead=True,
        ProjectionExpression=", ".join(attributes),
        ExpressionAttributeNames=attributes,
    )
    if "Item" not in response:
        raise IncidentNotFound
    return response["Item"]


@translate_errors()
def set_status(
    id: str, status: Status, by: str | None, version: int | None = None, *, only_from: Collection[Status] = ()
) -> tuple[Incident, bool]:
    """Have `by` give an incident another status; return it as it now stands, and whether this call changed it.

    An incident that has the status already is left as it is: an earlier attempt of the same request may have succeeded.
    So is one that has none of the statuses `only_from`, where any are given. Otherwise, where a `version` is given and the
    incident has another one, raises `VersionConflict`; after `MAX_CHANGES` changes, `TooManyChanges`. Raises
    `IncidentNotFound`.
    """
    time = now()
    condition = "attribute_exists(id) AND #status <> :status AND #version <= :changes"
    values: dict[str, AttributeValueTypeDef] = {
        ":status": {"S": status},
        ":shard": {"S": _status_shard(status, id)},
        ":now": {"S": time},
        ":one": {"N": "1"},
        ":changes": {"N": str(MAX_CHANGES)},
        ":none": {"L": []},
        ":entry": {"L": [_entry(status, time, by)]},
    }
    if version is not None:
        condition += " AND #version = :version"
        values[":version"] = {"N": str(version)}
    if only_from:
        condition += f" AND #status IN ({', '.join(f':{each}' for each in only_from)})"
        values |= {f":{each}": {"S": each} for each in only_from}
    try:
        response = _dynamodb.update_item(
            TableName=TABLE,
            Key=_key(id),
            UpdateExpression="SET #status = :status, status_shard = :shard, updated_at = :now, "
            "history = list_append(if_not_exists(history, :none), :entry) ADD #version :one",
            ConditionExpression=condition,
            ExpressionAttributeNames={"#status": "status", "#version": "version"},
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except _dynamodb.exceptions.ConditionalCheckFailedException as error:
        incident = _incident(existing_item(error))
        if incident.status == status or (only_from and incident.status not in only_from):
            return incident, False
        if version not in (None, incident.version):
            raise VersionConflict from None
        raise TooManyChanges from None
    return _incident(response["Attributes"]), True


class Episode(NamedTuple):
    """The latest time that an alert fired, as far as it was reported; instants in the format of `parse_instant`."""

    starts: str
    ends: str | None = None
    """None while the alert fires."""
    recorded: bool = False
    """Whether its incident is known to be stored. It is written down before its incident, which may be missing."""


def latest_episodes(alerts: Iterable[str]) -> dict[str, Episode]:
    """The latest episode of each of these alerts that has one, by the alert's key, as of the last acknowledged write."""
    keys: list[dict[str, AttributeValueTypeDef]] = [{"id": {"S": alert}} for alert in dict.fromkeys(alerts)]
    batches = [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]
    return {item["id"]["S"]: _episode(item) for items in _threads.map(_get_batch, batches) for item in items}


@translate_errors()
def _get_batch(keys: "list[dict[str, AttributeValueTypeDef]]") -> "list[dict[str, AttributeValueTypeDef]]":
    response = _dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": keys, "ConsistentRead": True}})
    if response.get("UnprocessedKeys"):  # DynamoDB has throttled a part of the batch
        raise StoreUnavailable
    return response["Responses"][TABLE]


@translate_errors()
def set_latest_episode(alert: str, episode: Episode, known: Episode | None) -> bool:
    """Write down an alert's latest episode if the one `known` so far still is the latest; return whether it was.

    If not, it has to be read again: another request has changed it, or an earlier attempt of this one has. It is an item of the
    incidents' table, but no incident: its key is no incident's id, and it has no place in the index.
    """
    values: dict[str, AttributeValueTypeDef] = {":episode": _attributes(episode)}
    if known:
        values[":known"] = _attributes(known)
    try:
        _dynamodb.update_item(
            TableName=TABLE,
            Key={"id": {"S": alert}},
            UpdateExpression="SET episode = :episode",
            ConditionExpression="episode = :known" if known else "attribute_not_exists(episode)",
            ExpressionAttributeValues=values,
        )
    except _dynamodb.exceptions.ConditionalCheckFailedException:
        return False
    return True


def _attributes(episode: Episode) -> "AttributeValueTypeDef":
    ends: dict[str, AttributeValueTypeDef] = {"ends": {"S": episode.ends}} if episode.ends else {}
    return {"M": {"starts": {"S": episode.starts}, "recorded": {"BOOL": episode.recorded}} | ends}


def _episode(item: "dict[str, AttributeValueTypeDef]") -> Episode:
    values = item["episode"]["M"]
    return Episode(values["starts"]["S"], values["ends"]["S"] if "ends" in values else None, values["recorded"]["BOOL"])


def in_parallel(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Do the work for each of the items. Once it has raised an error for one, begin no other, and raise that error.

    When this returns or raises, none of the work goes on: Lambda stops threads between requests, and wakes them in another.
    """
    tasks = [_threads.submit(work, item) for item in items]
    _, rest = wait(tasks, return_when=FIRST_EXCEPTION)
    for task in rest:
        task.cancel()
    wait(rest)
    for task in tasks:
        if not task.cancelled():
            task.result()


def newest(statuses: Sequence[Status], limit: int, before: str = "", since: str = "") -> list[Incident]:
    """The newest `limit` incidents that have one of these statuses, newest first.

    Of those whose position is `since` or after, and before `before`; a time in the format of `Incident.created_at` is the
    position that incidents of this millisecond have or follow. Empty means no bound.

    The index follows the table within moments, so that an incident which is just changing may be missing or be listed as
    it was.
    """
    # BETWEEN includes both bounds, and positions have one form: the last one before another ends in the character before.
    first, last = since or "0", f"{before[:-1]}{chr(ord(before[-1]) - 1)}" if before else "A"
    if first > last:  # DynamoDB refuses a range without a position
        return []
    partitions = [f"{status}#{shard}" for status in dict.fromkeys(statuses) for shard in range(SHARDS)]
    share = min(limit, limit // len(partitions) + SPARE)
    queries = [_query(partition, first, last, share) for partition in partitions]
    found: list[Incident] = []
    while queries:
        pages = _pages(queries)
        found += [_incident(item) for page in pages for item in page["Items"]]
        found = sorted(found, key=lambda incident: incident.position, reverse=True)[:limit]
        queries = _next_queries(queries, pages, found, limit)
    return found


def _query(status_shard: str, first: str, last: str, limit: int) -> "QueryInputTypeDef":
    return {
        "TableName": TABLE,
        "IndexName": INDEX,
        "KeyConditionExpression": "status_shard = :shard AND #position BETWEEN :first AND :last",
        # Without the index's own attributes, which would be parsed in vain.
        "ProjectionExpression": ", ".join(FIELDS),
        "ExpressionAttributeNames": FIELDS | {"#position": "position"},
        "ExpressionAttributeValues": {":shard": {"S": status_shard}, ":first": {"S": first}, ":last": {"S": last}},
        "ScanIndexForward": False,
        "Limit": limit,
    }


def _pages(queries: "Sequence[QueryInputTypeDef]") -> "list[QueryOutputTypeDef]":
    # urllib3 loads all root certificates for each new connection: 14 ms of CPU time, and some 50 ms of a function's at
    # 512 MB. Few queries are faster one after the other on the same connection.
    ask = map if len(queries) <= CONNECTIONS else _threads.map
    return list(ask(_page, queries))


@translate_errors()
def _page(query: "QueryInputTypeDef") -> "QueryOutputTypeDef":
    return _dynamodb.query(**query)


def _next_queries(
    queries: "Sequence[QueryInputTypeDef]",
    pages: "Sequence[QueryOutputTypeDef]",
    found: Sequence[Incident],
    limit: int,
) -> "list[QueryInputTypeDef]":
    """The queries for the rest of those partitions whose next incident may still be among the newest `limit`."""
    positions = [incident.position for incident in found]
    following: list[QueryInputTypeDef] = []
    for query, page in zip(queries, pages, strict=True):
        if last := page.get("LastEvaluatedKey"):
            # No incident can come before those found down to the partition's last one; it may fill the places after them.
            open_places = limit - sum(position >= last["position"]["S"] for position in positions)
            if open_places:
                following.append({**query, "Limit": open_places, "ExclusiveStartKey": last})
    return following


def existing_item(error: ClientError) -> "dict[str, AttributeValueTypeDef]":
    """The item that a failed condition met: with ALL_OLD, it comes with the error. Raises `IncidentNotFound` without one."""
    response = cast("GetItemOutputTypeDef", error.response)
    if "Item" not in response:
        raise IncidentNotFound
    return response["Item"]


def _key(id: str) -> "dict[str, AttributeValueTypeDef]":
    # DynamoDB refuses a key that is empty or longer than 2,048 bytes; no id of another form stands in the table.
    if not re.fullmatch(ID_PATTERN, id):
        raise IncidentNotFound
    return {"id": {"S": id}}


def _status_shard(status: Status, id: str) -> str:
    return f"{status}#{crc32(id.encode()) % SHARDS}"


def _item(incident: Incident) -> "dict[str, AttributeValueTypeDef]":
    item = {name: _attribute(value) for name, value in incident.model_dump(exclude_none=True).items()}
    item["status_shard"] = {"S": _status_shard(incident.status, incident.id)}
    item["position"] = {"S": incident.position}
    return item


def _entry(status: Status, at: str, by: str | None) -> "AttributeValueTypeDef":
    # Its version is its place in the list: an update does not know the version that it makes.
    entry = {"status": status, "at": at} | ({"by": by} if by else {})
    return {"M": {name: {"S": value} for name, value in entry.items()}}


def _history_entry(entry: "AttributeValueTypeDef", version: int) -> HistoryEntry:
    values = {name: value["S"] for name, value in entry["M"].items()}
    return HistoryEntry.model_validate({"version": version, "by": None} | values)


def _attribute(value: str | int) -> "AttributeValueTypeDef":
    return {"N": str(value)} if isinstance(value, int) else {"S": value}


def _incident(item: "dict[str, AttributeValueTypeDef]") -> Incident:
    # Each value is a dictionary of one entry, from the type's letter to the value as text.
    return Incident.model_validate({name: next(iter(value.values())) for name, value in item.items()})
