"""API Gateway's HTTP API, as far as the functions can tell: template.yaml's routes, events and answers in format 2.0.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import importlib
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TextIO
from urllib.parse import parse_qsl, unquote

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from infra.local import docs, template
from infra.local.template import Route

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

FUNCTIONS = template.PATH.parent / "functions"
MAX_PAYLOAD = 10 * 1024 * 1024
"""Bytes: the HTTP API's quota."""

_TEXT = ("text/", "application/json", "application/javascript", "application/xml")
"""What the gateway hands on as text. It encodes all else in base64."""


class Context:
    """What Lambda tells a function of its invocation."""

    memory_limit_in_mb = 512

    def __init__(self, function: str) -> None:
        self.function_name = function
        self.function_version = "$LATEST"
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{function}"
        self.aws_request_id = str(uuid.uuid4())


Handler = Callable[[dict[str, object], Context], dict[str, object]]


class Gateway:
    """A WSGI application that answers with the functions. A changed file is taken up by the next request."""

    def __init__(self, log: TextIO | None = None, **parameters: str) -> None:
        """Give the functions the environment that the template declares for these parameters of the stack.

        What the functions write to the standard output goes to `log`, where there is one, as it goes to CloudWatch on AWS.
        """
        self._log = log
        self._parameters = parameters
        self._loaded: dict[Path, int] = {}
        self._routes: list[Route] = []
        # One request at a time, as in an environment of Lambda's: Powertools keeps the current event in a global.
        self._lock = Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        started = time.perf_counter()
        request = Request(environ)
        request.max_content_length = MAX_PAYLOAD
        try:
            request.get_data()  # before the lock: a slow client keeps nobody else waiting
            with self._lock, redirect_stdout(self._log or sys.stdout):
                response = self._answer(request)
        except RequestEntityTooLarge:
            response = _message(413, "Request Entity Too Large")
        # As on AWS, whatever leaves a function is answered for by the gateway.
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = _message(500, "Internal Server Error")
        took = 1000 * (time.perf_counter() - started)
        log.info("%s %s %d %.0f ms", request.method, environ["REQUEST_URI"], response.status_code, took)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        self._reload()
        path = request.environ["REQUEST_URI"].partition("?")[0]
        for route in self._routes:
            parameters = route.match(request.method, path)
            if parameters is not None:
                return self._invoke(route, _event(request, route, parameters))
        page = docs.page(path) if request.method == "GET" else None
        return page or _message(404, "Not Found")

    def _invoke(self, route: Route, event: dict[str, object]) -> Response:
        module, _, name = route.handler.rpartition(".")
        handler: Handler = getattr(importlib.import_module(module), name)
        # Through JSON both ways, in UTF-8, as Lambda does: what cannot be written fails here too.
        answer = handler(json.loads(json.dumps(event)), Context(route.function))
        answer = json.loads(json.dumps(answer, ensure_ascii=False).encode())
        body = answer["body"] or ""
        return Response(
            base64.b64decode(body) if answer["isBase64Encoded"] else body,
            status=answer["statusCode"],
            headers=answer["headers"],
        )

    def _reload(self) -> None:
        files = {path: path.stat().st_mtime_ns for path in [template.PATH, *FUNCTIONS.glob("*.py")]}
        if files == self._loaded:
            return
        if self._loaded:
            for name, module in list(sys.modules.items()):
                if Path(getattr(module, "__file__", None) or "").parent == FUNCTIONS:
                    del sys.modules[name]
            importlib.invalidate_caches()
        elif str(FUNCTIONS) not in sys.path:
            sys.path.insert(0, str(FUNCTIONS))
        declared = template.load()
        os.environ.update(declared.environment(**self._parameters))
        self._routes = declared.routes
        for route in self._routes:
            importlib.import_module(route.handler.rpartition(".")[0])
        self._loaded = files


def _event(request: Request, route: Route, parameters: dict[str, str]) -> dict[str, object]:
    uri = request.environ["REQUEST_URI"]
    path, _, query_string = uri.partition("?")
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(query_string, keep_blank_values=True):
        query.setdefault(name, []).append(value)
    host = request.headers.get("Host", "localhost")
    headers = {name.lower(): value for name, value in request.headers if name.lower() != "cookie"}
    client = request.remote_addr or ""
    now = datetime.now(UTC)
    event: dict[str, object] = {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": unquote(path),
        "rawQueryString": query_string,
        "headers": headers | {"x-forwarded-proto": "http", "x-forwarded-for": client},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": host.partition(":")[0],
            "domainPrefix": "local",
            "http": {
                "method": request.method,
                "path": unquote(path),
                "protocol": request.environ["SERVER_PROTOCOL"],
                "sourceIp": client,
                "userAgent": request.headers.get("User-Agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": route.key,
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookie := request.headers.get("Cookie"):
        event["cookies"] = cookie.split("; ")
    if query:
        event["queryStringParameters"] = {name: ",".join(values) for name, values in query.items()}
    if parameters:
        event["pathParameters"] = {name: unquote(value) for name, value in parameters.items()}
    if body := request.get_data():
        event |= _body(body, request.mimetype)
    return event


def _body(body: bytes, media_type: str) -> dict[str, object]:
    if media_type.startswith(_TEXT):
        try:
            return {"body": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def _message(status: int, message: str) -> Response:
    return Response(json.dumps({"message": message}), status=status, content_type="application/json")
