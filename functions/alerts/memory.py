"""An alert's latest episode, as an item of the incidents' table.

The item is not an incident: its key is not a UUID, and the index does not contain it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import store
from alerts.episode import Episode
from dynamodb import translate_errors

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef, UpdateTypeDef


def latest_episodes(alerts: Iterable[str]) -> dict[str, Episode]:
    """The alerts' latest episodes by the alerts' keys, read consistently. An alert without an episode is left out."""
    found = store.get_items(dict.fromkeys(alerts), "id, episode")
    return {item["id"]["S"]: _episode(item) for item in found}


@translate_errors()
def remember(alert: str, episode: Episode, known: Episode | None) -> bool:
    """Store an alert's latest episode and return True, or return False if the stored one is no longer `known`.

    The caller then has to read it again: another request has changed it, or an earlier attempt of this one.
    """
    try:
        store.client.update_item(**_update(alert, episode, known))
    except store.client.exceptions.ConditionalCheckFailedException:
        return False
    return True


def remembering(alert: str, episode: Episode, known: Episode | None) -> "TransactWriteItemTypeDef":
    """The write of `remember` for a transaction."""
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
