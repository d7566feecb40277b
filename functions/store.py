"""The incidents' table: the only module that knows DynamoDB.

A function of this module that returns has DynamoDB's acknowledgement. One that raises `StoreUnavailable` has not, though
what it asked for may have been done; it is safe to ask again.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, TypedDict, cast
from zlib import crc32

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from incident import ID_PATTERN, Incident, IncidentNotFound, Status, StoreUnavailable, VersionConflict, now

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        GetItemOutputTypeDef,
        QueryInputTypeDef,
        QueryOutputTypeDef,
    )

    class _Answer(TypedDict):
        headers: dict[str, str]
        body: bytes


TABLE = os.environ["TABLE_NAME"]
INDEX = "by-status"
FIELDS = {f"#{name}": name for name in Incident.model_fields}
"""The attributes that make an incident. An item has others, which only its place in the index needs."""

SHARDS = int(os.environ["STATUS_SHARDS"])

# Three attempts of at most 1 + 2 seconds; between them, when throttled, at most 1 and 2 seconds, and 5 more each if DynamoDB
# asks for them: an answer within 22 seconds, inside the functions' timeout (25), inside the gateway's (30).
CONFIG = Config(
    connect_timeout=1,
    read_timeout=2,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=32,
    # botocore describes itself and its surroundings anew in every request: a sixth of a warm create's CPU time.
    user_agent="incident-api",
    # Types and tests have checked what is sent: 4 % of a warm read's.
    parameter_validation=False,
)


def connect(endpoint: str | None = None, config: Config = CONFIG) -> "DynamoDBClient":
    """A client of DynamoDB, the region's own unless there is another endpoint."""
    client = boto3.client("dynamodb", endpoint_url=endpoint, config=config)
    client.meta.events.register("before-parse.dynamodb", reject_truncated_response)
    return client


def reject_truncated_response(response_dict: "_Answer", **_: object) -> None:
    # botocore takes an answer whose connection was cut for a whole one, and then finds no incident in it.
    if len(response_dict["body"]) < int(response_dict["headers"].get("content-length", 0)):
        raise ConnectionClosedError(endpoint_url="dynamodb")


_dynamodb = connect()
_threads = ThreadPoolExecutor(max_workers=32)

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
def add(incident: Incident) -> Incident:
    """Record an incident, unless its id stands already; return the incident that now stands under the id."""
    try:
        _dynamodb.put_item(
            TableName=TABLE,
            Item=_item(incident),
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except _dynamodb.exceptions.ConditionalCheckFailedException as error:
        return _incident(existing_item(error))
    return incident


@translate_errors()
def get(id: str) -> Incident:
    """The incident with this id, as of the last acknowledged write. Raises `IncidentNotFound`."""
    answer = _dynamodb.get_item(TableName=TABLE, Key=_key(id), ConsistentRead=True)
    if "Item" not in answer:
        raise IncidentNotFound
    return _incident(answer["Item"])


@translate_errors()
def set_status(id: str, status: Status, version: int | None = None) -> tuple[Incident, bool]:
    """Give an incident another status; return it as it now stands, and whether this call changed it.

    An incident that has the status already is left as it is: an earlier attempt of the same request may have succeeded.
    Otherwise, where a `version` is given and the incident has another one, raises `VersionConflict`. Raises
    `IncidentNotFound`.
    """
    condition = "attribute_exists(id) AND #status <> :status"
    values: dict[str, AttributeValueTypeDef] = {
        ":status": {"S": status},
        ":shard": {"S": _status_shard(status, id)},
        ":now": {"S": now()},
        ":one": {"N": "1"},
    }
    if version is not None:
        condition += " AND #version = :version"
        values[":version"] = {"N": str(version)}
    try:
        response = _dynamodb.update_item(
            TableName=TABLE,
            Key=_key(id),
            UpdateExpression="SET #status = :status, status_shard = :shard, updated_at = :now ADD #version :one",
            ConditionExpression=condition,
            ExpressionAttributeNames={"#status": "status", "#version": "version"},
            ExpressionAttributeValues=values,
            ReturnValues="ALL_NEW",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except _dynamodb.exceptions.ConditionalCheckFailedException as error:
        incident = _incident(existing_item(error))
        if incident.status != status:
            raise VersionConflict from None
        return incident, False
    return _incident(response["Attributes"]), True


def newest(statuses: Sequence[Status], limit: int, before: str | None = None) -> list[Incident]:
    """The newest `limit` incidents that have one of these statuses and lie before a position, newest first.

    The index follows the table within moments, so that an incident which is just changing may be missing or be listed as
    it was.
    """
    queries = [
        _query(f"{status}#{shard}", limit, before) for status in dict.fromkeys(statuses) for shard in range(SHARDS)
    ]
    # One query alone needs no thread: 6 % of a warm list's CPU time.
    first_pages = _threads.map(_page, queries) if len(queries) > 1 else map(_page, queries)
    partitions = [_rows(query, page) for query, page in zip(queries, first_pages, strict=True)]
    return list(islice(merge(*partitions, key=lambda incident: incident.position, reverse=True), limit))


def _query(status_shard: str, limit: int, before: str | None) -> "QueryInputTypeDef":
    condition = "status_shard = :shard"
    names = dict(FIELDS)
    values: dict[str, AttributeValueTypeDef] = {":shard": {"S": status_shard}}
    if before is not None:
        condition += " AND #position < :before"
        names["#position"] = "position"
        values[":before"] = {"S": before}
    return {
        "TableName": TABLE,
        "IndexName": INDEX,
        "KeyConditionExpression": condition,
        # Without the index's own attributes, which botocore would parse in vain: 11 % of the CPU time of asking for 50.
        "ProjectionExpression": ", ".join(FIELDS),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ScanIndexForward": False,
        "Limit": limit,
    }


@translate_errors()
def _page(query: "QueryInputTypeDef") -> "QueryOutputTypeDef":
    return _dynamodb.query(**query)


def _rows(query: "QueryInputTypeDef", page: "QueryOutputTypeDef") -> Iterator[Incident]:
    """One partition's incidents. A page that DynamoDB cut short is followed by the next one only when it is needed."""
    yield from map(_incident, page["Items"])
    while "LastEvaluatedKey" in page:
        page = _page({**query, "ExclusiveStartKey": page["LastEvaluatedKey"]})
        yield from map(_incident, page["Items"])


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


def _attribute(value: str | int) -> "AttributeValueTypeDef":
    return {"N": str(value)} if isinstance(value, int) else {"S": value}


def _incident(item: "dict[str, AttributeValueTypeDef]") -> Incident:
    # Each value is a dictionary of one entry, from the type's letter to the value as text.
    return Incident.model_validate({name: next(iter(value.values())) for name, value in item.items()})
