"""What is remembered of an alert: its latest episode.

It is an item of the incidents' table, but no incident: its key is no incident's id, and it has no place in the index.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import store
from alerts.episode import Episode
from dynamodb import Unavailable, translate_errors

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

BATCH = 100
"""Keys in a BatchGetItem: DynamoDB's quota."""


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
def remember(alert: str, episode: Episode, known: Episode | None) -> bool:
    """Remember an alert's latest episode if the `known` one still is the latest; return whether it was.

    If not, it has to be read again: another request has changed it, or an earlier attempt of this one has.
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
    times = {name: value for name, value in episode._asdict().items() if isinstance(value, str)}
    return {"M": {"recorded": {"BOOL": episode.recorded}} | {name: {"S": value} for name, value in times.items()}}


def _episode(item: "dict[str, AttributeValueTypeDef]") -> Episode:
    values = item["episode"]["M"]
    return Episode(**{name: next(iter(value.values())) for name, value in values.items()})
