"""The table's index, kept in order, so that a page costs the same however many incidents are stored.

moto sorts all items of the table for every Query. It still answers those of another form than the store's.
"""

import json
import re
from bisect import bisect_left, bisect_right, insort
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import CreateTableInputTypeDef

MAX_PAGE = 1024 * 1024
"""Bytes of items that DynamoDB reads for one page."""

_CONDITION = re.compile(
    r"(?P<partition>#?\w+) = (?P<wanted>:\w+) AND (?P<sort>#?\w+) BETWEEN (?P<first>:\w+) AND (?P<last>:\w+)"
)

Strings = dict[str, dict[Literal["S"], str]]


class _Query(BaseModel, extra="forbid"):
    TableName: str
    IndexName: str
    KeyConditionExpression: str
    ProjectionExpression: str
    ExpressionAttributeNames: dict[str, str] = {}
    ExpressionAttributeValues: Strings
    ExclusiveStartKey: Strings | None = None
    ScanIndexForward: Literal[False]
    Limit: int = Field(ge=1)

    @property
    def placeholders(self) -> set[str]:
        """What the expressions take from the request's names and values."""
        return set(re.findall(r"[#:]\w+", f"{self.KeyConditionExpression} {self.ProjectionExpression}"))


Entry = tuple[str, str]
"""A sort key and an id: a partition is a list of these, in order."""


class _Item(NamedTuple):
    partition: str
    entry: Entry
    line: bytes


class Index:
    """The table's only global secondary index, all of whose keys are strings."""

    def __init__(self, table: "CreateTableInputTypeDef") -> None:
        (index,) = table["GlobalSecondaryIndexes"]
        self._names = (table["TableName"], index["IndexName"])
        (self._id,) = (key["AttributeName"] for key in table["KeySchema"])
        self._partition, self._sort = (key["AttributeName"] for key in index["KeySchema"])
        self._keys = {self._id, self._partition, self._sort}
        self._attributes = {*self._keys, *index["Projection"]["NonKeyAttributes"]}
        self._items: dict[str, _Item] = {}
        self._partitions: dict[str, list[Entry]] = {}

    def put(self, id: str, line: bytes) -> None:
        """Index an item as a write has left it, in DynamoDB's JSON. An item without the index's keys is not in the index."""
        if known := self._items.pop(id, None):
            entries = self._partitions[known.partition]
            del entries[bisect_left(entries, known.entry)]
        item = json.loads(line)
        if item.keys() >= self._keys:
            indexed = _Item(item[self._partition]["S"], (item[self._sort]["S"], id), line)
            insort(self._partitions.setdefault(indexed.partition, []), indexed.entry)
            self._items[id] = indexed

    def query(self, body: bytes) -> dict[str, object] | None:
        """The answer to a Query, or None if the request has a form, or a mistake, that is moto's to answer."""
        try:
            query = _Query.model_validate_json(body)
        except ValidationError:
            return None
        condition = _CONDITION.fullmatch(query.KeyConditionExpression)
        names, values = query.ExpressionAttributeNames, query.ExpressionAttributeValues
        attributes = [names.get(name, name) for name in query.ProjectionExpression.split(", ")]
        if (
            condition is None
            or (query.TableName, query.IndexName) != self._names
            or names.get(condition["partition"], condition["partition"]) != self._partition
            or names.get(condition["sort"], condition["sort"]) != self._sort
            or not self._attributes.issuperset(attributes)
            or query.placeholders != names.keys() | values.keys()
            or (query.ExclusiveStartKey and query.ExclusiveStartKey.keys() != self._keys)
        ):
            return None
        wanted, low, high = (values[condition[name]]["S"] for name in ("wanted", "first", "last"))
        entries = self._partitions.get(wanted, [])
        first = bisect_left(entries, low, key=itemgetter(0))
        end = bisect_right(entries, high, key=itemgetter(0))
        if start := query.ExclusiveStartKey:
            end = min(end, bisect_left(entries, (start[self._sort]["S"], start[self._id]["S"])))
        newest_first = range(first, end)[::-1]
        return self._page([entries[place] for place in newest_first[: query.Limit]], query.Limit, attributes)

    def _page(self, entries: list[Entry], limit: int, attributes: list[str]) -> dict[str, object]:
        page: list[dict[str, object]] = []
        size = 0
        for _, key in entries:
            line = self._items[key].line
            size += len(line)
            if size > MAX_PAGE:
                break
            item = json.loads(line)
            page.append({name: item[name] for name in attributes if name in item})
        answer: dict[str, object] = {"Items": page, "Count": len(page), "ScannedCount": len(page)}
        # At the limit too: DynamoDB does not look whether anything follows.
        if len(page) == limit or len(page) < len(entries):
            answer["LastEvaluatedKey"] = {name: item[name] for name in self._keys}
        return answer
