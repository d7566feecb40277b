"""The cost of a page of the list with more incidents and with more shards: `make bench-list`.

The real function serves the pages on moto's DynamoDB. Moto reports no read units, so they are computed by DynamoDB's published
rules from each Query's items, which are all that it read: it has no filter, and an item counts with its whole size in the index.
The exit status is 1 if README.md has other figures.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
"""

import json
import sys
from base64 import urlsafe_b64encode
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from math import ceil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock
from urllib.parse import urlencode
from uuid import UUID

import moto

import store
from incident import HistoryEntry, Incident, NewIncident, Source, Status
from infra.local import template
from infra.local.event import http_event
from tests.invoke import answer_of

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryOutputTypeDef

STATUSES = tuple(Status)
OPEN = (Status.OPEN,)
REPORT = "Самокат #4567 не отвечает на запросы, водитель ждёт на точке. Перезагрузка не помогла; нужен механик. Отчёт не выгружен."
"""120 characters: about half a kilobyte in the index."""


class Page(NamedTuple):
    """A request for a page of the list."""

    name: str
    wanted: tuple[Status, ...] = STATUSES
    stored: tuple[Status, ...] = STATUSES
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


def incidents(stored: tuple[Status, ...], number: int) -> list[Incident]:
    """One a minute, oldest first, with the statuses in turn and random ids."""
    random = Random(number)  # noqa: S311 (for the same ids in every run)
    made = []
    for minute in range(number):
        new = NewIncident(description=REPORT, source=Source.MONITORING, status=stored[minute % len(stored)])
        incident = Incident.report(new, id=str(UUID(int=random.getrandbits(128), version=4)))
        time = f"{datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute):%Y-%m-%dT%H:%M:00.000Z}"
        made.append(incident.model_copy(update={"created_at": time, "updated_at": time}))
    return made


def fill(made: list[Incident]) -> dict[str, int]:
    """Store the incidents in a new table; return the size of each in the index, by id."""
    store.client.create_table(**template.load().table())
    reported = [HistoryEntry(version=1, status=each.status, at=each.created_at, by=None, comment=None) for each in made]
    items = [store.item(each, [entry]) for each, entry in zip(made, reported, strict=True)]
    for start in range(0, len(items), 25):
        puts = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
        store.client.batch_write_item(RequestItems={store.TABLE: puts})  # type: ignore[dict-item]
    in_index = ("id", "status_shard", "position", "incident")
    return {item["id"]["S"]: sum(len(name) + size(item[name]) for name in in_index) for item in items}


def costs(pages: list[Page], stored: tuple[Status, ...], shards: int, number: int) -> dict[str, str]:
    """The read units and requests of each page for which there are enough incidents."""
    found: dict[str, str] = {}
    with moto.mock_aws(), mock.patch.object(store, "SHARDS", shards), redirect_stdout(StringIO()):
        made = incidents(stored, number)
        sizes = fill(made)
        units: list[float] = []

        def note(parsed: "QueryOutputTypeDef", **_: object) -> None:
            """An eventually consistent Query takes half a read unit for each 4 KB, at least one half."""
            read = sum(sizes[item["incident"]["M"]["id"]["S"]] for item in parsed["Items"])
            units.append(max(1, ceil(read / 4096)) / 2)

        store.client.meta.events.register("after-call.dynamodb.Query", note)
        for page in pages:
            start = page.limit * (page.number - 1)
            if start + page.limit > number:
                continue
            shown = [each for each in reversed(made) if each.status in page.wanted]
            query = {"status": ",".join(page.wanted), "limit": page.limit}
            if start:
                query["cursor"] = urlsafe_b64encode(shown[start - 1].position.encode()).decode().rstrip("=")
            event = http_event("GET", "/incidents", route_key="GET /incidents", query=urlencode(query))
            units.clear()
            _, _, listed = answer_of("read_incidents", event)
            assert json.loads(listed) == [each.model_dump() for each in shown[start : start + page.limit]]
            found[page.name] = f"{sum(units):g} ({len(units)})"
        store.client.meta.events.unregister("after-call.dynamodb.Query", note)
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
