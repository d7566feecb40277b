"""A DynamoDB on loopback that answers at once and always alike, so that what is measured is what calls it.

`python -m tests.benchmarks.dynamodb` prints its port, and answers until it is ended. GET returns how often each operation
has been asked for since the last GET.
"""

import json
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NotRequired, TypedDict
from zlib import crc32

INCIDENT = "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"
CREATED = "2026-11-23T10:00:00.123Z"
ITEM = {
    "id": {"S": INCIDENT},
    "description": {"S": "Самокат #4567 не отвечает на запросы"},
    "source": {"S": "monitoring"},
    "status": {"S": "open"},
    "created_at": {"S": CREATED},
    "updated_at": {"S": CREATED},
    "version": {"N": "1"},
    "status_shard": {"S": "open#0"},
    "position": {"S": f"{CREATED}#{INCIDENT}"},
}


class Asked(TypedDict):
    """The part of a request that the answer depends on."""

    Limit: int
    ProjectionExpression: NotRequired[str]
    ExpressionAttributeNames: NotRequired[dict[str, str]]


def answer(operation: str, request: Asked) -> Mapping[str, object]:
    """What DynamoDB would say. An index has more items than any Query asks for."""
    if operation == "Query":
        limit = request["Limit"]
        last = {name: ITEM[name] for name in ("id", "status_shard", "position")}
        items = [_projected(request)] * limit
        return {"Items": items, "Count": limit, "ScannedCount": limit, "LastEvaluatedKey": last}
    return {"PutItem": {}, "GetItem": {"Item": ITEM}, "UpdateItem": {"Attributes": ITEM}}[operation]


def _projected(request: Asked) -> Mapping[str, object]:
    if "ProjectionExpression" not in request:
        return ITEM
    names = request.get("ExpressionAttributeNames", {})
    return {names.get(name, name): ITEM[names.get(name, name)] for name in request["ProjectionExpression"].split(", ")}


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the head and the body in one packet
    disable_nagle_algorithm = True
    asked: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked[operation] += 1
        self._send(json.dumps(answer(operation, request), ensure_ascii=False).encode())

    def do_GET(self) -> None:
        asked = json.dumps(self.asked)
        self.asked.clear()
        self._send(asked.encode())

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("x-amzn-RequestId", "4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG")
        self.send_header("x-amz-crc32", str(crc32(body)))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Connection)
    print(server.server_port, flush=True)
    server.serve_forever()
