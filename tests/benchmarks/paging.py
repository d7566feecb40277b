"""The cost of a page of the list with more incidents and with more shards: `make bench-list`.

The real function serves the pages on moto's DynamoDB. Moto reports no read units, so they are computed by DynamoDB's published
rules from each Query's items, which are all that it read: it has no filter, and an item counts with its whole size in the index.
The exit status is 1 if README.md has other figures.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
"""

import importlib
import json
import os
import re
import sys
from base64 import urlsafe_b64encode
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode
from uuid import UUID
from zlib import crc32

import boto3
import moto
from werkzeug.test import Client

from infra.local import template
from tests import anew

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Item = dict[str, AttributeValueTypeDef]

ID = r"[0-9a-f]{8}-[0-9a-f-]{27}"
STATUSES = ("open", "in_progress", "resolved", "closed")
OPEN = STATUSES[:1]
REPORT = "Самокат #4567 не отвечает на запросы, водитель ждёт на точке. Перезагрузка не помогла; нужен механик. Отчёт не выгружен."
"""120 characters: about half a kilobyte in the index."""


class Page(NamedTuple):
    """A request for a page of the list."""

    name: str
    wanted: tuple[str, ...] = STATUSES
    stored: tuple[str, ...] = STATUSES
    """The incidents' statuses, in turn."""
    limit: int = 50
    number: int = 1


FIRST = Page("first page of 50")
UNEVEN = Page("first page of 50, every incident open", stored=OPEN)
ONE = Page("first page of 50, open alone", wanted=OPEN)
PAGES = [FIRST, Page("100th page of 50", number=100), UNEVEN, ONE, Page("100th page of 5", limit=5, number=100)]
TABLES = {
    "Paging": (PAGES, [(1, 1_000), (1, 10_000), (1, 100_000)]),
    "Shards": ([FIRST, UNEVEN, ONE], [(shards, 4_000) for shards in (1, 4, 16, 64)]),
}
"""The rows and columns (numbers of shards and of incidents) of README.md's tables, by section."""


def size(value: "AttributeValueTypeDef") -> int:
    """The size of a value in bytes, by DynamoDB's rules."""
    if "M" in value:
        return 3 + sum(1 + len(name.encode()) + size(each) for name, each in value["M"].items())
    return len(value["S"].encode()) if "S" in value else ceil(len(value["N"]) / 2) + 1


def read_units(items: "list[Item]") -> float:
    """The read units of an eventually consistent Query: a half for each 4 KB, at least one half."""
    read = sum(len(name.encode()) + size(value) for item in items for name, value in item.items())
    return max(1, ceil(read / 4096)) / 2


def incidents(api: Client, stored: tuple[str, ...], number: int, shards: int) -> "list[Item]":
    """Items in the function's format, one a minute, with the statuses in turn and random ids."""
    dynamodb, random = boto3.client("dynamodb"), Random(number)  # noqa: S311 (for the same ids in every run)
    models = {}
    for status in stored:
        new = api.post("/incidents", json={"description": REPORT, "source": "monitoring", "status": status}).get_json()
        key: Item = {"id": {"S": new["id"]}}
        models[status] = json.dumps(dynamodb.get_item(TableName=template.TABLE, Key=key)["Item"]), new
        dynamodb.delete_item(TableName=template.TABLE, Key=key)
    made = []
    for minute in range(number):
        status = stored[minute % len(stored)]
        text, new = models[status]
        new_id = str(UUID(int=random.getrandbits(128), version=4))
        time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
        text = text.replace(new["created_at"], f"{time:%Y-%m-%dT%H:%M:00.000Z}").replace(new["id"], new_id)
        made.append(json.loads(text) | {"status_shard": {"S": f"{status}#{crc32(new_id.encode()) % shards}"}})
    return made


def costs(pages: list[Page], stored: tuple[str, ...], shards: int, number: int) -> dict[str, str]:
    """The read units and requests of each page for which there are enough incidents."""
    (index,) = template.load().table()["GlobalSecondaryIndexes"]
    in_index = {"id", "status_shard", "position", *index["Projection"]["NonKeyAttributes"]}
    found: dict[str, str] = {}
    with (
        Path(os.devnull).open("w") as log,
        redirect_stdout(log),
        moto.mock_aws(),
        anew.gateway(StatusShards=str(shards)) as gateway,
    ):
        api = Client(gateway)
        events = importlib.import_module("store").client.meta.events
        dynamodb = boto3.client("dynamodb")
        dynamodb.create_table(**template.load().table())
        items = incidents(api, stored, number, shards)
        for start in range(0, number, 25):
            puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            dynamodb.batch_write_item(RequestItems={template.TABLE: puts})  # type: ignore[dict-item]
        by_id = {item["id"]["S"]: {name: item[name] for name in item if name in in_index} for item in items}
        for page in pages:
            if page.limit * page.number > number:
                continue
            start = page.limit * (page.number - 1)
            shown = [item for item in reversed(items) if item["status_shard"]["S"].startswith(page.wanted)]
            query = {"status": ",".join(page.wanted), "limit": page.limit}
            if start:
                query["cursor"] = urlsafe_b64encode(shown[start - 1]["position"]["S"].encode()).decode().rstrip("=")
            units: list[float] = []

            def note(parsed: "dict[str, list[Item]]", **_: object) -> None:
                ids = [re.findall(ID, str(item))[0] for item in parsed["Items"]]
                units.append(read_units([by_id[each] for each in ids]))  # noqa: B023

            events.register("after-call.dynamodb.Query", note)
            listed = api.get(f"/incidents?{urlencode(query)}").get_json()
            events.unregister("after-call.dynamodb.Query", note)
            assert [each["id"] for each in listed] == [item["id"]["S"] for item in shown[start : start + page.limit]]
            found[page.name] = f"{sum(units):g} ({len(units)})"
    return found


def main() -> None:
    published = Path(__file__).with_name("README.md").read_text()
    good = True
    for section, (pages, columns) in TABLES.items():
        print(f"{section}: read units (requests)")
        by_stored = {page.stored: [each for each in pages if each.stored == page.stored] for page in pages}
        cells = [
            {name: cost for stored, some in by_stored.items() for name, cost in costs(some, stored, *column).items()}
            for column in columns
        ]
        for page in pages:
            row = f"| {page.name} | {' | '.join(column.get(page.name, '') for column in cells)} |"
            print(row)
            good = good and row in published
    if not good:
        sys.exit("README.md has other figures.")


if __name__ == "__main__":
    main()
