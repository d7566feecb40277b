"""A proxy in front of DynamoDB, on a real socket, that makes each request fail as a script says."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import NamedTuple, Self
from urllib.parse import urlsplit
from zlib import crc32


class Fault(NamedTuple):
    """How a request fails."""

    name: str
    done: bool = False  # whether DynamoDB executes the request
    status: int = 0  # 0: the connection is cut without a response
    code: str = ""
    stalls: bool = False  # no response, on a connection that stays open
    delay: float = 0  # seconds until the response
    answer: bytes = b""  # the body, instead of DynamoDB's
    damage: tuple[int, int, bytes] | None = None  # from this byte on, so many are replaced by these

    @property
    def throttles(self) -> bool:
        """Whether boto3 waits for up to a second before the next attempt."""
        return self.code.endswith(("Exceeded", "ExceededException", "ThrottlingException"))

    def __repr__(self) -> str:
        return self.name


PASSING = [
    Fault("cut before the work"),
    Fault("cut after the work", done=True),
    Fault("cut in the midst of the answer", done=True, status=200),
    Fault("damaged on the way", done=True, status=200, damage=(1, 0, b" ")),
    Fault("not JSON", status=200, answer=b"<html>"),
    Fault("no JSON object", status=200, answer=b"[]"),
    Fault("stalled before the work", stalls=True),
    Fault("stalled after the work", done=True, stalls=True),
    Fault("failed", status=500, code="InternalServerError"),
    Fault("failed after the work", done=True, status=500, code="InternalServerError"),
    Fault("something before DynamoDB failed", status=503),
    Fault("throughput exceeded", status=400, code="ProvisionedThroughputExceededException"),
    Fault("throttled", status=400, code="ThrottlingException"),
    Fault("requests exceeded", status=400, code="RequestLimitExceeded"),
    Fault("in a transaction", status=400, code="TransactionConflictException"),
    Fault("written in another region", status=400, code="ReplicatedWriteConflictException"),
    Fault("expired credentials", status=400, code="ExpiredTokenException"),
]
"""Transient failures: the response is a 503, and the client retries."""

LASTING = [
    Fault("no such table", status=400, code="ResourceNotFoundException"),
    Fault("not allowed", status=400, code="AccessDeniedException"),
    Fault("wrong request", status=400, code="ValidationException"),
    Fault("unknown credentials", status=400, code="UnrecognizedClientException"),
    Fault("item collection too large", status=400, code="ItemCollectionSizeLimitExceededException"),
]
"""Faults of the code or the deployment: the function raises an exception, and an alarm fires."""


def cancelled(*reasons: str) -> Fault:
    """A cancelled transaction, with one reason for each write."""
    body = {
        "__type": "com.amazonaws#TransactionCanceledException",
        "CancellationReasons": [{"Code": each} for each in reasons],
    }
    return Fault(", ".join(reasons), status=400, answer=json.dumps(body).encode())


@contextmanager
def serving(server: HTTPServer) -> Iterator[str]:
    """Serve in a thread; yield the URL."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Proxy:
    """Each request gets the next fault of the script, None being no fault. After the script, requests succeed."""

    def __init__(self, database: str) -> None:
        self.database = urlsplit(database).netloc
        self.url = ""
        self.script: Iterator[Fault | None] = iter(())
        self.asked = 0
        self._lock = threading.Lock()
        self.over = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Serve at `url`."""
        server = _Server(("127.0.0.1", 0), type("Connection", (_Connection,), {"proxy": self}))
        with serving(server) as self.url:
            try:
                yield self
            finally:
                self.over.set()

    def next_fault(self) -> Fault | None:
        with self._lock:
            self.asked += 1
            return next(self.script, None)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # the functions open up to 32 connections at once


class _Connection(BaseHTTPRequestHandler):
    proxy: Proxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.proxy.next_fault()
        if fault and fault.delay:
            self.proxy.over.wait(fault.delay)
            fault = None
        status, answer = self._ask(body) if fault is None or fault.done else (0, b"")
        if fault is None:
            self._answer(status, answer, checksum=crc32(answer))
        elif fault.stalls:
            self.proxy.over.wait()
        elif fault.answer:
            self._answer(fault.status, fault.answer)
        elif fault.damage:
            place, length, replacement = fault.damage
            place %= len(answer)
            damaged = answer[:place] + replacement + answer[place + length :]
            self._answer(status, damaged, checksum=crc32(answer))
        elif fault.status == 200:
            self._answer(status, answer, len(answer) // 2, checksum=crc32(answer))
        elif fault.status:
            error = json.dumps({"__type": f"com.amazonaws#{fault.code}"}) if fault.code else "<html>"
            self._answer(fault.status, error.encode())

    def _ask(self, body: bytes) -> tuple[int, bytes]:
        database = HTTPConnection(self.proxy.database)
        database.request("POST", "/", body, dict(self.headers.items()))
        response = database.getresponse()
        answer = response.read()
        database.close()
        return response.status, answer

    def _answer(self, status: int, body: bytes, sent: int | None = None, checksum: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        if checksum is not None:  # DynamoDB sends one; a proxy's error page has none
            self.send_header("x-amz-crc32", str(checksum))
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
