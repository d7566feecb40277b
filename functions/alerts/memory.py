"""What is remembered of an alert: its latest episode.

It is an item of the incidents' table, but no incident: its key is no incident's id, and it has no place in the index.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import store
from alerts.episode import Episode
from dynamodb import translate_errors

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef, UpdateTypeDef


def latest_episodes(alerts: Iterable[str]) -> dict[str, Episode]:
    """The latest episode of each of these alerts that has one, by the alert's key, as of the last acknowledged write."""
    found = store.get_items(dict.fromkeys(alerts), "id, episode")
    return {item["id"]["S"]: _episode(item) for item in found}


@translate_errors()
def remember(alert: str, episode: Episode, known: Episode | None) -> bool:
    """Remember an alert's latest episode if the `known` one still is the latest; return whether it was.

    If not, it has to be read again: another request has changed it, or an earlier attempt of this one has.
    """
    try:
        store.client.update_item(**_update(alert, episode, known))
    except store.client.exceptions.ConditionalCheckFailedException:
        return False
    return True


def remembering(alert: str, episode: Episode, known: Episode | None) -> "TransactWriteItemTypeDef":
    """What `remember` writes, as a part of a transaction."""
    return {"Update": _update(alert, episode, known)}


def _update(alert: str, episode: Episode, known: Episode | None) -> "UpdateTypeDef":
    values: dict[str, AttributeValueTypeDef] = {":episode": _attributes(episode)}
    if known:
        values[":known"] = _attributes(known)
    return {
        "TableName": store.TABLE,
        "Key": {"id": {"S": alert}},
        "UpdateExpression": "SET episode = :episode",
        "ConditionExpression": "episode = :known" if known else "attribute_not_exists(episode)",
        "ExpressionAttributeValues": values,
    }


def _attributes(episode: Episode) -> "AttributeValueTypeDef":
    times = {name: value for name, value in episode._asdict().items() if isinstance(value, str)}
    return {"M": {"recorded": {"BOOL": episode.recorded}} | {name: {"S": value} for name, value in times.items()}}


def _episode(item: "dict[str, AttributeValueTypeDef]") -> Episode:
    values = item["episode"]["M"]
    return Episode(**{name: next(iter(value.values())) for name, value in values.items()})
