"""The local run's gateway: HTTP as its clients speak it, and events as AWS documents them."""

import json
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from infra.local import gateway, template
from tests.conftest import TEMPLATE

Serve = Callable[[gateway.Gateway], str]

GET = "GET /incidents HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
POST = "POST /incidents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n"
BODY = json.dumps({"description": "x", "source": "partner"})
CHUNK = f"{len(BODY):x}"


def send(api: httpx.Client, *parts: str) -> list[int]:
    """Send requests as they are until this side or the other closes the connection; the statuses that come back."""
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


CHUNKED = POST.format(headers="Transfer-Encoding: chunked\r\n")
SIZED = POST.format(headers=f"Content-Length: {len(BODY)}\r\nConnection: close\r\n")


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        pytest.param(
            [f"{CHUNKED}{CHUNK};note=1\r\n{BODY}\r\n0\r\nX-Sum: 1\r\n\r\n"], [201], id="extension and trailer"
        ),
        pytest.param(
            [f"{CHUNKED}9\r\n{BODY[:9]}\r\n{len(BODY) - 9:X}\r\n{BODY[9:]}\r\n0\r\n\r\n"], [201], id="two chunks"
        ),
        pytest.param([f"{CHUNKED}----abcd\r\n{{}}\r\n0\r\n\r\n"], [400], id="no size of a chunk"),
        pytest.param([f"{CHUNKED}0x2\r\n{{}}\r\n0\r\n\r\n"], [400], id="another form of a size"),
        pytest.param([f"{CHUNKED}1\r\n{BODY}\r\n0\r\n\r\n"], [400], id="a chunk longer than its size"),
        pytest.param([POST.format(headers="Content-Length: -2\r\n") + "{}"], [400], id="a negative length"),
        pytest.param(
            [POST.format(headers="Content-Length: 2\r\nContent-Length: 3\r\n") + "{} "], [400], id="two lengths"
        ),
        pytest.param([POST.format(headers="Content-Length: 100\r\n") + BODY], [], id="a body shorter than its length"),
        pytest.param([f"{CHUNKED}{CHUNK}\r\n{BODY[:5]}"], [], id="a chunk shorter than its size"),
        pytest.param([SIZED[:-2] + "Expect: 100-continue\r\n\r\n", BODY], [100, 201], id="100-continue"),
        pytest.param(
            [SIZED[:-2] + "Idempotency-Key: \t ows \t \r\n\r\n" + BODY], [201], id="white space around a value"
        ),
        pytest.param([GET.format(headers="X-A : b\r\n")], [400], id="white space after a name"),
        pytest.param(
            [GET.format(headers="") * 2 + GET.format(headers="Connection: close\r\n")], [200] * 3, id="pipelined"
        ),
        pytest.param(
            [POST.format(headers="Content-Length: 2\r\n") + "{}" + SIZED + BODY], [422, 201], id="after an error"
        ),
        pytest.param(
            ["GET http://localhost/incidents?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"], [200], id="absolute form"
        ),
        pytest.param(["GET //incidents HTTP/1.1\r\nHost: localhost\r\n\r\n"], [404], id="two slashes"),
        pytest.param(["get /incidents HTTP/1.1\r\nHost: localhost\r\n\r\n"], [400], id="a method in lower case"),
        pytest.param(["\x16\x03\x01\r\n\r\n"], [400], id="TLS"),
    ],
)
def test_a_request_is_taken_or_refused_as_rfc_9112_says(
    api: httpx.Client, request_: list[str], statuses: list[int]
) -> None:
    assert send(api, *request_) == statuses
    assert len(api.get("/incidents").json()) == statuses.count(201)


def test_other_routes_are_not_found(api: httpx.Client) -> None:
    for method, path in [
        ("POST", "/"),
        ("PUT", "/incidents"),
        ("DELETE", "/incidents/1"),
        ("PATCH", "/incidents/"),
        ("PATCH", "/incidents/1/"),
        ("GET", "/nothing/incidents"),
    ]:
        response = api.request(method, path)
        assert (response.status_code, response.json()) == (404, {"message": "Not Found"})


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/incidents", "GET /incidents"),
        ("/incidents/1", "GET /incidents/{id}"),
        ("/incidents/", "GET /incidents/{proxy+}"),
        ("/incidents/1/", "GET /incidents/{proxy+}"),
        ("/incidents/1/2", "GET /incidents/{proxy+}"),
    ],
)
def test_the_most_specific_route_is_chosen(path: str, key: str) -> None:
    chosen = next(route for route in TEMPLATE.routes() if route.match("GET", path) is not None)
    assert chosen.key == key


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}], ids=["sized", "chunked"])
def test_a_payload_over_10_mb_does_not_reach_a_function(api: httpx.Client, headers: dict[str, str]) -> None:
    response = api.post("/incidents", content=bytes(10 * 1024 * 1024 + 1), headers=headers)
    assert (response.status_code, response.json()) == (413, {"message": "Request Entity Too Large"})


