"""What each chat has received: the message about each incident, and the calls that Telegram's limits count.

This is stored in the incidents' table, under keys that begin with `telegram#`, and is not in the index. A chat is named as in the
stack's parameter, with its topic if it has one. Times are in seconds since 1970.
"""

import math
import random
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import store
from dynamodb import Unavailable, translate_errors
from incident import ACTIVE, Incident

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef, UpdateItemInputTypeDef

    Item = dict[str, AttributeValueTypeDef]

MAX_CALLS = 15
"""Calls per minute and chat. Telegram allows 20, including the webhook's answers."""

MAX_SINGLE_CALLS = 10
"""After this many calls within a minute, new incidents no longer get a message each."""

CALL_INTERVAL = 1
"""Seconds between two calls."""

DIGEST_INTERVAL = 6
"""Seconds between two edits of a digest."""

DIGEST_LEASE = 15
"""Seconds for which a function has a digest to itself: longer than a call takes."""

_EVENTS = 10
"""Event ids remembered for each chat."""

DIGEST_OPEN = 600
"""Seconds for which a digest takes new incidents. Later ones start a new message, because nobody is notified of an edit."""

NAMED = 35
"""The most incidents that a digest names."""

_MEMBERS = 99
"""Incidents per transaction, besides the digest: DynamoDB's quota is 100 items."""

_ATTEMPTS = 10

Value = str | float | list[str] | list[float]


class Delivery(NamedTuple):
    """What a chat has received about an incident."""

    message: int = 0
    """The number of the message about this incident alone; 0 if there is none."""
    shown: int = 0
    """The version that this message shows."""
    digest: int = 0
    """The number of the digest that counts the incident; 0 if there is none."""
    counted: int = 0
    """The version that the digest counts."""
    active: int = 0
    """1 if the digest counts it as open or in progress."""


class Digest(NamedTuple):
    """A message about many incidents.

    The counts and the message are two items, because DynamoDB rejects a write to an item that a transaction is changing.
    """

    message: int = 0
    """The message's number; 0 until it is sent."""
    total: int = 0
    active: int = 0
    """How many of the incidents are open or in progress."""
    first: tuple[str, ...] = ()
    """The ids of the incidents that the message names."""
    changes: int = 0
    """How often the counts have changed."""
    shown: int = 0
    """How many of these changes the message shows."""


def read(chat: str, ids: Iterable[str]) -> dict[str, Delivery]:
    """What the chat has received about each of these incidents, by id."""
    keys = {_key(chat, each): each for each in ids}
    items = store.get_items(keys, ", ".join(("id", *Delivery._fields)))
    known = {keys[item["id"]["S"]]: Delivery(**_numbers(item, Delivery._fields)) for item in items}
    return dict.fromkeys(keys.values(), Delivery()) | known


def remember(chat: str, id: str, message: int, version: int) -> None:
    """Remember the message that shows this version of an incident."""
    _set(_key(chat, id), message=message, shown=version)


def adopt(chat: str, id: str, message: int, version: int) -> bool:
    """Make this the chat's message about an incident, unless it has one; return whether it was this one already."""
    known = _set(_key(chat, id), "attribute_not_exists(message)", message=message, shown=version)
    return known is not None and int(known["message"]["N"]) == message


# ---- limits


def claim_call(chat: str, now: float, limit: int = MAX_CALLS) -> float:
    """Claim one of the chat's calls per minute; return 0, or the seconds to wait before the next attempt."""
    while True:
        item = _read(_key(chat))
        known = item.get("calls")
        calls = [float(each["N"]) for each in known["L"]] if known else []
        recent = [call for call in calls if call > now - 60]
        until = [float(item["quiet_until"]["N"])] if "quiet_until" in item else []
        until += [recent[-1] + CALL_INTERVAL] if recent else []
        until += [recent[-limit] + 60] if len(recent) >= limit else []
        if until and max(until) > now:
            return _wait(max(until) - now)
        condition = "calls = :known" if known else "attribute_not_exists(calls)"
        if _set(_key(chat), condition, {":known": known} if known else {}, calls=[*recent, now]) is None:
            return 0


def pause(chat: str, until: float) -> None:
    """Make no call before this time."""
    _set(_key(chat), quiet_until=until)


def current_name(chat: str) -> str:
    """The chat's name, with the id of the supergroup that it has become, if any. Messages have other numbers there."""
    item = _read(_key(chat))
    _, slash, topic = chat.partition("/")
    return f"{item['moved_to']['S']}{slash}{topic}" if "moved_to" in item else chat


def remember_move(chat: str, chat_id: str) -> None:
    """Remember the id of the supergroup that the chat has become."""
    _set(_key(chat), moved_to=chat_id)


def is_event_delivered(chat: str, event_id: str) -> bool:
    """Whether an earlier attempt has sent the message about this event, such as an alarm."""
    return event_id in _events(chat)


def remember_event(chat: str, event_id: str) -> None:
    _set(_key(chat), events=[*_events(chat), event_id][-_EVENTS:])


def _events(chat: str) -> list[str]:
    item = _read(_key(chat))
    return [each["S"] for each in item["events"]["L"]] if "events" in item else []


# ---- digests


def open_digest(chat: str, now: float) -> int:
    """The number of the digest that takes the chat's new incidents. A new one is opened if necessary."""
    due = "attribute_not_exists(digest) OR digest < :closed"
    known = _set(_key(chat), due, _values(closed=now - DIGEST_OPEN), digest=int(now))
    return int(known["digest"]["N"]) if known else int(now)


