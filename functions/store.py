"""The incidents' table: the only module that knows DynamoDB.

A function of this module that returns has DynamoDB's acknowledgement. One that raises `StoreUnavailable` has not, though
what it asked for may have been done; it is safe to ask again.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, TypedDict, cast
from zlib import crc32

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from pydantic_core import from_json

from incident import ID, Incident, IncidentNotFound, Status, StoreUnavailable, VersionConflict, now

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
SHARDS = int(os.environ["STATUS_SHARDS"])
SPARE = 4
"""Incidents that a partition is asked for beyond its fair share of a page: fewer pages then need a second round."""

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
    client.meta.events.register("before-parse.dynamodb", parse_response)
    return client


def reject_truncated_response(response_dict: "_Response", **_: object) -> None:
    """Raise an error where the connection was cut; botocore takes such a response for a whole one, without an incident."""
    if len(response_dict["body"]) < int(response_dict["headers"].get("content-length", 0)):
        raise ConnectionClosedError(endpoint_url="dynamodb")


def parse_response(response_dict: "_Response", customized_response_dict: dict[str, object], **_: object) -> None:
    """Parse a successful response in one go, and leave botocore an empty object to walk through.

    botocore looks up the type of every value in its model of DynamoDB: 40 % of a warm list's CPU time. What the store asks
    for comes out the same either way, as it holds no binary values. Errors, and what is not JSON, are left to botocore.
    """
    if response_dict["status_code"] != HTTPStatus.OK:
        return
    with suppress(ValueError):
        customized_response_dict.update(from_json(response_dict["body"]))
        response_dict["body"] = b"{}"


_dynamodb = connect()
_threads = ThreadPoolExecutor(max_workers=32)

# The errors below 500 that pass by themselves. Any other is a fault of the code or of the deployment, and is let through.
_PASSING_ERRORS = {
    "ExpiredTokenException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
}


@contextmanager
def _or_unavailable() -> Iterator[None]:
    try:
        yield
    except (BotoConnectionError, HTTPClientError) as error:
        raise StoreUnavailable from error
    except ClientError as error:
        failed = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        if failed or error.response["Error"]["Code"] in _PASSING_ERRORS:
            raise StoreUnavailable from error
        raise


@_or_unavailable()
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
        return _incident(_found(error)["Item"])
    return incident


@_or_unavailable()
def get(id: str) -> Incident:
    """The incident with this id, as of the last acknowledged write. Raises `IncidentNotFound`."""
    answer = _dynamodb.get_item(TableName=TABLE, Key=_key(id), ConsistentRead=True)
    if "Item" not in answer:
        raise IncidentNotFound
    return _incident(answer["Item"])


@_or_unavailable()
def set_status(id: str, status: Status, version: int | None = None) -> Incident:
    """Change an incident's status, where a `version` is given only from that one; return the incident as it now stands.

    Raises `IncidentNotFound`, and `VersionConflict` where the incident has another version. If it has the wanted status
    too, it is returned as it stands: an earlier attempt of the same request got through.
    """
    condition = "attribute_exists(id)"
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
        answer = _dynamodb.update_item(
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
        found = _found(error)
        if "Item" not in found:
            raise IncidentNotFound from None
        stored = _incident(found["Item"])
        if stored.status != status:
            raise VersionConflict from None
        return stored
    return _incident(answer["Attributes"])


def newest(statuses: Sequence[Status], limit: int, before: str | None = None) -> list[Incident]:
    """The newest `limit` incidents that have one of these statuses and lie before a position, newest first.

    The index follows the table within moments, so that an incident which is just changing may be missing or be listed as
    it was.
    """
    partitions = [f"{status}#{shard}" for status in dict.fromkeys(statuses) for shard in range(SHARDS)]
    share = min(limit, limit // len(partitions) + SPARE)
    queries = [_query(partition, share, before) for partition in partitions]
    found: list[Incident] = []
    while queries:
        pages = _pages(queries)
        found += [_incident(item) for page in pages for item in page["Items"]]
        found = sorted(found, key=lambda incident: incident.position, reverse=True)[:limit]
        queries = _next_queries(queries, pages, found, limit)
    return found


def _query(status_shard: str, limit: int, before: str | None) -> "QueryInputTypeDef":
    condition = "status_shard = :shard"
    names = {"#source": "source", "#status": "status"}
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
        "ProjectionExpression": "id, description, #source, #status, created_at, updated_at, version",
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ScanIndexForward": False,
        "Limit": limit,
    }


def _pages(queries: "Sequence[QueryInputTypeDef]") -> "list[QueryOutputTypeDef]":
    # A single query needs no thread: 6 % of a warm list's CPU time.
    return list(_threads.map(_page, queries) if len(queries) > 1 else map(_page, queries))


@_or_unavailable()
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


def _found(error: ClientError) -> "GetItemOutputTypeDef":
    # With ALL_OLD, the error of a failed condition carries the item that it met, as the answer to a GetItem does.
    return cast("GetItemOutputTypeDef", error.response)


def _key(id: str) -> "dict[str, AttributeValueTypeDef]":
    # DynamoDB refuses a key that is empty or longer than 2,048 bytes; no id of another form stands in the table.
    if not re.fullmatch(ID, id):
        raise IncidentNotFound
    return {"id": {"S": id}}


def _status_shard(status: Status, id: str) -> str:
    return f"{status}#{crc32(id.encode()) % SHARDS}"


def _item(incident: Incident) -> "dict[str, AttributeValueTypeDef]":
    return {
        "id": {"S": incident.id},
        "description": {"S": incident.description},
        "source": {"S": incident.source},
        "status": {"S": incident.status},
        "created_at": {"S": incident.created_at},
        "updated_at": {"S": incident.updated_at},
        "version": {"N": str(incident.version)},
        "status_shard": {"S": _status_shard(incident.status, incident.id)},
        "position": {"S": incident.position},
    }


def _incident(item: "dict[str, AttributeValueTypeDef]") -> Incident:
    # Each value is a dictionary of one entry, from the type's letter to the value as text.
    return Incident.model_validate({name: next(iter(value.values())) for name, value in item.items()})
