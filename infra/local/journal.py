"""The incidents on disk: a file with a line for every write."""

import fcntl
import json
import logging
import os
import shutil
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)


class DataFolderError(Exception):
    """The data folder cannot be used; the text says why, for the person who started the program."""


class Journal:
    """`incidents.jsonl` in the data folder, which one process at a time can have.

    A line holds an item after a write, in DynamoDB's JSON, or only its key if the write deleted it. The last line of an item
    counts. At the start, an incomplete last line is removed (its write was never acknowledged), and a file whose lines are
    mostly outdated is replaced with one that has only the current ones.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "incidents.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The folder is locked, and not the file, which may be replaced; and before that is opened, for the same reason.
            self._folder = os.open(folder, os.O_RDONLY)
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file: BinaryIO = self._path.open("a+b")
            os.fsync(self._folder)
        except BlockingIOError as error:
            raise DataFolderError(f"The data folder {folder} is in use by another run.") from error
        except OSError as error:
            raise DataFolderError(f"The data folder {folder} cannot be written: {error.strerror}.") from error
        self.items: dict[str, bytes] = {}
        """The lines of the items that there were at the start, by id."""
        written = self._read()
        if written > 2 * len(self.items):
            self._compact()

    def append(self, line: bytes) -> None:
        """Write a line to the disk. If that fails the process ends at once: its next response could acknowledge a lost write."""
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            log.critical("The journal %s cannot be written: %s. Stopped.", self._path, error.strerror)
            os._exit(1)

    def close(self) -> None:
        """Release the data folder."""
        self._file.close()
        os.close(self._folder)

    def _read(self) -> int:
        """Find the items; return the number of lines."""
        self._file.seek(0)
        end = number = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                log.warning("The last line of %s is incomplete: its write was interrupted. It is removed.", self._path)
                self._file.truncate(end)
                break
            try:
                item = json.loads(line)
                if item.keys() > {"id"}:
                    self.items[item["id"]["S"]] = line
                else:
                    self.items.pop(item["id"]["S"], None)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise DataFolderError(
                    f"Line {number} of {self._path} is not an incident. Restore the file from a copy, or delete this line: "
                    "the change that it recorded is then lost."
                ) from error
            end += len(line)
        return number

    def _compact(self) -> None:
        compact = self._path.with_suffix(".new")
        try:
            with compact.open("wb") as file:
                file.writelines(self.items.values())
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(self._path, compact)
            replacement = compact.open("ab")
        except OSError as error:
            log.warning("%s keeps its outdated lines: %s.", self._path, error.strerror)
            compact.unlink(missing_ok=True)
            return
        # No fallback from here on: an append to a file that the folder may not show after a crash would be lost.
        try:
            compact.replace(self._path)
            os.fsync(self._folder)
        except OSError as error:
            raise DataFolderError(f"The journal {self._path} cannot be replaced: {error.strerror}.") from error
        self._file.close()
        self._file = replacement
