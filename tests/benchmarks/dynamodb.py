"""A DynamoDB on loopback that answers at once and always in the same way, so that only its callers are measured.

Each program reads copies, under other ids, of the item that it last put into its table. If the table's name ends in `AllOpen`, all
incidents are open; otherwise the statuses alternate. Items written in transactions, as alerts are, are stored without checking
conditions.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import ClassVar
from zlib import crc32

import trustme
from botocore.httpsession import DEFAULT_CA_BUNDLE

STATUSES = ("open", "in_progress", "resolved", "closed")
ALL_OPEN = "AllOpen"
"""How the name of a table ends that has open incidents alone."""

NEWEST = 80_000
KEY = {"name": {"S": "monitoring"}, "role": {"S": "reporter"}}

Item = dict[str, dict[str, str]]


@cache
def page(stored: str, query: bytes) -> dict[str, object]:
    """The items of one status, newest first: copies of the one that is stored, which is open."""
    request = json.loads(query)
    status = next(each for each in STATUSES if f'"{each}#0"'.encode() in query)
    all_open = request["TableName"].endswith(ALL_OPEN)
    step = 1 if all_open else len(STATUSES)
    first = NEWEST - STATUSES.index(status)
    if "ExclusiveStartKey" in request:
        first = int(request["ExclusiveStartKey"]["id"]["S"][:8], 16) - step
    if all_open and status != "open":
        return {"Items": [], "Count": 0, "ScannedCount": 0}
    old_id = json.loads(stored)["id"]["S"]
    text = stored.replace('"open', f'"{status}')
    numbers = [first - step * place for place in range(request["Limit"])]
    items = [json.loads(text.replace(old_id, f"{number:08x}{old_id[8:]}")) for number in numbers]
    last = {name: items[-1][name] for name in ("id", "status_shard", "position")}
    shown = [_projected(item, request) for item in items]
    return {"Items": shown, "Count": len(items), "ScannedCount": len(items), "LastEvaluatedKey": last}


def _projected(item: Item, request: Mapping[str, str]) -> Item:
    wanted = request.get("ProjectionExpression")
    return {name: item[name] for name in wanted.split(", ") if name in item} if wanted else item


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the head and the body in one packet
    disable_nagle_algorithm = True
    stored: ClassVar[dict[str, str]] = {}
    written: ClassVar[dict[str, str]] = {}
    """The items that transactions have written, by id."""

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps(self._answer(operation, body), ensure_ascii=False).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("x-amzn-RequestId", "4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG")
        self.send_header("x-amz-crc32", str(crc32(answer)))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answer(self, operation: str, body: bytes) -> Mapping[str, object]:
        request = json.loads(body)
        if operation == "TransactWriteItems":
            for write in request["TransactItems"]:
                if item := write.get("Put", {}).get("Item"):
                    self.written[item["id"]["S"]] = json.dumps(item)
                else:
                    key, values = write["Update"]["Key"], write["Update"]["ExpressionAttributeValues"]
                    # Either what is remembered of an alert, or its incident's resolve.
                    new = json.dumps(key | {"episode": values[":episode"]}) if ":episode" in values else None
                    old = self.written.get(key["id"]["S"], "")
                    self.written[key["id"]["S"]] = new or old.replace('"open', '"resolved')
            return {}
        if operation == "BatchGetItem":
            ((table, asked),) = request["RequestItems"].items()
            found = [self.written[key["id"]["S"]] for key in asked["Keys"] if key["id"]["S"] in self.written]
            items = [_projected(json.loads(item), asked) for item in found]
            return {"Responses": {table: items}, "UnprocessedKeys": {}}
        table = request["TableName"].removesuffix(ALL_OPEN)
        if operation == "PutItem":
            self.stored[table] = json.dumps(request["Item"], ensure_ascii=False)
            return {}
        if operation == "Query":
            return page(self.stored[table], body)
        item = KEY if table == "KeysTable" else json.loads(self.stored[table])
        return {"Attributes": item} if operation == "UpdateItem" else {"Item": _projected(item, request)}

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[tuple[str, Path]]:
    """Serve over TLS; yield the address, and a file with this server's certificate and those that botocore trusts."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Connection) as server, TemporaryDirectory() as folder:
        # The handshake is made when the connection's own thread reads from it.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        certificates = Path(folder) / "certificates.pem"
        certificates.write_bytes(Path(DEFAULT_CA_BUNDLE).read_bytes() + authority.cert_pem.bytes())
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}", certificates
        server.shutdown()
