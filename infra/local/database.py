"""A local DynamoDB: moto evaluates conditions and updates, SQLite stores and sorts the items."""

import json
import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.handlers import BUILTIN_HANDLERS
from botocore.model import OperationModel
from moto.core.model_instances import reset_model_data
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.request import Request as MotoRequest
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from pydantic_core import from_json, to_json
from werkzeug.wrappers import Request, Response

from infra.local.items import Items
from infra.local.template import TABLE, Template

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

WRITES = {"DeleteItem", "PutItem", "TransactWriteItems", "UpdateItem"}
ON_ITEMS = {"BatchGetItem", "GetItem", *WRITES}
ON_THE_TABLE = {"DescribeTable", "ListTables", "Query", "Scan"}
QUERY = {
    "TableName": TABLE,
    "IndexName": "by-status",
    "KeyConditionExpression": "status_shard = :shard AND #position BETWEEN :first AND :last",
    "ProjectionExpression": "incident",
    "ExpressionAttributeNames": {"#position": "position"},
    "ScanIndexForward": False,
}
"""The store's queries without their values. SQLite answers them: for a Query, moto sorts every item of the table."""

_CONTENT_TYPE = "application/x-amz-json-1.0"
_REGION = "us-east-1"
_ENDPOINT = f"https://dynamodb.{_REGION}.amazonaws.com/"
# The credential scope tells moto the region: it keeps a table per account and region, and verifies no signature.
_SIGNED = f"AWS4-HMAC-SHA256 Credential=local/20250101/{_REGION}/dynamodb/aws4_request, SignedHeaders=host, Signature=0"


class Database:
    """DynamoDB with the template's table, as a WSGI application or attached to the clients in this process.

    moto holds a request's items only during that request: its objects take ten times the memory of the text.
    """

    def __init__(self, data: Path, template: Template) -> None:
        """Open the data folder. Raises `DataFolderError`."""
        self._items = Items(data)
        _ask_moto("CreateTable", json.dumps(template.table()).encode())
        self._lock = Lock()  # moto is not thread-safe
        self.changed = Event()
        """Set by every write."""

    @property
    def _table(self) -> Table:
        # Looked up each time: moto replaces it with a copy when it cancels a transaction.
        return dynamodb_backends[DEFAULT_ACCOUNT_ID][_REGION].get_table(TABLE)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        status, body = self.answer(request.headers.get("X-Amz-Target", "").rpartition(".")[2], request.get_data())
        return Response(body, status, content_type=_CONTENT_TYPE)(environ, start_response)

    def attach(self) -> None:
        """Answer the clients that this process creates from now on, without HTTP, which takes longer than most answers."""
        BUILTIN_HANDLERS.append(("before-call.dynamodb", self._answer_client))

    def turn_stream_on(self) -> None:
        """Record every incident written from now on, in the transaction of the write."""
        self._items.has_stream = True

    def stream(self, limit: int) -> list[tuple[int, str]]:
        with self._lock:
            return self._items.stream(limit)

    def forget(self, number: int) -> None:
        with self._lock:
            self._items.forget(number)

    def close(self) -> None:
        """Release the data folder, after the current request."""
        with self._lock:
            self._items.close()

    def answer(self, operation: str, body: bytes) -> tuple[int, bytes]:
        """The status and the body of DynamoDB's response."""
        if operation not in ON_ITEMS | ON_THE_TABLE:
            known = ", ".join(sorted(ON_ITEMS | ON_THE_TABLE))
            return _error(400, "UnknownOperationException", f"This database supports {known}, but not {operation}.")
        try:
            with self._lock:
                page = self._page(body) if operation == "Query" else None
                return (200, page) if page else self._evaluate(operation, body)
        except sqlite3.Error as error:
            log.error("The database has failed: %s.", error)
            return _error(500, "InternalServerError", "The database has failed.")

    def _answer_client(
        self, model: OperationModel, params: dict[str, bytes], **_: object
    ) -> tuple[AWSResponse, dict[str, object]]:
        """The response, unparsed and as botocore would parse it."""
        status, body = self.answer(model.name, params["body"])
        parsed: dict[str, object] = from_json(body)
        if status != 200:
            parsed["Error"] = {"Code": str(parsed["__type"]).rpartition("#")[2], "Message": parsed.get("message", "")}
        parsed["ResponseMetadata"] = {"HTTPStatusCode": status}
        return AWSResponse(_ENDPOINT, status, HTTPHeaders(), None), parsed

    def _evaluate(self, operation: str, body: bytes) -> tuple[int, bytes]:
        ids = _ids(body) if operation in ON_ITEMS else None
        try:
            for item in self._items.read(ids):
                self._table.put_item(item)
            status, answer = _ask_moto(operation, body)
            if ids and operation in WRITES and status == 200:
                found = [(key, self._table.get_item(DynamoType({"S": key}))) for key in ids]
                self._items.write({key: item.to_json()["Attributes"] if item else None for key, item in found})
                self.changed.set()
        finally:
            self._table.items.clear()
            reset_model_data()  # moto's list of all items that it ever created or copied for a response
        return status, answer

    def _page(self, body: bytes) -> bytes | None:
        """The answer to a Query in the store's form; None for any other."""
        query = json.loads(body)
        limit, start = query.pop("Limit", 0), query.pop("ExclusiveStartKey", None)
        values = query.pop("ExpressionAttributeValues", {})
        if query != QUERY or limit < 1:
            return None
        shard, first, last = (values[name]["S"] for name in (":shard", ":first", ":last"))
        before = (start["position"]["S"], start["id"]["S"]) if start else None
        read = self._items.newest(shard, first, last, before, limit)
        found = [{"incident": item["incident"]} if "incident" in item else {} for item in read]
        page: dict[str, object] = {"Items": found, "Count": len(found), "ScannedCount": len(found)}
        if len(read) == limit:  # like DynamoDB, without looking whether anything follows
            page["LastEvaluatedKey"] = {name: read[-1][name] for name in ("id", "status_shard", "position")}
        return to_json(page)


def _ask_moto(operation: str, body: bytes) -> tuple[int, bytes]:
    target = f"DynamoDB_20120810.{operation}"
    headers = {"Authorization": _SIGNED, "Content-Type": _CONTENT_TYPE, "X-Amz-Target": target}
    # Bypasses the Flask application of moto's server, which takes as long as the rest of a write.
    request = MotoRequest.from_primitives("POST", _ENDPOINT, headers, body)
    status, _, answer = DynamoHandler.dispatch(request, _ENDPOINT, headers)
    return status, answer.encode() if isinstance(answer, str) else answer


def _error(status: int, name: str, message: str) -> tuple[int, bytes]:
    return status, to_json({"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": message})


def _ids(body: bytes) -> list[str]:
    """The ids of a request's items. If a request has none, moto reports what is wrong."""
    request = json.loads(body)
    actions = [action for each in request.get("TransactItems", []) for action in each.values()] or [request]
    keys = [action.get("Key") or action.get("Item") or {} for action in actions]
    for batch in request.get("RequestItems", {}).values():
        keys += batch["Keys"]
    return [key["id"]["S"] for key in keys if key]
