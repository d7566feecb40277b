"""What a page of the list costs as the incidents grow in number, and what the index takes: `make bench-list`.

The pages are asked of the function itself, over the local run's database. It names no read units, so that they are computed from the items that each Query brought, by DynamoDB's published rules: an item by its whole size in the
index, whatever of it was asked for. Nothing filters these items, so that what came back is what was read. Figures on paper
follow from the same rules and are marked with a star.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
"""

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import matplotlib as mpl
from matplotlib.figure import Figure
from werkzeug.test import Client

import dynamodb
import store
from incident import MAX_DESCRIPTION, Incident, Source, Status
from infra.local import template
from infra.local.database import Database
from infra.local.gateway import Gateway
from infra.local.server import Server

if TYPE_CHECKING:
    from botocore.model import OperationModel
    from matplotlib.axes import Axes
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryOutputTypeDef

RESULTS = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).with_suffix(".svg")

SIZES = (1_000, 10_000, 100_000)
ON_PAPER = 100_000_000
SHARDS = (1, 4, 16, 64)
ENOUGH_FOR_SHARDS = 20_000
"""Incidents: enough to fill a page from each of 4 × 64 partitions."""

REPORT = "Самокат #4567 не отвечает на запросы, водитель ждёт на точке. Перезагрузка не помогла; нужен механик. Отчёт не выгружен."
"""Of 120 characters: about half a kilobyte in the index."""

PARTITION_WRITES = 1_000
"""Write units a second that one partition takes, DynamoDB's published limit."""

TABLE_WRITES = 40_000
"""Write units a second that an account's table or index takes, DynamoDB's default quota, which AWS raises on request."""


class Page(NamedTuple):
    """A page of the list, as a client asks for it."""

    name: str
    statuses: Sequence[Status]
    limit: int
    number: int
    stored: Sequence[Status] = tuple(Status)
    """The statuses that the incidents have, in turn."""

    def cursor(self, incidents: Sequence[Incident]) -> str:
        """What the page before would have linked to, from the incidents in the order of creation."""
        matching = [incident for incident in incidents if incident.status in self.statuses]
        last = matching[-self.limit * (self.number - 1)]
        return urlsafe_b64encode(last.position.encode()).decode().rstrip("=")


EVERY = list(Status)
PAGES = [
    Page("first page of 50", EVERY, 50, 1),
    Page("100th page of 50", EVERY, 50, 100),
    Page("first page of 50, every incident open", EVERY, 50, 1, (Status.OPEN,)),
    Page("first page of 50, open alone", [Status.OPEN], 50, 1),
    Page("100th page of 5", EVERY, 5, 100),
]
SHARDED = [PAGES[0], PAGES[2], PAGES[3]]


class Cost(NamedTuple):
    """What a page asks of DynamoDB."""

    requests: int
    read_units: float