def digest(chat: str, number: int) -> Digest:
    item = _read(_digest_key(chat, number)) | _read(_digest_key(chat, number, "shown"))
    first = tuple(each["S"] for each in item["first"]["L"]) if "first" in item else ()
    # Instances that count at the same time may together have added more.
    return Digest(first=first[:NAMED], **_numbers(item, set(Digest._fields) - {"first"}))


def add_to_digest(chat: str, number: int, incidents: Sequence[Incident]) -> None:
    """Count these incidents in a digest as they are now, each of them once."""
    for start in range(0, len(incidents), _MEMBERS):
        some = incidents[start : start + _MEMBERS]
        for _ in range(_ATTEMPTS):
            known = read(chat, (incident.id for incident in some))
            due = [each for each in some if known[each.id].counted < each.version]
            if not due or _count(chat, number, due, known):
                break
            time.sleep(random.random() / 5)  # noqa: S311 (keeps functions from retrying at the same time)
        else:
            raise Unavailable


@translate_errors()
def _count(chat: str, number: int, incidents: Sequence[Incident], known: dict[str, Delivery]) -> bool:
    """Count all of them; or none, and return False, if another function is counting in the digest or has counted one of them."""
    room = max(0, NAMED - len(digest(chat, number).first))
    new = [each.id for each in incidents if not known[each.id].counted]
    active = sum((each.status in ACTIVE) - known[each.id].active for each in incidents)
    actions: list[TransactWriteItemTypeDef] = [
        {
            "Update": {
                "TableName": store.TABLE,
                "Key": {"id": {"S": _digest_key(chat, number)}},
                # `first` and `total` are among DynamoDB's reserved words.
                "UpdateExpression": "SET #first = list_append(if_not_exists(#first, :none), :first) "
                "ADD #total :total, active :active, changes :one",
                "ExpressionAttributeNames": {"#first": "first", "#total": "total"},
                "ExpressionAttributeValues": _values(total=len(new), active=active, one=1, none=[], first=new[:room]),
            }
        }
    ]
    for incident in incidents:
        values = _values(digest=number, version=incident.version, active=int(incident.status in ACTIVE))
        update: TransactWriteItemTypeDef = {
            "Update": {
                "TableName": store.TABLE,
                "Key": {"id": {"S": _key(chat, incident.id)}},
                "UpdateExpression": "SET digest = :digest, counted = :version, active = :active",
                "ConditionExpression": "attribute_not_exists(counted) OR counted = :before",
                "ExpressionAttributeValues": values | _values(before=known[incident.id].counted),
            }
        }
        actions.append(update)
    try:
        store.client.transact_write_items(TransactItems=actions)
    except store.client.exceptions.TransactionCanceledException:
        return False
    return True


def claim_digest(chat: str, number: int, now: float, known: float = 0) -> float:
    """Claim the digest's next edit for `DIGEST_LEASE` seconds, or extend the claim that was made at the time `known`.

    Return 0, or the seconds to wait before the next attempt.
    """
    condition = "next_edit = :known" if known else "attribute_not_exists(next_edit) OR next_edit <= :known"
    time_known = _values(known=known + DIGEST_LEASE if known else now)
    claimed = _set(_digest_key(chat, number, "shown"), condition, time_known, next_edit=now + DIGEST_LEASE)
    return _wait(float(claimed["next_edit"]["N"]) - now) if claimed else 0


def remember_digest(chat: str, number: int, message: int, shown: int, now: float) -> None:
    """Remember the digest's message, and how many changes it shows. The next edit may follow after `DIGEST_INTERVAL`."""
    key = _digest_key(chat, number, "shown")
    _set(key, message=message, shown=shown, next_edit=now + DIGEST_INTERVAL)


def _digest_key(chat: str, number: int, part: str = "counted") -> str:
    return _key(chat, f"digest#{number}#{part}")


def _wait(seconds: float) -> float:
    # In whole milliseconds: adding less than a microsecond to a time in seconds since 1970 may not change it.
    return max(1, math.ceil(1000 * seconds)) / 1000


def _key(chat: str, about: str = "") -> str:
    return f"telegram#{chat}#{about}" if about else f"telegram#{chat}"


@translate_errors()
def _read(key: str) -> "Item":
    return store.client.get_item(TableName=store.TABLE, Key={"id": {"S": key}}, ConsistentRead=True).get("Item", {})


@translate_errors()
def _set(key: str, condition: str = "", known: "Item | None" = None, /, **attributes: Value) -> "Item | None":
    """Set attributes of an item; return None, or the item if it does not meet the condition, which may name `known` values."""
    request: UpdateItemInputTypeDef = {
        "TableName": store.TABLE,
        "Key": {"id": {"S": key}},
        "UpdateExpression": f"SET {', '.join(f'{name} = :{name}' for name in attributes)}",
        "ExpressionAttributeValues": _values(**attributes) | (known or {}),
    }
    if condition:
        request |= {"ConditionExpression": condition, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    try:
        store.client.update_item(**request)
    except store.client.exceptions.ConditionalCheckFailedException as error:
        return store.existing_item(error)
    return None


def _values(**values: Value) -> "Item":
    """The values that an expression names."""
    return {f":{name}": _stored(value) for name, value in values.items()}


def _stored(value: Value) -> "AttributeValueTypeDef":
    if isinstance(value, list):
        return {"L": [_stored(each) for each in value]}
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


def _numbers(item: "Item", names: Iterable[str]) -> dict[str, int]:
    """The item's values of these attributes, without those that it lacks."""
    return {name: int(item[name]["N"]) for name in names if name in item}
