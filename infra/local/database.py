"""A DynamoDB that forgets nothing: moto's, with a journal of every acknowledged write and an index that is kept in order."""

import json
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from infra.local.index import Index
from infra.local.journal import Journal
from infra.local.template import TABLE, Template

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

READS = {"BatchGetItem", "DescribeTable", "GetItem", "ListTables", "Query", "Scan"}
WRITES = {"DeleteItem", "PutItem", "UpdateItem"}

_CONTENT_TYPE = "application/x-amz-json-1.0"

# moto keeps a table for each account and region: every request is taken for one of this region, whatever its signature.
_SIGNED = "AWS4-HMAC-SHA256 Credential=local/20250101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"

_BATCH = 25
"""Items in a BatchWriteItem: DynamoDB's quota."""


class Database:
    """A WSGI application that speaks DynamoDB's protocol, with one table, the template's.

    A write is in the journal before it is acknowledged. Raises `DataFolderError`.
    """

    def __init__(self, data: Path, template: Template) -> None:
        self._journal = Journal(data)
        self._moto = Client(create_backend_app("dynamodb"))
        self._index = Index(template.table())
        # moto is not made for threads, and the journal's lines have to be in the order of the writes.
        self._lock = Lock()
        self._ask("CreateTable", template.table())
        self._load()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        if operation in READS | WRITES:
            with self._lock:
                response = self._answer(operation, request.get_data())
        else:
            message = f"This database keeps what {' and '.join(sorted(WRITES))} write, and takes no {operation}."
            error = {"__type": "com.amazon.coral.service#UnknownOperationException", "message": message}
            response = Response(json.dumps(error), status=400, content_type=_CONTENT_TYPE)
        return response(environ, start_response)

    def close(self) -> None:
        """Leave the data folder to others."""
        self._journal.close()

    def _answer(self, operation: str, body: bytes) -> Response:
        if operation == "Query" and (page := self._index.query(body)):
            return Response(json.dumps(page, ensure_ascii=False), content_type=_CONTENT_TYPE)
        response = self._post(operation, body)
        if operation in WRITES and response.status_code == 200:
            request = json.loads(body)
            key = {"id": request["Item" if operation == "PutItem" else "Key"]["id"]}
            item = self._ask("GetItem", {"TableName": TABLE, "Key": key, "ConsistentRead": True}).get("Item", key)
            line = json.dumps(item, ensure_ascii=False).encode() + b"\n"
            self._journal.append(line)
            self._index.put(key["id"]["S"], line)
        return response

    def _load(self) -> None:
        for key, line in self._journal.items.items():
            self._index.put(key, line)
        items = [json.loads(line) for line in self._journal.items.values()]
        for start in range(0, len(items), _BATCH):
            puts = [{"PutRequest": {"Item": item}} for item in items[start : start + _BATCH]]
            self._ask("BatchWriteItem", {"RequestItems": {TABLE: puts}})

    def _ask(self, operation: str, request: object) -> dict[str, object]:
        response = self._post(operation, json.dumps(request).encode())
        if response.status_code != 200:
            raise RuntimeError(f"{operation} failed: {response.get_data(as_text=True)}")
        answer: dict[str, object] = json.loads(response.get_data())
        return answer

    def _post(self, operation: str, body: bytes) -> Response:
        headers = {
            "Authorization": _SIGNED,
            "Content-Type": _CONTENT_TYPE,
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        }
        return self._moto.post("/", data=body, headers=headers)