def size(item: "Mapping[str, AttributeValueTypeDef]") -> int:
    """Bytes, as DynamoDB counts an item: the names and the values in UTF-8, a number by its digits."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: "AttributeValueTypeDef") -> int:
    return len(value["S"].encode()) if "S" in value else ceil(len(value["N"]) / 2) + 1


def read_units(read: int) -> float:
    """Of one Query that read so many bytes, eventually consistent: a half for each 4 KB; a half, too, where it found nothing."""
    return max(1, ceil(read / 4096)) / 2


def write_units(item: "Mapping[str, AttributeValueTypeDef]") -> int:
    """Of putting the item in the index, or of deleting it there."""
    return ceil(size(item) / 1024)


def incidents(number: int, statuses: Sequence[Status] = EVERY) -> list[Incident]:
    """As many, one a minute, all of one size but for the name of their status: these in turn."""
    random = Random(number)  # noqa: S311 (the same ids in every run)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = []
    for minute in range(number):
        time = (start + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:00.000Z")
        made.append(
            Incident(
                id=str(UUID(int=random.getrandbits(128), version=4)),
                description=REPORT,
                source=Source.MONITORING,
                status=statuses[minute % len(statuses)],
                created_at=time,
                updated_at=time,
                version=2,
            )
        )
    return made


@contextmanager
def table(stored: Sequence[Incident]) -> Iterator[None]:
    """Have the store ask a table that holds these incidents."""
    with TemporaryDirectory() as folder:
        lines = [json.dumps(store.item(incident, None), ensure_ascii=False) for incident in stored]
        Path(folder, "incidents.jsonl").write_text("\n".join([*lines, ""]))
        database = Database(Path(folder), template.load())
        server = Server(database, port=0)
        server.start()
        store.client = dynamodb.connect(endpoint=f"http://127.0.0.1:{server.port}")
        yield
        server.stop()
        database.close()


def measured(api: Client, page: Page, stored: Sequence[Incident]) -> Cost:
    """What the page costs, seen from where botocore hands on what DynamoDB answered."""
    queries: list[float] = []
    by_id = {incident.id: incident for incident in stored}

    def note(model: "OperationModel", parsed: "QueryOutputTypeDef", **_: object) -> None:
        assert model.name == "Query"
        assert parsed["Count"] == parsed["ScannedCount"], "a filter hides what was read"
        read = [by_id[item["id"]["S"]] for item in parsed["Items"]]
        queries.append(read_units(sum(size(store.item(incident, None)) for incident in read)))

    url = f"/incidents?status={','.join(page.statuses)}&limit={page.limit}"
    if page.number > 1:
        url += f"&cursor={page.cursor(stored)}"
    store.client.meta.events.register("after-call.dynamodb", note)
    response = api.get(url, environ_base={"REMOTE_ADDR": "127.0.0.1"})
    store.client.meta.events.unregister("after-call.dynamodb", note)
    shown = [incident for incident in stored if incident.status in page.statuses][::-1]
    start = page.limit * (page.number - 1)
    assert [each["id"] for each in response.get_json()] == [each.id for each in shown[start : start + page.limit]]
    return Cost(len(queries), sum(queries))


def on_paper(page: Page) -> Cost:
    """What the page costs with one shard where each partition that holds incidents has more than the page."""
    wanted = page.limit + 1
    share = min(wanted, wanted // len(page.statuses) + store.SPARE)
    of_each_status = {incident.status: size(store.item(incident, None)) for incident in incidents(len(EVERY))}
    full = [status for status in page.statuses if status in page.stored]
    read = [share * of_each_status[status] if status in full else 0 for status in page.statuses]
    if share * len(full) < wanted:
        read += [(wanted - share * len(full)) * of_each_status[status] for status in full]
    return Cost(len(read), sum(map(read_units, read)))


def measure_pages(api: Client) -> dict[str, dict[int, Cost]]:
    """Each page's cost by the number of incidents, where there are enough of them for it."""
    costs: dict[str, dict[int, Cost]] = {page.name: {} for page in PAGES}
    for number in SIZES:
        for statuses in {page.stored for page in PAGES}:
            stored = incidents(number, statuses)
            with table(stored):
                for page in PAGES:
                    if page.stored == statuses and page.limit * page.number <= number:
                        costs[page.name][number] = measured(api, page, stored)
    for page in PAGES:
        costs[page.name][ON_PAPER] = on_paper(page)
    return costs


def measure_shards(api: Client) -> dict[str, dict[int, Cost]]:
    """The cost of the first pages by the number of shards."""
    costs: dict[str, dict[int, Cost]] = {page.name: {} for page in SHARDED}
    for page in SHARDED:
        stored = incidents(ENOUGH_FOR_SHARDS, page.stored)
        for store.SHARDS in SHARDS:
            with table(stored):
                costs[page.name][store.SHARDS] = measured(api, page, stored)
    store.SHARDS = 1
    return costs


class Writes(NamedTuple):
    """What a report's size makes of the index's limit."""

    name: str
    bytes: int
    write_units: int
    creates: dict[int, int]
    """A second, by the number of shards. Of incidents that also leave their first status, half as many."""


