"""Incidents in and out: `make import`, `make export`, `make erase`.

They work on the local run's data, which no run may have meanwhile, or on a deployed stack's table with the AWS credentials in the
environment. These need cloudformation:DescribeStacks, and on the table dynamodb:PutItem for an import, dynamodb:Scan and
DescribeTable for an export, dynamodb:GetItem and PutItem for an erasure.
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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError
from tqdm import tqdm

from incident import ID_PATTERN, HistoryEntry, Incident, NewIncident, Status, derived_id
from infra.keys import KeysError, connect, describe
from infra.local import environment, template
from infra.local.items import DataFolderError, Item, Items, Keys
from rfc3339 import parse_time

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

    StoredItem = dict[str, AttributeValueTypeDef]

COLUMNS = ("id", "description", "source", "status", "created_at")
"""What an import needs of a row."""
BATCH = 100
"""Rows that are stored at once."""
EXTRA = "(more cells than the header)"
"""The name of what a row has beyond the header."""
TIME = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.,]*\s*(?:Z|[+-]\d\d(?::?\d\d)?)?)?"
"""For `re.fullmatch`: a time as PostgreSQL and JSON write it. Python reads more, such as 1731061210123 as the year 1731."""
ERASED = "[erased]"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula: https://owasp.org/www-community/attacks/CSV_Injection"""
PLAIN_LINES_EVERY = 10_000
"""Rows between two lines of progress where there is no terminal."""

Fields = dict[str, object]
T = TypeVar("T")


class TransferError(Exception):
    """Why a command did nothing, or stopped: one line for the person who gave it."""


class BadRow(Exception):
    """A row that is not imported, with all its faults."""


# ---- tables


class Table(Protocol):
    """Where incidents are, as items in DynamoDB's JSON."""

    def add(self, items: Sequence[Item]) -> list[Item]:
        """Store each item unless its id is taken; return what is then stored under the ids."""

    def scan(self) -> Iterator[Item]:
        """Every item, in any order."""

    def size(self) -> int:
        """Roughly how many items there are."""

    def get(self, incident_id: str) -> Item | None:
        """The item with this id."""

    def replace(self, item: Item, version: int) -> bool:
        """Store an item in place of the one with its id if that is an incident of this version; return whether it was."""


class LocalTable:
    """The data folder of the local run."""

    def __init__(self, data: Path) -> None:
        """Open the folder. Raises `DataFolderError`."""
        table = template.load().table()
        (index,) = table["GlobalSecondaryIndexes"]
        self._items = Items(data, Keys(*(key["AttributeName"] for key in [*table["KeySchema"], *index["KeySchema"]])))

    def add(self, items: Sequence[Item]) -> list[Item]:
        ids = [str(item["id"]["S"]) for item in items]
        stored = {str(item["id"]["S"]): item for item in self._items.read(ids)}
        new: dict[str, Item | None] = {}
        for key, item in zip(ids, items, strict=True):
            if key not in stored:
                new[key] = stored[key] = item
        self._items.write(new)
        return [stored[key] for key in ids]

    def scan(self) -> Iterator[Item]:
        return self._items.read()

    def size(self) -> int:
        return self._items.size()

    def get(self, incident_id: str) -> Item | None:
        return next(self._items.read([incident_id]), None)

    def replace(self, item: Item, version: int) -> bool:  # noqa: ARG002 (nobody else has the folder)
        self._items.write({str(item["id"]["S"]): item})
        return True

    def close(self) -> None:
        self._items.close()


