"""The incidents' table: the only module that knows an incident's item.

A function returns once DynamoDB has acknowledged the request. If it raises `Unavailable`, the write may have been made or not,
and the call can be repeated.
"""

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast
from zlib import crc32

from botocore.exceptions import ClientError
from pydantic import TypeAdapter, ValidationError

import log
from dynamodb import CONNECTIONS, TRANSIENT_REASONS, Unavailable, connect, translate_errors
from incident import (
    ID_PATTERN,
    MAX_CHANGES,
    MAX_COMMENTS,
    Change,
    DamagedItem,
    HistoryEntry,
    Incident,
    IncidentNotFound,
    Status,
    TooManyChanges,
    TooManyComments,
    VersionConflict,
)
from rfc3339 import now

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import (
        AttributeValueTypeDef,
        GetItemOutputTypeDef,
        KeysAndAttributesTypeDef,
        PutTypeDef,
        QueryInputTypeDef,
        QueryOutputTypeDef,
        TransactWriteItemTypeDef,
        UpdateTypeDef,
    )

    Item = dict[str, AttributeValueTypeDef]

TABLE = os.environ["TABLE_NAME"]
INDEX = "by-status"

SHARDS = int(os.environ["STATUS_SHARDS"])
BATCH = 100
"""Keys in one BatchGetItem: DynamoDB's quota."""

SPARE = 4
"""Incidents requested from a partition beyond its fair share of a page, so that fewer pages need a second round of queries."""

T = TypeVar("T")
R = TypeVar("R")

client = connect()  # within the functions' timeout (25 seconds), and the gateway's (30)
_threads = ThreadPoolExecutor(max_workers=CONNECTIONS)
_list = TypeAdapter(list[Incident])


@translate_errors()
def add(incident: Incident, by: str | None, origin: str = "") -> Incident:
    """Store an incident that `by` reports, unless its id exists; return the incident that is stored under the id.

    `origin` is an integration's note of where the report came from; `get_many` returns it.
    """
    try:
        client.put_item(**_put(incident, by, origin))
    except client.exceptions.ConditionalCheckFailedException as error:
        return _incident(existing_item(error))
    return incident


def adding(incident: Incident, by: str | None) -> "TransactWriteItemTypeDef":
    """The write of `add`, for a transaction."""
    return {"Put": _put(incident, by)}


