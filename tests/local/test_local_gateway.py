"""The local gateway: HTTP, and the events and limits that AWS documents."""

import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest
from werkzeug.wrappers import Response

from infra.local import gateway, template
from infra.local.server import Server
from tests.conftest import TEMPLATE, http_client

HEAD = "{} /incidents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET, POST = HEAD.format("GET"), HEAD.format("POST")
BODY = json.dumps({"description": "x", "source": "partner"})
CHUNK = f"{len(BODY):x}"
CHUNKED = f"{POST}Transfer-Encoding: chunked\r\n\r\n"
SIZED = f"{POST}Content-Length: {len(BODY)}\r\nConnection: close\r\n"


def send(api: httpx.Client, *parts: str) -> list[int]:
    """Send the parts unchanged and return the statuses of the responses, until one side closes the connection."""
    received = b""
    with socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=20) as connection:
        for part in parts:
            connection.sendall(part.encode())
            if "100-continue" in part:
                received += connection.recv(1000)
        if "Connection: close" not in part:
            connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            received += chunk
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", received)]


REQUESTS: dict[str, tuple[list[str], list[int]]] = {
    "extension and trailer": ([f"{CHUNKED}{CHUNK};note=1\r\n{BODY}\r\n0\r\nX-Sum: 1\r\n\r\n"], [201]),
    "two chunks": ([f"{CHUNKED}9\r\n{BODY[:9]}\r\n{len(BODY) - 9:X}\r\n{BODY[9:]}\r\n0\r\n\r\n"], [201]),
    "invalid chunk size": ([f"{CHUNKED}----abcd\r\n{{}}\r\n0\r\n\r\n"], [400]),
    "chunk longer than its size": ([f"{CHUNKED}1\r\n{BODY}\r\n0\r\n\r\n"], [400]),
    "two lengths": ([f"{POST}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}} "], [400]),
    "body shorter than its length": ([f"{POST}Content-Length: 100\r\n\r\n{BODY}"], []),
    "chunk shorter than its size": ([f"{CHUNKED}{CHUNK}\r\n{BODY[:5]}"], []),
    "100-continue": ([f"{SIZED}Expect: 100-continue\r\n\r\n", BODY], [100, 201]),
    "white space around a value": ([f"{SIZED}Idempotency-Key: \t ows \t \r\n\r\n{BODY}"], [201]),
    "white space after a name": ([f"{GET}X-A : b\r\n\r\n"], [400]),
    "pipelined": ([f"{GET}\r\n" * 2 + f"{GET}Connection: close\r\n\r\n"], [200] * 3),
    "after an error": ([f"{POST}Content-Length: 2\r\n\r\n{{}}{SIZED}\r\n{BODY}"], [422, 201]),
    "absolute form": ([GET.replace("/inc", "http://localhost/inc") + "\r\n"], [200]),
    "two slashes": ([GET.replace("/inc", "//inc") + "\r\n"], [404]),
    "method in lower case": ([GET.replace("GET", "get") + "\r\n"], [400]),
}


@pytest.mark.parametrize(("parts", "statuses"), REQUESTS.values(), ids=REQUESTS)
def test_http_is_read_according_to_rfc_9112(api: httpx.Client, parts: list[str], statuses: list[int]) -> None:
    assert send(api, *parts) == statuses
    assert len(api.get("/incidents").json()) == statuses.count(201)


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/incidents", "GET /incidents"),
        ("GET", "/incidents/1", "GET /incidents/{id}"),
        ("GET", "/incidents/", "GET /incidents/{proxy+}"),
        ("GET", "/incidents/1/", "GET /incidents/{proxy+}"),
        ("GET", "/incidents/1/2", "GET /incidents/{proxy+}"),
        ("PUT", "/incidents", None),
        ("PATCH", "/incidents/", None),
        ("PATCH", "/incidents/1/", None),
        ("GET", "/nothing/incidents", None),
    ],
)
def test_the_most_specific_route_matches(api: httpx.Client, method: str, path: str, key: str | None) -> None:
    matching = [route.key for route in TEMPLATE.routes() if route.match(method, path) is not None]
    assert next(iter(matching), None) == key
    response = api.request(method, path)
    assert (response.text == '{"message": "Not Found"}') == (key is None)


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}], ids=["sized", "chunked"])
def test_a_body_over_10_mb_is_a_413(api: httpx.Client, headers: dict[str, str]) -> None:
    response = api.post("/incidents", content=bytes(10 * 1024 * 1024 + 1), headers=headers)
    assert (response.status_code, response.json()) == (413, {"message": "Request Entity Too Large"})


def test_a_server_can_stop_while_another_thread_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server, write = Server(Response(), port=0), os.write

    def write_after_another_thread(file: int, data: bytes) -> int:
        write(file, data)
        time.sleep(0.1)  # in which the server may handle that
        return write(file, data)

    server.start()
    monkeypatch.setattr(os, "write", write_after_another_thread)
    server.stop()


