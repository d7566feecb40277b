"""A DynamoDB that forgets nothing: moto's, with a journal of every acknowledged write."""

import fcntl
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from infra.local.template import TABLE, Template

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

READS = {"DescribeTable", "GetItem", "ListTables", "Query", "Scan"}
WRITES = {"DeleteItem", "PutItem", "UpdateItem"}

# moto keeps a table for each account and region: every request is taken for one of this region, whoever signed it.
_SIGNED = "AWS4-HMAC-SHA256 Credential=local/20250101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"

_BATCH = 25
"""Items in a BatchWriteItem, at most (DynamoDB's quota)."""


class DataFolderError(Exception):
    """The data cannot be used; the text says why, for the person who started the program."""


class Database:
    """A WSGI application that speaks DynamoDB's protocol, with one table, the template's.

    The journal has a line for every write: the item as it stands after it, in DynamoDB's JSON, the key alone where it is
    gone. A line is on the disk
    before its write is acknowledged; the last line of an item is what a later start finds. Where the journal cannot be
    written, the process ends at once: an answer to whatever comes next could acknowledge a write that was not kept.
    """

    def __init__(self, data: Path, template: Template) -> None:
        self._moto = Client(create_backend_app("dynamodb"))
        # moto is not made for threads, and the journal's lines have to be in the order of the writes.
        self._lock = Lock()
        self._ask("CreateTable", template.table())
        try:
            data.mkdir(parents=True, exist_ok=True)
            self._journal = (data / "incidents.jsonl").open("a+b")
        except OSError as error:
            raise DataFolderError(f"The data folder {data} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataFolderError(f"The data folder {data} is in use by another run.") from error
        self._replay()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if operation in READS | WRITES:
            with self._lock:
                response = self._answer(operation, request.get_data())
        else:
            message = f"This database keeps what {' and '.join(sorted(WRITES))} write, and takes no {operation}."
            error = {"__type": "com.amazon.coral.service#UnknownOperationException", "message": message}
            response = Response(json.dumps(error), status=400, content_type="application/x-amz-json-1.0")
        return response(environ, start_response)

    def close(self) -> None:
        """Leave the data folder to others."""
        self._journal.close()

    def _answer(self, operation: str, body: bytes) -> Response:
        response = self._post(operation, body)
        if operation in WRITES and response.status_code == 200:
            request = json.loads(body)
            key = {"id": request["Item" if operation == "PutItem" else "Key"]["id"]}
            item = self._ask("GetItem", {"TableName": TABLE, "Key": key, "ConsistentRead": True}).get("Item", key)
            try:
                self._journal.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")
                self._journal.flush()
                os.fsync(self._journal.fileno())
            except OSError as error:
                log.critical("The journal %s cannot be written: %s. Stopped.", self._journal.name, error.strerror)
                os._exit(1)
        return response

    def _replay(self) -> None:
        self._journal.seek(0)
        items = {}
        end = 0
        for number, line in enumerate(self._journal, start=1):
            if not line.endswith(b"\n"):
                break  # cut short while it was written: its write was never acknowledged
            try:
                item = json.loads(line)
                items[item["id"]["S"]] = item
            except (ValueError, LookupError, TypeError) as error:
                raise DataFolderError(f"Line {number} of {self._journal.name} is not an incident.") from error
            end += len(line)
        self._journal.truncate(end)
        stored = [item for item in items.values() if item.keys() > {"id"}]
        for start in range(0, len(stored), _BATCH):
            puts = [{"PutRequest": {"Item": item}} for item in stored[start : start + _BATCH]]
            self._ask("BatchWriteItem", {"RequestItems": {TABLE: puts}})

    def _ask(self, operation: str, request: object) -> dict[str, object]:
        response = self._post(operation, json.dumps(request).encode())
        if response.status_code != 200:
            raise DataFolderError(f"{operation} failed: {response.get_data(as_text=True)}")
        answer: dict[str, object] = json.loads(response.get_data())
        return answer

    def _post(self, operation: str, body: bytes) -> Response:
        headers = {
            "Authorization": _SIGNED,
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        }
        return self._moto.post("/", data=body, headers=headers)