def _put(incident: Incident, by: str | None, origin: str = "") -> "PutTypeDef":
    reported = HistoryEntry(version=1, status=incident.status, at=incident.created_at, by=by, comment=None)
    return {
        "TableName": TABLE,
        "Item": item(incident, [reported], origin),
        "ConditionExpression": "attribute_not_exists(id)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


@translate_errors()
def get(id: str, reporter: str | None = None) -> Incident:
    """The incident with this id, as of the last acknowledged write. Raises `IncidentNotFound`.

    With a `reporter`, incidents that others reported are not found.
    """
    item = _read(id, "incident, history[0]" if reporter else "incident")
    if reporter and _plain(item["history"]["L"][0]).get("by") != reporter:
        raise IncidentNotFound
    return _incident(item)


@translate_errors()
def get_with_history(id: str) -> tuple[Incident, list[HistoryEntry]]:
    """An incident and its history, oldest version first, from one read. Raises `IncidentNotFound`."""
    return from_item(_read(id, "incident, history"))


def from_item(item: "Item") -> tuple[Incident, list[HistoryEntry]]:
    """The incident in an item, and its history. Raises `DamagedItem`, as every function does that reads a single incident."""
    incident = _incident(item)
    history: list[HistoryEntry] = []
    values: dict[str, object] = {}
    try:
        entries = item["history"]["L"]
        for version, entry in enumerate(entries, incident.version - len(entries) + 1):
            # A comment alone is stored without a status: it keeps the previous version's.
            values = {"version": version, "status": values.get("status"), "by": None, "comment": None} | _plain(entry)
            history.append(HistoryEntry.model_validate(values))
    except (KeyError, ValidationError) as error:
        raise DamagedItem from error
    return incident, history


class Stored(NamedTuple):
    """An incident as `get_many` finds it."""

    incident: Incident | None
    """None if the item cannot be read as an incident."""
    origin: str


def get_many(ids: Iterable[str]) -> dict[str, Stored]:
    """The stored incidents among these, by id, as of the last acknowledged write."""
    return {
        item["id"]["S"]: Stored(_incident_or_none(item), item["origin"]["S"] if "origin" in item else "")
        for item in get_items(dict.fromkeys(ids), "id, incident, origin")
    }


def get_items(keys: Iterable[str], attributes: str) -> "Iterator[Item]":
    """These attributes of the items with these keys, which must be distinct. Missing items are left out; the order is undefined."""
    asked: list[Item] = [{"id": {"S": key}} for key in keys]
    while asked:
        batch, asked = asked[:BATCH], asked[BATCH:]
        request: KeysAndAttributesTypeDef = {"Keys": batch, "ConsistentRead": True, "ProjectionExpression": attributes}
        with translate_errors():
            response = client.batch_get_item(RequestItems={TABLE: request})
        yield from response["Responses"][TABLE]
        rest = response.get("UnprocessedKeys", {}).get(TABLE, {"Keys": []})["Keys"]
        if len(rest) == len(batch):  # throttled; otherwise, the response was full
            raise Unavailable
        asked += rest


def _read(id: str, attributes: str) -> "Item":
    response = client.get_item(TableName=TABLE, Key=_key(id), ConsistentRead=True, ProjectionExpression=attributes)
    if "Item" not in response:
        raise IncidentNotFound
    return response["Item"]


@translate_errors()
def change(
    id: str, change: Change, by: str | None, version: int | None = None, *, only_from: Collection[Status] = ()
) -> tuple[Incident, Incident | None]:
    """Change an incident on behalf of `by`; return its current state, and its previous one, or None if nothing was changed.

    Nothing is changed if the incident already has the status and its last version is this comment by the same caller: an earlier
    attempt has succeeded. Nor is it if `only_from` is given and does not contain the incident's status. Raises `VersionConflict` if
    the incident has another version than the given one, `TooManyChanges` and `TooManyComments` at its limits, and
    `IncidentNotFound`.
    """
    time = now()
    while True:
        try:
            response = client.update_item(**_update(id, change, by, version, only_from, time), ReturnValues="ALL_OLD")
            before = _incident(response["Attributes"])
            return _changed(before, change, time), before
        except client.exceptions.ConditionalCheckFailedException as error:
            item = existing_item(error)
        incident = _incident(item)
        commented = change.comment is None or item.get("latest_comment") == _latest_comment(change.comment, by)
        if commented and change.status in (None, incident.status):
            return incident, None
        if only_from and incident.status not in only_from:
            return incident, None
        if version not in (None, incident.version):
            raise VersionConflict
        if incident.version > MAX_CHANGES:
            raise TooManyChanges
        comments = int(item["comment_bytes"]["N"]) if "comment_bytes" in item else 0
        if change.comment and comments > _room_for(change.comment):
            raise TooManyComments
        time = incident.updated_at  # this clock is behind that of the last change


def changing(before: Incident, change: Change, by: str | None) -> "tuple[TransactWriteItemTypeDef, Incident]":
    """The write of `change` for a transaction, if the incident is still as it was `before`, and the changed incident."""
    time = max(now(), before.updated_at)
    return {"Update": _update(before.id, change, by, before.version, (), time)}, _changed(before, change, time)


def _changed(before: Incident, change: Change, time: str) -> Incident:
    changed = {"status": change.status or before.status, "updated_at": time, "version": before.version + 1}
    return before.model_copy(update=changed)


def _update(
    id: str, change: Change, by: str | None, version: int | None, only_from: Collection[Status], time: str
) -> "UpdateTypeDef":
    exists = "attribute_exists(id)"
    takes_changes = "incident.#version <= :changes"
    changed_before = "incident.updated_at <= :time"
    conditions = [exists, takes_changes, changed_before]
    news: list[str] = []
    # Not ADD, which only accepts top-level attributes.
    sets = [
        "incident.updated_at = :time",
        "incident.#version = incident.#version + :one",
        "history = list_append(history, :entry)",
    ]
    values: Item = {
        ":time": {"S": time},
        ":one": {"N": "1"},
        ":changes": {"N": str(MAX_CHANGES)},
        ":entry": {"L": [_entry(time, by, change.status, change.comment)]},
    }
    if change.status:
        another_status = "incident.#status <> :status"
        news.append(another_status)
        sets += ["incident.#status = :status", "status_shard = :shard"]
        values |= {":status": {"S": change.status}, ":shard": {"S": _status_shard(change.status, id)}}
    if change.comment:
        # A separate attribute, because an expression cannot name the last element of a list.
        another_comment = "NOT latest_comment = :comment"
        takes_comment = "(attribute_not_exists(comment_bytes) OR comment_bytes <= :room)"
        news.append(another_comment)
        conditions.append(takes_comment)
        sets += ["latest_comment = :comment", "comment_bytes = if_not_exists(comment_bytes, :zero) + :bytes"]
        values |= {
            ":comment": _latest_comment(change.comment, by),
            ":room": {"N": str(_room_for(change.comment))},
            ":zero": {"N": "0"},
            ":bytes": {"N": str(len(change.comment.encode()))},
        }
    conditions.append(f"({' OR '.join(news)})")
    if version is not None:
        conditions.append("incident.#version = :version")
        values[":version"] = {"N": str(version)}
    if only_from:
        conditions.append(f"incident.#status IN ({', '.join(f':{each}' for each in only_from)})")
        values |= {f":{each}": {"S": each} for each in only_from}
    condition = " AND ".join(conditions)
    update = f"SET {', '.join(sets)}" + ("" if change.comment else " REMOVE latest_comment")
    return {
        "TableName": TABLE,
        "Key": _key(id),
        "UpdateExpression": update,
        "ConditionExpression": condition,
        # DynamoDB rejects names that no expression uses.
        "ExpressionAttributeNames": {
            f"#{name}": name for name in ("status", "version") if f"#{name}" in condition + update
        },
        "ExpressionAttributeValues": values,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


@translate_errors()
def write_together(groups: "Sequence[Sequence[TransactWriteItemTypeDef]]") -> list[bool]:
    """Write the groups in one transaction, without those whose conditions are not met; return whether each was written.

    The groups may have 100 writes together, each to a different item.
    """
    wanted = set(range(len(groups)))
    while wanted:
        writes = [(number, write) for number in sorted(wanted) for write in groups[number]]
        try:
            client.transact_write_items(TransactItems=[write for _, write in writes])
            break
        except client.exceptions.TransactionCanceledException as error:
            codes = [reason.get("Code", "None") for reason in error.response["CancellationReasons"]]
            others = {*codes} - {"None", "ConditionalCheckFailed"}
            if others and others <= TRANSIENT_REASONS:
                raise Unavailable from error
            if others or "ConditionalCheckFailed" not in codes:
                raise
        wanted -= {number for (number, _), code in zip(writes, codes, strict=True) if code != "None"}
    return [number in wanted for number in range(len(groups))]


def _latest_comment(comment: str, by: str | None) -> "AttributeValueTypeDef":
    return {"S": f"{by or ''}\n{comment}"}


def _room_for(comment: str) -> int:
    """How many bytes the earlier comments may have if this one is to fit."""
    return MAX_COMMENTS - len(comment.encode())


@translate_errors()
def newest(statuses: Iterable[Status], limit: int, before: str = "", since: str = "") -> list[Incident]:
    """The newest `limit` incidents that have one of these statuses, newest first.

    They are those before `before`, and not before `since`. Each is a position, or a time in the format of `Incident.created_at`,
    which sorts before the positions of its millisecond; an empty string means no bound.

    The index may lag behind the table: an incident that is being changed may be missing, or listed as it was. An item that is
    not a valid incident is left out, logged and counted, so that the others can still be listed.
    """
    first = since or "0"  # before every year
    # BETWEEN includes its ends. All positions have the same length, so none is between this text and `before`.
    last = before[:-1] + chr(ord(before[-1]) - 1) if before else "A"  # after every year
    if first > last:  # DynamoDB rejects an empty range
        return []
    partitions = [f"{status}#{shard}" for status in dict.fromkeys(statuses) for shard in range(SHARDS)]
    share = min(limit, limit // len(partitions) + SPARE)
    queries = [_query(partition, first, last, share) for partition in partitions]
    found: list[Incident] = []
    while queries:
        # Each new connection loads all root certificates: 14 ms of CPU time, about 25 ms at 1,024 MB. A few queries are faster
        # one after the other, over one connection.
        ask = map if len(queries) <= CONNECTIONS else _threads.map
        pages = list(ask(_page, queries))
        for page in pages:
            found += _incidents(page["Items"])
        # An incident that changes between two queries may be in both partitions.
        latest = {incident.id: incident for incident in sorted(found, key=lambda incident: incident.version)}
        found = sorted(latest.values(), key=lambda incident: incident.position, reverse=True)[:limit]
        queries = _next_queries(queries, pages, found, limit)
    return found


def _query(status_shard: str, first: str, last: str, limit: int) -> "QueryInputTypeDef":
    return {
        "TableName": TABLE,
        "IndexName": INDEX,
        "KeyConditionExpression": "status_shard = :shard AND #position BETWEEN :first AND :last",
        # Without the index's keys, which nothing reads.
        "ProjectionExpression": "incident",
        "ExpressionAttributeNames": {"#position": "position"},
        "ExpressionAttributeValues": {":shard": {"S": status_shard}, ":first": {"S": first}, ":last": {"S": last}},
        "ScanIndexForward": False,
        "Limit": limit,
    }


def _page(query: "QueryInputTypeDef") -> "QueryOutputTypeDef":
    return client.query(**query)


def _next_queries(
    queries: "Sequence[QueryInputTypeDef]",
    pages: "Sequence[QueryOutputTypeDef]",
    found: Sequence[Incident],
    limit: int,
) -> "list[QueryInputTypeDef]":
    """The next queries, for the partitions that may have more of the newest `limit` incidents."""
    positions = [incident.position for incident in found]
    following: list[QueryInputTypeDef] = []
    for query, page in zip(queries, pages, strict=True):
        if last := page.get("LastEvaluatedKey"):
            # The partition's remaining incidents are older than its last one, so they belong after it.
            open_places = limit - sum(position >= last["position"]["S"] for position in positions)
            if open_places:
                following.append({**query, "Limit": open_places, "ExclusiveStartKey": last})
    return following


def existing_item(error: ClientError) -> "dict[str, AttributeValueTypeDef]":
    """The item that did not meet a condition, which ALL_OLD adds to the error. Raises `IncidentNotFound` if there is none."""
    response = cast("GetItemOutputTypeDef", error.response)
    if "Item" not in response:
        raise IncidentNotFound
    return response["Item"]


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> tuple[list[R], BaseException | None]:
    """Work on the items in threads; return the results and the first error, after which no further item is started.

    A `DamagedItem` does not stop the others: a retry would meet it again, and never get further.
    All threads are idle when this returns: Lambda would freeze a busy one, and resume it during another request.
    """
    stopped = Event()

    def attempt(item: T) -> tuple[R | None, BaseException | None]:
        if stopped.is_set():
            return None, None
        try:
            return work(item), None
        except BaseException as error:
            if not isinstance(error, DamagedItem):
                stopped.set()
            return None, error

    done = list(_threads.map(attempt, items))
    return [result for result, _ in done if result is not None], next((error for _, error in done if error), None)


def item(incident: Incident, history: Sequence[HistoryEntry], origin: str = "") -> "Item":
    """The item of an incident with this history, oldest version first."""
    latest, comments = history[-1], [entry.comment for entry in history if entry.comment]
    optional: Item = {}
    if origin:
        optional["origin"] = {"S": origin}
    if comments:
        optional["comment_bytes"] = {"N": str(sum(len(comment.encode()) for comment in comments))}
    if latest.comment:
        optional["latest_comment"] = _latest_comment(latest.comment, latest.by)
    return optional | {
        "id": {"S": incident.id},
        "status_shard": {"S": _status_shard(incident.status, incident.id)},
        "position": {"S": incident.position},
        "incident": _map(incident.model_dump(exclude_none=True)),
        "history": {"L": [_entry(entry.at, entry.by, entry.status, entry.comment) for entry in history]},
    }


def _key(id: str) -> "Item":
    # DynamoDB rejects keys that are empty or longer than 2,048 bytes, and every incident's id has this form.
    if not re.fullmatch(ID_PATTERN, id):
        raise IncidentNotFound
    return {"id": {"S": id}}


def _status_shard(status: Status, id: str) -> str:
    return f"{status}#{crc32(id.encode()) % SHARDS}"


def _entry(at: str, by: str | None, status: Status | None, comment: str | None = None) -> "AttributeValueTypeDef":
    # Without its version, which follows from its place in the list: an update does not know the version that it creates.
    entry = {"at": at, "by": by, "status": status, "comment": comment}
    return _map({name: value for name, value in entry.items() if value})


def _incident(stored: "Item") -> Incident:
    try:
        return Incident.model_validate(_plain(stored["incident"]))
    except (KeyError, ValidationError) as error:
        raise DamagedItem from error


def _incidents(items: "Sequence[Item]") -> list[Incident]:
    """The incidents in these items. Damaged items are left out."""
    try:
        # All at once: a call of pydantic for each would be a tenth of a warm list's CPU time.
        return _list.validate_python([_plain(item["incident"]) for item in items])
    except (KeyError, ValidationError):
        return list(filter(None, map(_incident_or_none, items)))


def _incident_or_none(stored: "Item") -> Incident | None:
    try:
        return _incident(stored)
    except DamagedItem:
        values = stored["incident"]["M"] if "incident" in stored else stored
        damaged = values["id"]["S"] if "id" in values else "unknown"
        logging.getLogger(__name__).error(
            "The incident %s cannot be read, and is left out. Restore or delete its item.", damaged
        )
        line = log.Line(incident_id=damaged)
        line.count("DamagedItems")
        line.write()
        return None


def _map(values: Mapping[str, str | int]) -> "AttributeValueTypeDef":
    return {
        "M": {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in values.items()}
    }


def _plain(stored: "AttributeValueTypeDef") -> dict[str, object]:
    # DynamoDB's JSON: each value is a dictionary with one entry, such as {"S": "open"}.
    return {name: next(iter(value.values())) for name, value in stored["M"].items()}
