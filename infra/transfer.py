"""Incidents in and out: `make import`, `make export`, `make erase`.

They work on the local run's data while no run uses it, or on a deployed stack's table. The latter needs AWS credentials that allow
cloudformation:DescribeStacks and, on the table, dynamodb:PutItem to import, Scan and DescribeTable to export, GetItem and PutItem to
erase.
"""

import argparse
import csv
import json
import os
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO, TypeVar, cast

from pydantic import ValidationError
from tqdm import tqdm

from incident import ID_PATTERN, Change, DamagedItem, HistoryEntry, Incident, NewIncident, Status, derived_id
from infra.local import environment, template
from infra.local.items import DataFolderError, Item, Items
from infra.stack import CommandError, connect, describe, exit_on_error
from rfc3339 import in_utc, parse_time

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

    StoredItem = dict[str, AttributeValueTypeDef]

COLUMNS = ("id", "description", "source", "status", "created_at")
"""The columns that an import needs."""
BATCH = 100
"""Rows stored at once."""
EXTRA = "(more cells than the header)"
"""The name under which a row has its cells beyond the header."""
TIME = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.,]*\s*(?:Z|[+-]\d\d(?::?\d\d)?)?)?"
"""A time as PostgreSQL and JSON write it. Python accepts more: it reads 1731061210123 as the year 1731."""
ERASED = "[erased]"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What begins a formula in a spreadsheet: https://owasp.org/www-community/attacks/CSV_Injection"""
PLAIN_LINES_EVERY = 10_000
"""Rows between two lines of progress without a terminal."""

Fields = dict[str, object]
T = TypeVar("T")


class BadRow(Exception):
    """All the faults of a row, which is not imported."""


# ---- tables


class LocalTable(Items):
    """The data folder of the local run."""

    def add(self, items: Sequence[Item]) -> list[Item]:
        """Store each item unless its id is taken; return the items that are then stored under their ids."""
        new = {_id(item): item for item in items}
        stored = {_id(item): item for item in self.read(new)}
        self.write({key: item for key, item in new.items() if key not in stored})
        return [stored.get(key, item) for key, item in new.items()]

    def scan(self) -> Iterator[Item]:
        return self.read()

    def get(self, incident_id: str) -> Item | None:
        return next(self.read([incident_id]), None)

    def replace(self, item: Item, version: int) -> bool:  # noqa: ARG002 (no other process has the folder)
        """Replace the item with the same id if it is an incident of this version; return whether it was."""
        self.write({_id(item): item})
        return True


def _id(item: Item) -> str:
    return str(item["id"]["S"])


class DeployedTable:
    """The table that the environment names."""

    def __init__(self) -> None:
        import dynamodb
        import store

        self._store = store
        # No client waits for a response: ten attempts outlast throttling.
        self._dynamodb = dynamodb.connect(10)
        self._refused = self._dynamodb.exceptions.ConditionalCheckFailedException

    def add(self, items: Sequence[Item]) -> list[Item]:
        stored, error = self._store.in_parallel(self._add, items)
        if error:
            raise error
        return stored

    def _add(self, item: Item) -> Item:
        try:
            self._dynamodb.put_item(
                TableName=self._store.TABLE,
                Item=cast("StoredItem", item),
                ConditionExpression="attribute_not_exists(id)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._refused as error:
            return cast("Item", self._store.existing_item(error))
        return item

    def scan(self) -> Iterator[Item]:
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._store.TABLE, ConsistentRead=True)
        return (cast("Item", item) for page in pages for item in page["Items"])

    def size(self) -> int:
        return self._dynamodb.describe_table(TableName=self._store.TABLE)["Table"]["ItemCount"]

    def get(self, incident_id: str) -> Item | None:
        key: StoredItem = {"id": {"S": incident_id}}
        found = self._dynamodb.get_item(TableName=self._store.TABLE, Key=key, ConsistentRead=True)
        return cast("Item | None", found.get("Item"))

    def replace(self, item: Item, version: int) -> bool:
        try:
            self._dynamodb.put_item(
                TableName=self._store.TABLE,
                Item=cast("StoredItem", item),
                ConditionExpression="incident.#version = :version",
                ExpressionAttributeNames={"#version": "version"},
                ExpressionAttributeValues={":version": {"N": str(version)}},
            )
        except self._refused:
            return False
        return True


Table = LocalTable | DeployedTable