# ---- a function of one's own behind the gateway

ANSWER = "return dict(statusCode=200, body={body}, headers={{}}, isBase64Encoded=False)"


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write the function behind `POST /echo/{id}`: the body that it answers with, and a statement before."""
    event = {"Type": "HttpApi", "Properties": {"Method": "POST", "Path": "/echo/{id}"}}
    function = {
        "Type": "AWS::Serverless::Function",
        "Properties": {"Handler": "echo.handler", "Events": {"Any": event}},
    }
    declared = {
        "Globals": {"Function": {"Timeout": 1, "Environment": {"Variables": {}}}},
        "Parameters": {},
        "Resources": {"EchoFunction": function},
    }
    path = tmp_path / "template.yaml"
    path.write_text(json.dumps(declared))
    monkeypatch.setattr(template, "PATH", path)
    monkeypatch.setattr(gateway, "FUNCTIONS", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "echo", raising=False)
    written = iter(range(10))

    def write(body: str, statement: str = "pass") -> None:
        file = tmp_path / "echo.py"
        file.write_text(
            f"import json, time\ndef handler(event, context):\n    {statement}\n    {ANSWER.format(body=body)}\n"
        )
        os.utime(file, ns=(number := next(written), number))

    return write


def test_a_changed_file_is_taken_up_by_the_next_request(echo: Callable[..., None], serve: Serve) -> None:
    echo("'first'")
    with httpx.Client(base_url=serve(gateway.Gateway())) as client:
        assert client.post("/echo/1").text == "first"
        echo("'second'")
        assert client.post("/echo/1").text == "second"
        for wrong in ("syntax error", "raise ValueError"):
            echo("''", wrong)
            response = client.post("/echo/1")
            assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


def test_a_function_is_given_the_event_that_aws_documents(echo: Callable[..., None], serve: Serve) -> None:
    echo("json.dumps(event)")
    headers = [("Cookie", "a=1; b=2"), ("X-Many", "1"), ("X-Many", "2"), ("Content-Type", "application/json")]
    with httpx.Client(base_url=serve(gateway.Gateway())) as client:
        event = client.post("/echo/%D1%8F%20z?q=1&q=2&r=a%2Cb&s", content="{}", headers=headers).json()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        binary = client.post("/echo/1", content="a=1", headers=form).json()
        empty = client.post("/echo/1").json()
    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["routeKey"] == "POST /echo/{id}"
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/echo/я z"
    assert event["rawQueryString"] == "q=1&q=2&r=a%2Cb&s"
    assert event["queryStringParameters"] == {"q": "1,2", "r": "a,b", "s": ""}
    assert event["pathParameters"] == {"id": "я z"}
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"]["x-many"].split(", ") == ["1", "2"]
    assert "cookie" not in event["headers"]
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["stage"] == "$default"
    assert (event["body"], event["isBase64Encoded"]) == ("{}", False)
    assert (binary["body"], binary["isBase64Encoded"]) == ("YT0x", True)
    assert "queryStringParameters" not in binary
    assert "body" not in empty


def test_a_head_over_10240_bytes_does_not_reach_a_function(echo: Callable[..., None], serve: Serve) -> None:
    echo("''")
    with httpx.Client(base_url=serve(gateway.Gateway())) as client:
        request = client.build_request("POST", "/echo/1?q=1", headers={"X-Pad": ""})
        head = len("POST /echo/1?q=1 HTTP/1.1") + sum(len(value) for value in request.headers.values())
        pad = "x" * (10_240 - head)
        assert client.post("/echo/1?q=1", headers={"X-Pad": pad}).status_code == 200
        for path, value in (("/echo/1?q=1", pad + "x"), ("/echo/1?q=12", pad)):
            response = client.post(path, headers={"X-Pad": value})
            assert (response.status_code, response.json()) == (431, {"message": "Request Header Fields Too Large"})


LARGEST = 6_291_556 - len(json.dumps({"statusCode": 200, "headers": {}, "isBase64Encoded": False, "body": "Я"})) + 4


@pytest.mark.parametrize(
    ("body", "statement", "logged"),
    [
        (f"'Я' + {LARGEST} * 'x'", "pass", None),
        (f"'Я' + {LARGEST + 1} * 'x'", "pass", "EchoFunction returned 6291557 bytes; Lambda's limit is 6291556."),
        ("''", "time.sleep(1.1)", "EchoFunction ran for 1.1 s; Lambda ends it after 1 s."),
    ],
    ids=["the largest response", "too large", "too late"],
)
def test_what_lambda_would_not_return_is_a_500(
    echo: Callable[..., None],
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    body: str,
    statement: str,
    logged: str | None,
) -> None:
    echo(body, statement)
    response = httpx.post(f"{serve(gateway.Gateway())}/echo/1")
    if logged:
        assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})
        assert logged in caplog.text
    else:
        assert (response.status_code, len(response.text)) == (200, LARGEST + 1)
