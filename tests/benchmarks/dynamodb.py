"""A DynamoDB on loopback that answers at once and always alike, so that what is measured is what calls it.

`python -m tests.benchmarks.dynamodb bundle.pem` writes a bundle of certificates, botocore's own and this server's, prints
the server's addresses, without TLS and with it, and answers until it is ended. GET returns how often each operation has
been requested since the last GET.
"""

import json
import ssl
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from threading import Thread
from typing import ClassVar, NotRequired, TypedDict
from zlib import crc32

import trustme
from botocore.httpsession import DEFAULT_CA_BUNDLE

Item = Mapping[str, Mapping[str, str]]

INCIDENT = "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"
STATUSES = ("open", "in_progress", "resolved", "closed")
ONE_STATUS = "OneStatusTable"
"""The table whose incidents are all open. In any other, each incident has the next status."""

NEWEST = 80_000


class Request(TypedDict):
    """The part of a request that the answer depends on."""

    TableName: str
    Limit: int
    ProjectionExpression: NotRequired[str]
    ExpressionAttributeNames: NotRequired[dict[str, str]]
    ExpressionAttributeValues: dict[str, dict[str, str]]
    ExclusiveStartKey: NotRequired[Item]


def item(number: int, status: str) -> Item:
    """The incident of this number, the oldest being the first."""
    incident_id = f"{number:08x}{INCIDENT[8:]}"
    created = f"2026-11-23T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.123Z"
    return {
        "id": {"S": incident_id},
        "description": {"S": "Самокат #4567 не отвечает на запросы"},
        "source": {"S": "monitoring"},
        "status": {"S": status},
        "created_at": {"S": created},
        "updated_at": {"S": created},
        "version": {"N": "1"},
        "status_shard": {"S": f"{status}#0"},
        "position": {"S": f"{created}#{incident_id}"},
    }


def answer(operation: str, body: bytes) -> bytes:
    """What DynamoDB would answer."""
    if operation == "Query":
        return page(body)
    request: Request = json.loads(body)
    if request["TableName"] == "KeysTable":
        return _json({"Item": {"name": {"S": "monitoring"}, "role": {"S": "reporter"}}})
    newest = item(NEWEST, "open")
    entry = {"M": {"status": newest["status"], "at": newest["created_at"], "by": {"S": "monitoring"}}}
    stored = {**newest, "history": {"L": [entry, entry]}}
    return {
        "PutItem": _json({}),
        "GetItem": _json({"Item": _projected(stored, request)}),
        "UpdateItem": _json({"Attributes": stored}),
    }[operation]


@cache
def page(query: bytes) -> bytes:
    """The items of one status, newest first."""
    request: Request = json.loads(query)
    # Whatever a program calls it: the status and its shard are the first value that the key is compared with.
    status = next(iter(request["ExpressionAttributeValues"].values()))["S"].partition("#")[0]
    step = 1 if request["TableName"] == ONE_STATUS else len(STATUSES)
    first = NEWEST - STATUSES.index(status)
    if "ExclusiveStartKey" in request:
        first = int(request["ExclusiveStartKey"]["id"]["S"][:8], 16) - step
    if step == 1 and status != STATUSES[0]:
        return _json({"Items": [], "Count": 0, "ScannedCount": 0})
    items = [item(first - step * place, status) for place in range(request["Limit"])]
    return _json(
        {
            "Items": [_projected(each, request) for each in items],
            "Count": len(items),
            "ScannedCount": len(items),
            "LastEvaluatedKey": {name: items[-1][name] for name in ("id", "status_shard", "position")},
        }
    )


def _projected(whole: Mapping[str, object], request: Request) -> Mapping[str, object]:
    if "ProjectionExpression" not in request:
        return whole
    names = request.get("ExpressionAttributeNames", {})
    return {names.get(name, name): whole[names.get(name, name)] for name in request["ProjectionExpression"].split(", ")}


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the head and the body in one packet
    disable_nagle_algorithm = True
    requests: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        self.requests[operation] += 1
        self._send(answer(operation, self.rfile.read(int(self.headers["Content-Length"]))))

    def do_GET(self) -> None:
        requests = _json(self.requests)
        self.requests.clear()
        self._send(requests)

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


class _TlsServer(ThreadingHTTPServer):
    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)

    def get_request(self) -> tuple[socket, tuple[str, int]]:
        connection, address = super().get_request()
        # The handshake is made when the connection's own thread reads from it.
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address


if __name__ == "__main__":
    authority = trustme.CA()
    Path(sys.argv[1]).write_bytes(Path(DEFAULT_CA_BUNDLE).read_bytes() + authority.cert_pem.bytes())
    plain = ThreadingHTTPServer(("127.0.0.1", 0), _Connection)
    tls = _TlsServer(authority)
    Thread(target=plain.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{plain.server_port} https://127.0.0.1:{tls.server_port}", flush=True)
    tls.serve_forever()