@contextmanager
def open_table(stack: str, data: Path) -> Iterator[Table]:
    """The table of a stack, or without one that of the local run's data folder. Raises `CommandError` and `DataFolderError`."""
    os.environ["METRICS_NAMESPACE"] = ""  # commands count nothing
    if stack:
        session = connect()
        found = describe(session, stack)
        if session.region_name:  # the functions' client reads no AWS_REGION
            os.environ["AWS_DEFAULT_REGION"] = session.region_name
        os.environ.update(TABLE_NAME=found.outputs["TableName"], STATUS_SHARDS=found.parameters["StatusShards"])
        yield DeployedTable()
        return
    environment.isolate()
    os.environ.update(TABLE_NAME=template.TABLE, STATUS_SHARDS="1")
    with closing(LocalTable(data)) as table:
        yield table


# ---- import


class Row(NamedTuple):
    old_id: str
    incident: Incident
    history: list[HistoryEntry]


def rows(path: Path) -> Iterator[tuple[str, Fields]]:
    """The rows of a file, each with its place: of CSV with a header, JSON Lines, or a JSON array. Raises `CommandError`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
        file.seek(0)
        if start == "[":
            items = _json(file.read())
            if not isinstance(items, list):
                raise CommandError(f"{path} begins with [, but is not a JSON array.")
            for number, item in enumerate(items, 1):
                yield f"item {number}", _fields(item)
        elif start == "{":
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", _fields(_json(line))
        else:
            yield from _csv(file, path)


def _csv(file: TextIO, path: Path) -> Iterator[tuple[str, Fields]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(file, restkey=EXTRA, strict=True)
    header = list(reader.fieldnames or ())
    if missing := [name for name in COLUMNS if name not in header]:
        raise CommandError(f"{path} has no column {', '.join(missing)} in its first line.")
    if repeated := [name for name in COLUMNS if header.count(name) > 1]:
        raise CommandError(f"{path} has the column {', '.join(repeated)} more than once.")
    first = reader.line_num + 1
    for row in reader:
        yield f"line {first}", {name: value for name, value in row.items() if name}
        first = reader.line_num + 1


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _fields(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def parse(fields: Fields, words: Mapping[tuple[str, str], str]) -> Row:
    """The incident in a row, after these replacements of (column, word). Raises `BadRow`."""
    present = {name: words.get((name, str(value)), value) for name, value in fields.items() if value not in (None, "")}
    faults = [f"{name} is missing" for name in COLUMNS if name not in present]
    if EXTRA in fields:
        faults.append("it has more cells than the header")
    old_id = str(fields.get("id")).strip()
    if "id" in present and not (old_id and old_id.isprintable()):
        faults.append(f"id cannot be {old_id!r}")
    reported = {name: present[name] for name in ("description", "source", "status") if name in present}
    try:
        new = NewIncident.model_validate({"description": "x", "source": "partner", **reported})
    except ValidationError as error:
        faults += [_fault(each["loc"][0], each["msg"], fields) for each in error.errors()]
    try:
        created_at = _time(present["created_at"]) if "created_at" in present else ""
    except (ValueError, OverflowError):
        faults.append(f"created_at is not a time: {fields['created_at']!r}")
    if faults:
        raise BadRow("; ".join(faults))
    new_id = old_id.lower() if re.fullmatch(ID_PATTERN, old_id.lower()) else derived_id("import", old_id)
    incident = Incident(**new.model_dump(), id=new_id, created_at=created_at, updated_at=created_at, version=1)
    if isinstance(fields.get("history"), list):
        return Row(old_id, *_with_history(incident, fields))
    return Row(
        old_id, incident, [HistoryEntry(version=1, status=incident.status, at=created_at, by=None, comment=None)]
    )


def _with_history(incident: Incident, fields: Fields) -> tuple[Incident, list[HistoryEntry]]:
    try:
        entries = [HistoryEntry.model_validate(entry) for entry in cast("list[object]", fields["history"])]
        history = [entry.model_copy(update={"at": _time(entry.at)}) for entry in entries]
        for entry in history:
            Change(status=entry.status, comment=entry.comment)
        latest = {"updated_at": _time(fields.get("updated_at")), "version": fields.get("version")}
        incident = Incident.model_validate(incident.model_dump() | latest)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise BadRow("; ".join(faults)) from None
    except (ValueError, OverflowError):
        raise BadRow("updated_at or a time of the history is not a time") from None
    last = incident.version
    versions = range(max(1, last - len(history) + 1), last + 1)
    if not history or [entry.version for entry in history] != [*versions] or history[-1].status != incident.status:
        raise BadRow("the history does not lead to the incident's version and status without gaps")
    return incident, history


def _fault(name: int | str, message: str, fields: Fields) -> str:
    value = fields.get(str(name))
    hint = f" (MAP={f'{name}.{value}=…'!r} translates it)" if name in ("source", "status") else ""
    return f"{name}: {message}" + (f", not {value!r}{hint}" if name != "description" else "")


def _time(value: object) -> str:
    """A time as PostgreSQL or JSON writes it, in the format of `Incident.created_at`; without an offset it is UTC."""
    if not isinstance(value, str) or not re.fullmatch(TIME, value.strip(), re.ASCII):
        raise ValueError("not a time")
    time = datetime.fromisoformat(value.strip())
    return in_utc(time if time.tzinfo else time.replace(tzinfo=UTC))


def words(mapping: str) -> dict[tuple[str, str], str]:
    """`source.web=partner status.new=open` as replacements of (column, word). Raises `CommandError`."""
    pattern = re.compile(r"\s*(source|status)\.([^=]+)=(\w+)(?=\s|$)\s*")  # a word of the old service may have spaces
    if pattern.sub("", mapping):
        raise CommandError('MAP cannot be read. It should look like MAP="source.web=partner status.new=open".')
    return {(name, old): new for name, old, new in pattern.findall(mapping)}


def import_incidents(path: Path, table: Table, mapping: str) -> int:
    """Store the incidents of a file that are not stored yet; return the exit status: 1 if a row was left out."""
    import store

    counts = Counter[str]()
    known = words(mapping)
    total = sum(1 for _ in rows(path))
    good = _good(_progress(rows(path), total, "rows"), known, counts)
    ids_path = path.with_name(f"{path.name}.ids.csv")
    with ids_path.open("w", encoding="utf-8", newline="") as file:
        ids = csv.writer(file)
        ids.writerow(["old_id", "id"])
        for batch in _batches(good):
            # notify_telegram does not announce an incident of this version.
            items = [store.item(row.incident, row.history, f"import#{row.incident.version}") for _, row in batch]
            for (place, row), item, stored in zip(batch, items, table.add(cast("list[Item]", items)), strict=True):
                try:
                    same = _is_the_same(row, *store.from_item(cast("StoredItem", stored)))
                except DamagedItem:
                    same = False
                if not same:
                    _complain(place, f"another incident, or another state of it, is stored as {row.incident.id}")
                    counts["left out"] += 1
                    continue
                counts["imported" if stored is item else "already there"] += 1
                ids.writerow([row.old_id, row.incident.id])
    print(f"{counts['imported']} imported, {counts['already there']} already there, {counts['left out']} left out.")
    print(f"The old and the new ids are in {ids_path}.")
    return int(counts["left out"] > 0)


def _good(
    found: Iterable[tuple[str, Fields]], known: Mapping[tuple[str, str], str], counts: Counter[str]
) -> Iterator[tuple[str, Row]]:
    """The rows that can be imported, each with its place."""
    for place, fields in found:
        try:
            yield place, parse(fields, known)
        except BadRow as error:
            _complain(place, str(error))
            counts["left out"] += 1


def _batches(good: Iterable[tuple[str, Row]]) -> Iterator[list[tuple[str, Row]]]:
    """The rows in their order, in batches that repeat no id."""
    batch: dict[str, tuple[str, Row]] = {}
    for place, row in good:
        if row.incident.id in batch or len(batch) == BATCH:
            yield list(batch.values())
            batch = {}
        batch[row.incident.id] = (place, row)
    yield list(batch.values())


def _is_the_same(row: Row, stored: Incident, history: list[HistoryEntry]) -> bool:
    same = stored.reports_the_same_as(row.incident) and stored.created_at == row.incident.created_at
    return same and history[: len(row.history)] == row.history


def _complain(place: str, text: str) -> None:
    tqdm.write(f"{place}: {text}", file=sys.stderr)


def _progress(values: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """The values, with a progress bar on a terminal, or else a line now and then."""
    bar = tqdm(values, total=total, unit=f" {unit}", disable=None)  # without a terminal
    for number, value in enumerate(bar, 1):
        if bar.disable and number % PLAIN_LINES_EVERY == 0:
            print(f"{number} of {total} {unit}", file=sys.stderr, flush=True)
        yield value


# ---- export


def export_incidents(path: Path, table: Table, form: str, since: str, until: str, statuses: str) -> int:
    """Write the selected incidents with their history to a file, oldest first; return the exit status: 1 if an item is damaged."""
    import store

    wanted = {Status(status) for status in statuses.split(",") if status} or set(Status)
    first, end = parse_time(since) if since else "", parse_time(until) if until else "A"
    unreadable = 0
    # SQLite sorts on disk, so memory does not limit their number.
    with closing(sqlite3.connect("", isolation_level=None)) as found:
        found.execute("CREATE TABLE found (position TEXT PRIMARY KEY, incident TEXT)")
        found.execute("BEGIN")
        for item in _progress(table.scan(), table.size(), "items"):
            if "position" not in item:
                continue
            try:
                incident, history = store.from_item(cast("StoredItem", item))
            except DamagedItem:
                _complain(str(item["id"]["S"]), "this item is not a valid incident, and is left out")
                unreadable += 1
                continue
            if incident.status in wanted and first <= incident.created_at < end:
                entries = [entry.model_dump(mode="json") for entry in history]
                line = json.dumps(incident.model_dump(mode="json") | {"history": entries}, ensure_ascii=False)
                found.execute("INSERT INTO found VALUES (?, ?)", [incident.position, line])
        (number,) = found.execute("SELECT count(*) FROM found").fetchone()
        lines = (line for (line,) in found.execute("SELECT incident FROM found ORDER BY position"))
        partial = path.with_name(f"{path.name}.part")
        (_write_csv if form == "csv" else _write_jsonl)(partial, lines)
    partial.replace(path)
    print(f"{number} incidents are in {path}.")
    return int(unreadable > 0)


def _write_jsonl(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _write_csv(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # without the mark, Excel assumes another encoding
        writer = csv.writer(file)
        writer.writerow([*Incident.model_fields, "history"])
        for line in lines:
            fields = json.loads(line)
            fields["history"] = "\n".join(
                " ".join(filter(None, (each["at"], each["status"], each["by"], each["comment"])))
                for each in fields["history"]
            )
            writer.writerow([_as_text(value) for value in fields.values()])


def _as_text(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


# ---- erase


def erase(incident_id: str, table: Table, *, asks: bool) -> int:
    """Overwrite what people wrote about an incident, and their names. Return the exit status."""
    import store

    found = table.get(incident_id.strip().lower())
    if not found or "position" not in found:
        raise CommandError(f"There is no incident {incident_id}.")
    try:
        incident, history = store.from_item(cast("StoredItem", found))
    except DamagedItem:
        raise CommandError(
            f"The item {incident_id} is damaged. Nothing was erased: correct or delete the item."
        ) from None
    comments = sum(entry.comment is not None for entry in history)
    names = sum(_is_a_person(entry.by) for entry in history)
    print(f"{incident.id}, {incident.status}, created at {incident.created_at}")
    print(f"{ERASED} will replace the description, {comments} comments and {names} names in the history.")
    print(
        "Backups keep them for 35 days, and messages in chats and exported files until they are deleted. Logs never had them."
    )
    if asks and not _consents():
        raise CommandError("Nothing was erased. Without a terminal, YES=1 consents.")
    erased = []
    for entry in history:
        by = ERASED if _is_a_person(entry.by) else entry.by
        comment = ERASED if entry.comment is not None else None
        erased.append(entry.model_copy(update={"by": by, "comment": comment}))
    origin = str(found["origin"]["S"]) if "origin" in found else ""
    item = cast("Item", store.item(incident.model_copy(update={"description": ERASED}), erased, origin))
    if not table.replace(item, incident.version):
        raise CommandError("The incident has just been changed. Nothing was erased: try again.")
    print("Erased.")
    return 0


def _consents() -> bool:
    try:
        return input("Type yes to erase: ").strip() == "yes"
    except EOFError:
        return False


def _is_a_person(by: str | None) -> bool:
    """Whether this is a Telegram user; all others are access keys."""
    return by is not None and by.startswith("telegram:")


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.transfer", description="Move incidents in and out.")
    parser.add_argument("what", choices=["import", "export", "erase"])
    for name in ("data", "stack", "file", "map", "format", "since", "until", "status", "id"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--yes", action="store_true")
    options = parser.parse_args()
    with exit_on_error(DataFolderError, OSError, csv.Error, ValueError):
        try:
            sys.exit(_run(options))
        except KeyboardInterrupt:
            sys.exit("Interrupted. Run it again: what is imported stays, and is not imported twice.")


def _run(options: argparse.Namespace) -> int:
    erases = options.what == "erase"
    if not erases and not options.file:
        raise CommandError(f"Which file? make {options.what} FILE=incidents.csv")
    if erases and not options.id:
        raise CommandError("Which incident? make erase ID=…")
    path, data = Path(options.file), Path(options.data or ".local")
    if options.what != "import" and not options.stack and not (data / "incidents.sqlite").exists():
        raise CommandError(f"There are no incidents in the folder {data}.")
    journal = data / "incidents.jsonl"
    if erases and not options.stack and journal.exists():
        raise CommandError(f"{journal}, kept from an earlier release, has the text, too: delete it first.")
    with open_table(options.stack, data) as table:
        if options.what == "import":
            return import_incidents(path, table, options.map)
        if erases:
            return erase(options.id, table, asks=not options.yes)
        form = options.format or path.suffix.removeprefix(".")
        if form not in ("csv", "jsonl"):
            raise CommandError("FORMAT must be csv or jsonl.")
        return export_incidents(path, table, form, options.since, options.until, options.status)


if __name__ == "__main__":
    main()
