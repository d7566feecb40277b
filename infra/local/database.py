"""A DynamoDB on this machine: moto's, with a journal that keeps every write and an index that makes lists cheap."""

import json
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from moto.core.model_instances import reset_model_data
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response

from infra.local.index import Index
from infra.local.journal import Journal
from infra.local.template import TABLE, Template

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

WRITES = {"DeleteItem", "PutItem", "UpdateItem"}
ON_ITEMS = {"BatchGetItem", "GetItem", *WRITES}
ON_THE_TABLE = {"DescribeTable", "ListTables", "Query", "Scan"}

_CONTENT_TYPE = "application/x-amz-json-1.0"

# moto keeps a table for each account and region: every request is taken for one of this region, whatever its signature.
_REGION = "us-east-1"
_SIGNED = f"AWS4-HMAC-SHA256 Credential=local/20250101/{_REGION}/dynamodb/aws4_request, SignedHeaders=host, Signature=0"


class Database:
    """A WSGI application that speaks DynamoDB's protocol, with one table, the template's.

    The items are kept as the journal's lines. For each request, moto gets the items that it concerns and evaluates conditions
    and updates; its own objects of all items would take ten times the memory. A write is in the journal before it is
    acknowledged.
    """

    def __init__(self, data: Path, template: Template) -> None:
        """Read the data folder. Raises `DataFolderError`."""
        self._journal = Journal(data)
        self._items = self._journal.items
        self._index = Index(template.table())
        for key, line in self._items.items():
            self._index.put(key, line)
        self._moto = Client(create_backend_app("dynamodb"))
        self._post("CreateTable", json.dumps(template.table()).encode())
        self._table = dynamodb_backends[DEFAULT_ACCOUNT_ID][_REGION].get_table(TABLE)
        # moto is not made for threads, and the journal's lines have to be in the order of the writes.
        self._lock = Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        body = request.get_data()
        if operation in ON_ITEMS | ON_THE_TABLE:
            with self._lock:
                response = self._answer(operation, body)
        else:
            message = f"This database takes {', '.join(sorted(ON_ITEMS | ON_THE_TABLE))}, and no {operation}."
            error = {"__type": "com.amazon.coral.service#UnknownOperationException", "message": message}
            response = Response(json.dumps(error), status=400, content_type=_CONTENT_TYPE)
        return response(environ, start_response)

    def close(self) -> None:
        """Release the data folder."""
        self._journal.close()

    def _answer(self, operation: str, body: bytes) -> Response:
        if operation == "Query" and (page := self._index.query(body)):
            return Response(json.dumps(page, ensure_ascii=False), content_type=_CONTENT_TYPE)
        ids = _ids(body) if operation in ON_ITEMS else list(self._items)
        try:
            for each in ids:
                if each in self._items:
                    self._table.put_item(json.loads(self._items[each]))
            response = self._post(operation, body)
            if operation in WRITES and response.status_code == 200:
                self._keep(ids[0])
        finally:
            self._table.items.clear()
            reset_model_data()  # a list in which moto keeps every item that it has ever made, or copied for a response
        return response

    def _keep(self, id: str) -> None:
        """Take over from moto how a write has left an item."""
        key = DynamoType({"S": id})
        stored = self._table.get_item(key)
        item = stored.to_json()["Attributes"] if stored else {"id": {"S": id}}
        line = json.dumps(item, ensure_ascii=False).encode() + b"\n"
        self._journal.append(line)
        self._index.put(id, line)
        if stored:
            self._items[id] = line
        else:
            self._items.pop(id, None)

    def _post(self, operation: str, body: bytes) -> Response:
        headers = {
            "Authorization": _SIGNED,
            "Content-Type": _CONTENT_TYPE,
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        }
        return self._moto.post("/", data=body, headers=headers)


def _ids(body: bytes) -> list[str]:
    """The ids of the items that a request is about. Of one that names none, moto says what is wrong."""
    request = json.loads(body)
    keys = [request.get("Key") or request.get("Item") or {}]
    for batch in request.get("RequestItems", {}).values():
        keys += batch["Keys"]
    return [key["id"]["S"] for key in keys if key]