def index_writes() -> list[Writes]:
    """On paper: creates a second that the index takes, all of them of one status, by the size of a report."""
    (short,) = incidents(1)
    rows = []
    for name, description in [
        (f"{len(REPORT)} characters", REPORT),
        ("1,000 characters", "я" * 1_000),
        ("10,000 characters", "я" * MAX_DESCRIPTION),
    ]:
        item = store.item(short.model_copy(update={"description": description}), None)
        units = write_units(item)
        creates = {shards: shards * PARTITION_WRITES // units for shards in SHARDS}
        rows.append(Writes(name, size(item), units, creates))
    return rows


def print_pages(costs: Mapping[str, Mapping[int, Cost]]) -> None:
    columns = [*SIZES, ON_PAPER]
    print("Read units (requests) of a page, by the number of incidents; 1 shard; * on paper")
    print(
        f"{'':40}" + "".join(f"{number:>15,}{'*' * (number == ON_PAPER)}" for number in columns) + "    100,000 : 1,000"
    )
    for name, of_page in costs.items():
        cells = [of_page.get(number) for number in columns]
        texts = [f"{cost.read_units:g} ({cost.requests})" if cost else "no such page" for cost in cells]
        first = min(of_page)
        ratio = of_page[100_000].read_units / of_page[first].read_units
        note = "" if first == SIZES[0] else f" (: {first:,})"
        print(f"{name:40}" + "".join(f"{text:>15}" for text in texts) + f"{ratio:>16.2f}{note}")
    worst = max(of_page[100_000].read_units / of_page[min(of_page)].read_units for of_page in costs.values())
    print(f"The largest ratio is {worst:.2f}; at most 1.05 is wanted.\n")


def print_shards(pages: Mapping[str, Mapping[int, Cost]], writes: Sequence[Writes]) -> None:
    print("What the index takes and what a page costs, by StatusShards")
    print(f"{'':72}" + "".join(f"{shards:>12}" for shards in SHARDS))
    for row in writes:
        label = f"creates/s*, {row.name}, {row.bytes:,} B, {row.write_units} WU"
        print(f"{label:72}" + "".join(f"{creates:>12,}" for creates in row.creates.values()))
    for name, costs in pages.items():
        cells = [f"{cost.read_units:g} ({cost.requests})" for cost in costs.values()]
        print(f"{f'{name}: read units (requests)':72}" + "".join(f"{cell:>12}" for cell in cells))
    print(
        f"* On paper: {PARTITION_WRITES:,} write units a second for each partition of the index, all creates in one status."
        " A change of status is a delete in one partition and a put in another: where every incident leaves its first"
        " status in time, half of these. Characters are Cyrillic, two bytes each."
        f" Beyond {TABLE_WRITES:,} units a second the account's quota for an index has to be raised, too."
    )


def draw(pages: Mapping[str, Mapping[int, Cost]], writes: Sequence[Writes]) -> None:
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "paging", "font.family": "sans-serif", "font.size": 9})
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_pages(left, pages)
    _draw_writes(right, writes)
    figure.savefig(PICTURE, metadata={"Date": None})


def _draw_pages(axes: "Axes", pages: Mapping[str, Mapping[int, Cost]]) -> None:
    columns = [*SIZES, ON_PAPER]
    (item,) = (store.item(each, None) for each in incidents(1))
    scan = [read_units(number * size(item)) for number in columns]
    axes.plot(columns, scan, color="0.6", linestyle="--", label="a Scan instead*")
    # The pages of 50 cost the same: the mark of the one shows around the mark of the other.
    for (name, of_page), marker, width in zip(pages.items(), "osv^D", (10, 5, 8, 6, 5), strict=True):
        units = [cost.read_units for cost in of_page.values()]
        axes.plot(list(of_page), units, marker=marker, markersize=width, label=f"{name}: {units[-1]:g}")
    axes.set(xscale="log", yscale="log", ylim=(0.3, 3e7), xlabel="incidents in the table")
    axes.set_xticks(columns, [f"{number:,}" + "*" * (number == ON_PAPER) for number in columns])
    axes.minorticks_off()
    axes.set_title("Read units of a page: the same at any size")
    axes.legend(loc="upper left", frameon=False)
    axes.grid(alpha=0.3)


def _draw_writes(axes: "Axes", writes: Sequence[Writes]) -> None:
    for row in writes:
        axes.plot(
            list(row.creates),
            list(row.creates.values()),
            marker="o",
            label=f"{row.name}: {row.write_units} write units",
        )
        for shards, creates in row.creates.items():
            axes.annotate(f"{creates:,}", (shards, creates), (0, 5), textcoords="offset points", ha="center")
    axes.set(xscale="log", yscale="log", xlim=(0.7, 100), ylim=(20, 2e6), xlabel="StatusShards (* on paper)")
    axes.set_xticks(SHARDS, [str(shards) for shards in SHARDS])
    axes.minorticks_off()
    axes.set_title("Creates a second that the index takes*")
    axes.legend(loc="upper left", frameon=False, title="a report of …")
    axes.grid(alpha=0.3)


def main() -> None:
    with Path(os.devnull).open("w") as log:
        api = Client(Gateway(log))
        pages = measure_pages(api)
        shards = measure_shards(api)
    writes = index_writes()
    print_pages(pages)
    print_shards(shards, writes)
    draw(pages, writes)
    results = {
        "command": "make bench-list",
        "pages": {
            name: {number: cost._asdict() for number, cost in of_page.items()} for name, of_page in pages.items()
        },
        "by_shards": {
            name: {number: cost._asdict() for number, cost in of_page.items()} for name, of_page in shards.items()
        },
        "index_writes": [row._asdict() for row in writes],
        "on_paper": ["index_writes", f"pages.*.{ON_PAPER}"],
    }
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
