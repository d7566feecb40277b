"""What is remembered of an alert: when its latest episode started and ended.

It is an item of the incidents' table, but no incident: its key is no incident's id, and it has no place in the index.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import store
from dynamodb import Unavailable, translate_errors

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

BATCH = 100
"""Keys in a BatchGetItem: DynamoDB's quota."""


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
    return {item["id"]["S"]: _episode(item) for items in map(_get_batch, batches) for item in items}


@translate_errors()
def _get_batch(keys: "list[dict[str, AttributeValueTypeDef]]") -> "list[dict[str, AttributeValueTypeDef]]":
    response = store.client.batch_get_item(RequestItems={store.TABLE: {"Keys": keys, "ConsistentRead": True}})
    if response.get("UnprocessedKeys"):  # DynamoDB has throttled a part of the batch
        raise Unavailable
    return response["Responses"][store.TABLE]


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
        store.client.update_item(
            TableName=store.TABLE,
            Key={"id": {"S": alert}},
            UpdateExpression="SET episode = :episode",
            ConditionExpression="episode = :known" if known else "attribute_not_exists(episode)",
            ExpressionAttributeValues=values,
        )
    except store.client.exceptions.ConditionalCheckFailedException:
        return False
    return True


def _attributes(episode: Episode) -> "AttributeValueTypeDef":
    ends: dict[str, AttributeValueTypeDef] = {"ends": {"S": episode.ends}} if episode.ends else {}
    return {"M": {"starts": {"S": episode.starts}, "recorded": {"BOOL": episode.recorded}} | ends}


def _episode(item: "dict[str, AttributeValueTypeDef]") -> Episode:
    values = item["episode"]["M"]
    return Episode(values["starts"]["S"], values["ends"]["S"] if "ends" in values else None, values["recorded"]["BOOL"])
