"""The items on disk, in an SQLite database."""

import fcntl
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic_core import from_json

log = logging.getLogger(__name__)

Item = dict[str, dict[str, object]]
"""An item in DynamoDB's JSON."""

_NEW = (
    "CREATE TABLE items (id TEXT PRIMARY KEY, partition TEXT, sort TEXT, item TEXT NOT NULL)",
    "CREATE INDEX in_order ON items (partition, sort, id)",
    "PRAGMA user_version = 1",
)
_NEWEST = """SELECT item FROM items WHERE partition = ? AND sort BETWEEN ? AND ? AND (? IS NULL OR (sort, id) < (?, ?))
ORDER BY sort DESC, id DESC LIMIT ?"""


class DataFolderError(Exception):
    """The data folder cannot be used. The message is for the person who started the program."""


class Items:
    """`incidents.sqlite` in the data folder, which only one process at a time can open.

    A write that returns is on disk; one that raises `sqlite3.Error` has changed nothing.
    """

    has_stream = False
    """Whether to record stored items of the index in the stream."""

    def __init__(self, folder: Path) -> None:
        """Open the database; a new one imports the journal of an earlier release. Raises `DataFolderError`."""
        if folder == Path():  # an empty DATA=
            raise DataFolderError("The data folder needs a name: the current folder is not for data.")
        path, journal = folder / "incidents.sqlite", folder / "incidents.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not SQLite's own lock: POSIX drops it as soon as this process closes any other descriptor of the file.
            self._folder = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if journal.exists() and not path.exists():
                path.touch()
                shutil.copymode(journal, path)
            self._open(path, journal)
            os.fsync(self._folder)
        except BlockingIOError as error:
            raise DataFolderError(f"The data folder {folder} is in use by another run.") from error
        except OSError as error:
            raise DataFolderError(f"The data folder {folder} cannot be written: {error.strerror}.") from error
        except sqlite3.Error as error:
            damaged = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            advice = " Restore it from a copy." if damaged else ""
            raise DataFolderError(f"The database {path} cannot be used: {error}.{advice}") from error

    def close(self) -> None:
        self._database.close()
        os.close(self._folder)

    def read(self, ids: Iterable[str] | None = None) -> Iterator[Item]:
        """The stored items among these, or every item."""
        if ids is None:
            yield from map(_parse, self._database.execute("SELECT item FROM items"))
        for each in ids or ():
            yield from map(_parse, self._database.execute("SELECT item FROM items WHERE id = ?", [each]))

    def size(self) -> int:
        (number,) = self._database.execute("SELECT count(*) FROM items").fetchone()
        return int(number)

    def newest(self, partition: str, first: str, last: str, before: tuple[str, str] | None, limit: int) -> list[Item]:
        """Up to `limit` items of an index partition, in descending order: from `last`, or after (sort key, id) `before`, to `first`."""
        values = [partition, first, last, before and before[0], *(before or ("", "")), limit]
        found = [item for (item,) in self._database.execute(_NEWEST, values)]
        items: list[Item] = from_json(f"[{','.join(found)}]")
        return items

    def write(self, items: Mapping[str, Item | None]) -> None:
        """Store items in one transaction, replacing any with the same ids; None deletes an item."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for key, item in items.items():
                self._write(key, item)
            self._database.execute("COMMIT")
        except sqlite3.Error:
            # If the disk is full, SQLite has already rolled back.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _write(self, id: str, item: Item | None) -> None:
        if item:
            place = [str(item[name]["S"]) if name in item else None for name in ("status_shard", "position")]
            row = [id, *place, json.dumps(item, ensure_ascii=False)]
            self._database.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", row)
            if self.has_stream and "position" in item:
                self._database.execute("INSERT INTO stream (id) VALUES (?)", [id])
        else:
            self._database.execute("DELETE FROM items WHERE id = ?", [id])

    def stream(self, limit: int) -> list[tuple[int, str]]:
        """The oldest records of the stream: numbers and item ids."""
        return self._database.execute("SELECT number, id FROM stream ORDER BY number LIMIT ?", [limit]).fetchall()

    def forget(self, number: int) -> None:
        """Remove the stream's records up to this one."""
        self._database.execute("DELETE FROM stream WHERE number <= ?", [number])

    def _open(self, path: Path, journal: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # The exclusive lock comes first: the write-ahead log then needs no shared memory, which some file systems lack.
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._database.execute(f"PRAGMA {setting}")
        (found,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            found = " ".join(found.split())
            raise DataFolderError(f"The database {path} is damaged: {found}. Restore it from a copy.")
        if self._database.execute("PRAGMA user_version").fetchone() == (0,):
            self._database.execute("BEGIN")
            for statement in _NEW:
                self._database.execute(statement)
            if journal.exists():
                self._import(journal)
            self._database.execute("COMMIT")
        self._database.execute("CREATE TABLE IF NOT EXISTS stream (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT)")

    def _import(self, journal: Path) -> None:
        """Import an earlier release's journal. A line is an item after a write, or only its key after a delete."""
        with journal.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    log.warning("The last line of %s is incomplete, and left out: its write was interrupted.", journal)
                    break
                try:
                    item = json.loads(line)
                    self._write(item["id"]["S"], self._current_form(item) if len(item) > 1 else None)
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    raise DataFolderError(
                        f"Line {number} of {journal} is not an incident. Restore the file from a copy, or delete this line: "
                        "the change that it recorded is then lost."
                    ) from error
        log.warning("%s has been imported into the database. The file is kept, but not read again.", journal)

    def _current_form(self, item: Item) -> Item:
        """The item with the incident's fields in one map, and a history. Earlier releases stored each field as an attribute."""
        if "position" not in item or "incident" in item:
            return item
        apart = {"status_shard", "position", "history"}
        fields: dict[str, object] = {name: value for name, value in item.items() if name not in apart}
        latest = {"M": {"status": item["status"], "at": item["updated_at"]}}
        kept = {name: value for name, value in item.items() if name in {"id", *apart}}
        return {"history": {"L": [latest]}, **kept, "incident": {"M": fields}}


def _parse(row: tuple[str]) -> Item:
    item: Item = from_json(row[0])
    return item