class DeployedTable:
    """The table that the environment names, as the functions ask it."""

    def __init__(self) -> None:
        import dynamodb
        import store

        self._store = store
        # Nobody waits for an answer here: ten attempts outlast what throttles the table.
        store.client = dynamodb.connect(10)

    def add(self, items: Sequence[Item]) -> list[Item]:
        stored, error = self._store.in_parallel(self._put, items)
        if error:
            raise error
        return stored

    def _put(self, item: Item) -> Item:
        client = self._store.client
        try:
            client.put_item(
                TableName=self._store.TABLE,
                Item=cast("StoredItem", item),
                ConditionExpression="attribute_not_exists(id)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except client.exceptions.ConditionalCheckFailedException as error:
            return cast("Item", self._store.existing_item(error))
        return item

    def scan(self) -> Iterator[Item]:
        pages = self._store.client.get_paginator("scan").paginate(TableName=self._store.TABLE, ConsistentRead=True)
        return (cast("Item", item) for page in pages for item in page["Items"])

    def size(self) -> int:
        return self._store.client.describe_table(TableName=self._store.TABLE)["Table"]["ItemCount"]

    def get(self, incident_id: str) -> Item | None:
        found = self._store.client.get_item(
            TableName=self._store.TABLE, Key={"id": {"S": incident_id}}, ConsistentRead=True
        )
        return cast("Item | None", found.get("Item"))

    def replace(self, item: Item, version: int) -> bool:
        client = self._store.client
        try:
            client.put_item(
                TableName=self._store.TABLE,
                Item=cast("StoredItem", item),
                ConditionExpression="incident.#version = :version",
                ExpressionAttributeNames={"#version": "version"},
                ExpressionAttributeValues={":version": {"N": str(version)}},
            )
        except client.exceptions.ConditionalCheckFailedException:
            return False
        return True


@contextmanager
def open_table(stack: str, data: Path) -> Iterator[Table]:
    """The table of a stack, or else of the local run's data folder."""
    if stack:
        session = connect()
        found = describe(session, stack)
        if session.region_name:  # the functions' client reads no AWS_REGION
            os.environ["AWS_DEFAULT_REGION"] = session.region_name
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
        parameters = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
        os.environ.update(TABLE_NAME=outputs["TableName"], STATUS_SHARDS=parameters["StatusShards"])
        os.environ["METRICS_NAMESPACE"] = ""  # a command counts nothing
        yield DeployedTable()
        return
    environment.isolate()
    os.environ.update(TABLE_NAME=template.TABLE, STATUS_SHARDS="1", METRICS_NAMESPACE="")
    with closing(LocalTable(data)) as table:
        yield table


# ---- import


class Row(NamedTuple):
    """An incident to import."""

    old_id: str
    incident: Incident
    history: list[HistoryEntry]


def rows(path: Path) -> Iterator[tuple[str, Fields]]:
    """The rows of a file, each with where it is: of CSV with a header, of JSON Lines, or of a JSON array. Raises `TransferError`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        start = file.read(1)
        while start.isspace():
            start = file.read(1)
        file.seek(0)
        if start == "[":
            yield from _array(file, path)
        elif start == "{":
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            yield from ((f"line {number}", _object(line)) for number, line in lines)
        else:
            yield from _csv(file, path)


def _array(file: TextIO, path: Path) -> Iterator[tuple[str, Fields]]:
    try:
        items = json.load(file)
    except (ValueError, RecursionError):
        raise TransferError(f"{path} begins like JSON, and is none.") from None
    for place, item in enumerate(items, 1):
        yield f"item {place}", item if isinstance(item, dict) else {}


def _csv(file: TextIO, path: Path) -> Iterator[tuple[str, Fields]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(file, restkey=EXTRA, strict=True)
    header = list(reader.fieldnames or ())
    if missing := [name for name in COLUMNS if name not in header]:
        raise TransferError(f"{path} has no column {', '.join(missing)} in its first line.")
    if repeated := [name for name in COLUMNS if header.count(name) > 1]:
        raise TransferError(f"{path} has the column {', '.join(repeated)} more than once.")
    first = reader.line_num + 1
    for row in reader:
        yield f"line {first}", {name: value for name, value in row.items() if name}
        first = reader.line_num + 1


def _object(line: str) -> Fields:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def parse(fields: Fields, words: Mapping[tuple[str, str], str]) -> Row:
    """The incident in a row, whose words are replaced by these. Raises `BadRow`."""
    faults = [f"{name} is missing" for name in COLUMNS if fields.get(name) in (None, "")]
    if EXTRA in fields:
        faults.append("it has more cells than the header")
    old_id = str(fields.get("id")).strip()
    if fields.get("id") not in (None, "") and not (old_id and old_id.isprintable()):
        faults.append(f"id cannot be {old_id!r}")
    values = {name: words.get((name, str(value)), value) for name, value in fields.items()}
    reported = {
        name: values[name] for name in ("description", "source", "status") if values.get(name) not in (None, "")
    }
    new = None
    try:
        new = NewIncident.model_validate({"description": "x", "source": "partner", **reported})
    except ValidationError as error:
        faults += [_fault(each["loc"][0], each["msg"], fields) for each in error.errors()]
    created_at = ""
    try:
        if fields.get("created_at") not in (None, ""):
            created_at = _time(values["created_at"])
    except (ValueError, OverflowError):
        faults.append(f"created_at is no time: {fields['created_at']!r}")
    if faults or not new:
        raise BadRow("; ".join(faults))
    new_id = old_id.lower() if re.fullmatch(ID_PATTERN, old_id.lower()) else derived_id("import", old_id)
    incident = Incident(**new.model_dump(), id=new_id, created_at=created_at, updated_at=created_at, version=1)
    first = HistoryEntry(version=1, status=incident.status, at=created_at, by=None, comment=None)
    if isinstance(fields.get("history"), list):
        return _with_history(Row(old_id, incident, []), fields)
    return Row(old_id, incident, [first])


def _with_history(row: Row, fields: Fields) -> Row:
    """The incident as `make export` has written it."""
    try:
        latest = {name: fields.get(name) for name in ("updated_at", "version")}
        incident = Incident.model_validate(row.incident.model_dump() | latest)
        history = [HistoryEntry.model_validate(entry) for entry in cast("list[object]", fields["history"])]
    except ValidationError as error:
        raise BadRow(
            "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        ) from None
    if not history or (history[-1].version, history[-1].status) != (incident.version, incident.status):
        raise BadRow("the history does not end with the incident's version and status")
    return Row(row.old_id, incident, history)


def _fault(name: int | str, message: str, fields: Fields) -> str:
    value = fields.get(str(name))
    hint = f" (MAP={f'{name}.{value}=…'!r} says what it is here)" if name in ("source", "status") else ""
    return f"{name}: {message}" + (f", not {value!r}{hint}" if name != "description" else "")


def _time(value: object) -> str:
    """A time as PostgreSQL or JSON writes it, in the format of `Incident.created_at`; without an offset it is UTC."""
    if not isinstance(value, str) or not re.fullmatch(TIME, value.strip(), re.ASCII):
        raise ValueError("not a time")
    time = datetime.fromisoformat(value.strip())
    in_utc = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return in_utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def words(mapping: str) -> dict[tuple[str, str], str]:
    """What `source.web=partner status.new=open` says. Raises `TransferError`."""
    pattern = re.compile(r"\s*(source|status)\.([^=]+)=(\w+)(?=\s|$)\s*")  # a word of the old service may have spaces
    if pattern.sub("", mapping):
        raise TransferError('MAP is not understood. It looks like MAP="source.web=partner status.new=open".')
    return {(name, old): new for name, old, new in pattern.findall(mapping)}


def import_incidents(path: Path, table: Table, mapping: str) -> int:
    """Store the incidents in a file, once; return the exit status: 1 if a row was left out."""
    import store

    known, counts = words(mapping), Counter[str]()
    total = sum(1 for _ in rows(path))
    ids_path = path.with_name(f"{path.name}.ids.csv")
    with ids_path.open("w", encoding="utf-8", newline="") as file:
        ids = csv.writer(file)
        ids.writerow(["old_id", "id"])
        for batch in _batches(_progress(rows(path), total, "rows")):
            good: list[tuple[str, Row]] = []
            for place, fields in batch:
                try:
                    good.append((place, parse(fields, known)))
                except BadRow as error:
                    _complain(place, str(error))
                    counts["left out"] += 1
            for some in _without_repeated_ids(good):
                # notify_telegram does not announce an incident of this version.
                items = [store.item(row.incident, row.history, f"import#{row.incident.version}") for _, row in some]
                for (place, row), item, stored in zip(some, items, table.add(cast("list[Item]", items)), strict=True):
                    other, history = store.from_item(cast("StoredItem", stored))
                    if not _is_the_same(row, other, history):
                        _complain(place, f"another incident, or another state of it, is stored as {row.incident.id}")
                        counts["left out"] += 1
                        continue
                    counts["imported" if stored is item else "already there"] += 1
                    ids.writerow([row.old_id, row.incident.id])
    print(f"{counts['imported']} imported, {counts['already there']} already there, {counts['left out']} left out.")
    print(f"The old and the new ids are in {ids_path}.")
    return int(counts["left out"] > 0)


def _without_repeated_ids(good: list[tuple[str, Row]]) -> Iterator[list[tuple[str, Row]]]:
    """The rows in their order, in parts without two of one id: the first one counts."""
    part: dict[str, tuple[str, Row]] = {}
    for each in good:
        if each[1].incident.id in part:
            yield list(part.values())
            part = {}
        part[each[1].incident.id] = each
    yield list(part.values())


def _is_the_same(row: Row, stored: Incident, history: list[HistoryEntry]) -> bool:
    """Whether the stored incident is the row's, however it has been changed since."""
    same = stored.reports_the_same_as(row.incident) and stored.created_at == row.incident.created_at
    return same and history[: len(row.history)] == row.history


def _complain(place: str, text: str) -> None:
    tqdm.write(f"{place}: {text}", file=sys.stderr)


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _progress(values: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """The values, with a bar on a terminal, and plain lines elsewhere."""
    if sys.stderr.isatty():
        yield from tqdm(values, total=total, unit=f" {unit}")
        return
    for number, value in enumerate(values, 1):
        if number % PLAIN_LINES_EVERY == 0:
            print(f"{number} of {total} {unit}", file=sys.stderr, flush=True)
        yield value


# ---- export


def export_incidents(path: Path, table: Table, form: str, since: str, until: str, statuses: str) -> int:
    """Write every wanted incident with its history to a file, oldest first; return the exit status: 1 if one cannot be read."""
    import store

    wanted = {Status(status) for status in statuses.split(",") if status} or set(Status)
    first, end = parse_time(since) if since else "", parse_time(until) if until else "A"
    unreadable = 0
    # SQLite sorts on the disk, however many there are.
    with closing(sqlite3.connect("", isolation_level=None)) as found:
        found.execute("CREATE TABLE found (position TEXT PRIMARY KEY, incident TEXT)")
        found.execute("BEGIN")
        for item in _progress(table.scan(), table.size(), "items"):
            if "position" not in item:
                continue
            try:
                incident, history = store.from_item(cast("StoredItem", item))
            except (KeyError, ValidationError):
                _complain(str(item["id"]["S"]), "this item is no incident, and left out")
                unreadable += 1
                continue
            if incident.status in wanted and first <= incident.created_at < end:
                fields = incident.model_dump(mode="json") | {
                    "history": [entry.model_dump(mode="json") for entry in history]
                }
                found.execute(
                    "INSERT INTO found VALUES (?, ?)", [incident.position, json.dumps(fields, ensure_ascii=False)]
                )
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
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # without the mark, Excel reads another encoding
        writer = csv.writer(file)
        writer.writerow([*Incident.model_fields, "history"])
        for line in lines:
            fields = json.loads(line)
            fields["history"] = "\n".join(
                " ".join(filter(None, (each["at"], each["status"], each["by"], each["comment"])))
                for each in fields["history"]
            )
            writer.writerow([_as_text(value) for value in fields.values()])


def _as_text(value: object) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


# ---- erase


def erase(incident_id: str, table: Table, *, asks: bool) -> int:
    """Overwrite what people wrote about an incident, and their names; return the exit status."""
    import store

    found = table.get(incident_id.strip().lower())
    if not found or "position" not in found:
        raise TransferError(f"There is no incident {incident_id}.")
    incident, history = store.from_item(cast("StoredItem", found))
    comments = sum(entry.comment is not None for entry in history)
    names = sum(_is_a_person(entry.by) for entry in history)
    print(f"{incident.id}, {incident.status}, created at {incident.created_at}")
    print(f"{ERASED} will replace the description, {comments} comments and {names} names in the history.")
    print(
        "Backups keep them for 35 days, and messages in chats and exported files until they are deleted. Logs never had them."
    )
    if asks and not _consents():
        raise TransferError("Nothing was erased. Without a terminal, YES=1 consents.")
    erased = [
        entry.model_copy(
            update={
                "comment": ERASED if entry.comment is not None else None,
                "by": ERASED if _is_a_person(entry.by) else entry.by,
            }
        )
        for entry in history
    ]
    origin = str(found["origin"]["S"]) if "origin" in found else ""
    item = cast("Item", store.item(incident.model_copy(update={"description": ERASED}), erased, origin))
    if not table.replace(item, incident.version):
        raise TransferError("The incident has just been changed. Nothing was erased: try again.")
    print("Erased.")
    return 0


def _consents() -> bool:
    try:
        return input("Type yes to erase: ").strip() == "yes"
    except EOFError:
        return False


def _is_a_person(by: str | None) -> bool:
    """Whether a name is one from Telegram. The others are of access keys."""
    return by is not None and by.startswith("telegram:")


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.transfer", description="Move incidents in and out.")
    parser.add_argument("what", choices=["import", "export", "erase"])
    parser.add_argument("--stack", default="")
    parser.add_argument("--data", default=".local")
    parser.add_argument("--file", default="")
    parser.add_argument("--map", default="")
    parser.add_argument("--format", default="")
    for name in ("since", "until", "status", "id"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--yes", action="store_true")
    options = parser.parse_args()
    try:
        sys.exit(_run(options))
    except KeyboardInterrupt:
        sys.exit("Interrupted. Run it again: what is imported stays, and is not imported twice.")
    except (
        TransferError,
        KeysError,
        DataFolderError,
        BotoCoreError,
        ClientError,
        OSError,
        csv.Error,
        ValueError,
    ) as error:
        sys.exit(" ".join(str(error).split()))


def _run(options: argparse.Namespace) -> int:
    if options.what != "erase" and not options.file:
        raise TransferError(f"Which file? make {options.what} FILE=incidents.csv")
    if options.what == "erase" and not options.id:
        raise TransferError("Which incident? make erase ID=…")
    path, data = Path(options.file), Path(options.data or ".local")
    if options.what != "import" and not options.stack and not (data / "incidents.sqlite").exists():
        raise TransferError(f"There are no incidents in the folder {data}.")
    if options.what == "erase" and not options.stack and (data / "incidents.jsonl").exists():
        raise TransferError(
            f"{data / 'incidents.jsonl'}, kept from an earlier release, has the text, too: delete it first."
        )
    with open_table(options.stack, data) as table:
        if options.what == "import":
            return import_incidents(path, table, options.map)
        if options.what == "erase":
            return erase(options.id, table, asks=not options.yes)
        form = options.format or path.suffix.removeprefix(".")
        if form not in ("csv", "jsonl"):
            raise TransferError("FORMAT is csv or jsonl.")
        return export_incidents(path, table, form, options.since, options.until, options.status)


if __name__ == "__main__":
    main()