# ---- events and limits


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write the function behind `POST /echo/{id}`: the body of its response, and a statement before."""
    event = {"Type": "HttpApi", "Properties": {"Method": "POST", "Path": "/echo/{id}"}}
    properties = {"Handler": "echo.handler", "Events": {"Any": event}}
    declared = {
        "Globals": {"Function": {"Timeout": 1, "Environment": {"Variables": {}}}},
        "Parameters": {},
        "Resources": {"EchoFunction": {"Type": "AWS::Serverless::Function", "Properties": properties}},
    }
    path = tmp_path / "template.yaml"
    path.write_text(json.dumps(declared))
    monkeypatch.setattr(template, "PATH", path)
    monkeypatch.setattr(gateway, "FUNCTIONS", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "echo", raising=False)
    times = count()

    def write(body: str, statement: str = "pass") -> None:
        answer = f"return dict(statusCode=200, body={body}, headers={{}}, isBase64Encoded=False)"
        file, modified = tmp_path / "echo.py", next(times)
        file.write_text(f"import json, time\ndef handler(event, context):\n    {statement}\n    {answer}\n")
        os.utime(file, ns=(modified, modified))

    return write


@pytest.fixture
def client(echo: Callable[..., None], serve: Callable[..., str]) -> Iterator[httpx.Client]:  # noqa: ARG001 (its function)
    with http_client(serve(gateway.Gateway())) as client:
        yield client


def test_the_next_request_runs_a_changed_file(echo: Callable[..., None], client: httpx.Client) -> None:
    for text in ("first", "second"):
        echo(f"'{text}'")
        assert client.post("/echo/1").text == text
    for wrong in ("syntax error", "raise ValueError"):
        echo("''", wrong)
        response = client.post("/echo/1")
        assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


def test_a_function_gets_the_event_that_aws_documents(echo: Callable[..., None], client: httpx.Client) -> None:
    echo("json.dumps(event)")
    headers = [("Cookie", "a=1; b=2"), ("X-Many", "1"), ("X-Many", "2"), ("Content-Type", "application/json")]
    event = client.post("/echo/%D1%8F%20z?q=1&q=2&r=a%2Cb&s", content="{}", headers=headers).json()
    context = event.pop("requestContext")
    assert event.pop("headers").items() >= {"x-many": "1, 2", "content-type": "application/json"}.items()
    assert event == {
        "version": "2.0",
        "routeKey": "POST /echo/{id}",
        "rawPath": "/echo/я z",
        "rawQueryString": "q=1&q=2&r=a%2Cb&s",
        "queryStringParameters": {"q": "1,2", "r": "a,b", "s": ""},
        "pathParameters": {"id": "я z"},
        "cookies": ["a=1", "b=2"],
        "body": "{}",
        "isBase64Encoded": False,
    }
    assert context.items() >= {"routeKey": "POST /echo/{id}", "stage": "$default"}.items()
    assert context["http"].items() >= {"method": "POST", "path": "/echo/я z"}.items()

    binary = client.post("/echo/1", data={"a": "1"}).json()
    assert (binary["body"], binary["isBase64Encoded"]) == ("YT0x", True)
    assert not client.post("/echo/1").json().keys() & {"queryStringParameters", "cookies", "body"}


def test_a_head_over_10240_bytes_is_a_431(echo: Callable[..., None], client: httpx.Client) -> None:
    echo("''")
    request = client.build_request("POST", "/echo/1?q=1", headers={"X-Pad": ""})
    head = len("POST /echo/1?q=1 HTTP/1.1") + sum(len(value) for value in request.headers.values())
    pad = "x" * (10_240 - head)
    assert client.post("/echo/1?q=1", headers={"X-Pad": pad}).status_code == 200
    for path, value in (("/echo/1?q=1", pad + "x"), ("/echo/1?q=12", pad)):
        response = client.post(path, headers={"X-Pad": value})
        assert (response.status_code, response.json()) == (431, {"message": "Request Header Fields Too Large"})


LARGEST = 6_291_556 - len(json.dumps({"statusCode": 200, "headers": {}, "isBase64Encoded": False, "body": "Я"})) + 4


@pytest.mark.parametrize(
    ("body", "statement", "message"),
    [
        (f"'Я' + {LARGEST + 1} * 'x'", "pass", "EchoFunction returned 6291557 bytes; Lambda's limit is 6291556."),
        ("''", "time.sleep(1.1)", "EchoFunction ran for 1.1 s; Lambda ends it after 1 s."),
        ("''", "return {'statusCode': '200'}", "EchoFunction returned no statusCode."),
    ],
    ids=["too large", "too late", "no status code"],
)
def test_a_response_that_aws_would_refuse_is_a_500(
    echo: Callable[..., None],
    client: httpx.Client,
    caplog: pytest.LogCaptureFixture,
    body: str,
    statement: str,
    message: str,
) -> None:
    echo(body, statement)
    response = client.post("/echo/1")
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})
    assert message in caplog.text


def test_the_largest_response_is_returned(echo: Callable[..., None], client: httpx.Client) -> None:
    echo(f"'Я' + {LARGEST} * 'x'")
    assert len(client.post("/echo/1").text) == LARGEST + 1
