"""API Gateway's HTTP API and Lambda, as functions and clients see them: routes, events, responses, limits, errors.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

import base64
import importlib
import json
import logging
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from infra.local import docs, template
from infra.local.event import http_event
from infra.local.template import Cors, Function, Route

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

FUNCTIONS = template.PATH.parent / "functions"
MAX_PAYLOAD = 10 * 1024 * 1024
"""Bytes of a request's body: a quota of HTTP APIs."""
MAX_HEAD = 10_240
"""Bytes of the request line and the header values together: a quota of HTTP APIs."""
MAX_RESPONSE = 6_291_556
"""Bytes of what a function returns, as JSON: a quota of Lambda."""


class Context:
    """What the functions may use of Lambda's context."""

    def __init__(self, timeout: float = 25) -> None:
        self._deadline = time.monotonic() + timeout
        self.aws_request_id = str(uuid.uuid4())

    def get_remaining_time_in_millis(self) -> int:
        return int(1000 * (self._deadline - time.monotonic()))


Handler = Callable[[dict[str, object], Context], dict[str, Any]]


class FunctionFailed(Exception):
    """What Lambda would report as a function error: the gateway answers 500."""


class Gateway:
    """A WSGI application that calls the functions, and reloads changed files before the next request.

    It takes one request at a time, like a Lambda environment: Powertools keeps the current event in a global.
    """

    def __init__(self, **parameters: str) -> None:
        """Serve the stack with these parameters. The functions' standard output is what CloudWatch gets on AWS."""
        self._reloading = Lock()
        self._parameters = parameters
        self._loaded: dict[str, int] = {}
        self._routes: list[Route] = []
        self._functions: dict[str, Function] = {}
        self._cors: Cors | None = None
        self._base_path = ""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        started = time.perf_counter()
        response = self._respond(Request(environ))
        took = 1000 * (time.perf_counter() - started)
        log.info("%s %s %d %.0f ms", environ["REQUEST_METHOD"], environ["REQUEST_URI"], response.status_code, took)
        return response(environ, start_response)

    def _respond(self, request: Request) -> Response:
        request.max_content_length = MAX_PAYLOAD
        if _head_size(request) > MAX_HEAD:
            return _message(431, "Request Header Fields Too Large")
        try:
            request.get_data()
            return self._answer(request)
        except RequestEntityTooLarge:
            return _message(413, "Request Entity Too Large")
        except FunctionFailed as error:
            log.error("%s", error)
            return _message(500, "Internal Server Error")
        except Exception:  # on AWS, any exception that leaves a function is a 500, too
            log.exception("%s %s failed", request.method, request.path)
            return _message(500, "Internal Server Error")

    def _answer(self, request: Request) -> Response:
        self._reload()
        if self._cors is None:
            return self._routed(request)
        preflight = request.method == "OPTIONS" and "Origin" in request.headers
        response = Response(status=204) if preflight else self._routed(request)
        _add_cors(self._cors, request.headers.get("Origin", ""), response, preflight=preflight)
        return response

    def _routed(self, request: Request) -> Response:
        path, _ = _target(request)
        # Behind an API mapping, functions see the full path.
        below = path.removeprefix(self._base_path) if path.startswith(f"{self._base_path}/") else ""
        for route in self._routes:
            parameters = route.match(request.method, below)
            if parameters is not None:
                return self._invoke(route, _event(request, route, parameters))
        page = docs.page(path) if request.method == "GET" else None
        return page or _message(404, "Not Found")

    def _invoke(self, route: Route, event: dict[str, object]) -> Response:
        timeout = self._functions[route.function].Timeout
        started = time.monotonic()
        answer = self._call(route.function, event)
        if not isinstance(answer.get("statusCode"), int):
            raise FunctionFailed(f"{route.function} returned no statusCode.")
        if (took := time.monotonic() - started) > timeout:
            raise FunctionFailed(f"{route.function} ran for {took:.1f} s; Lambda ends it after {timeout} s.")
        payload = json.dumps(answer, ensure_ascii=False).encode()
        if len(payload) > MAX_RESPONSE:
            raise FunctionFailed(f"{route.function} returned {len(payload)} bytes; Lambda's limit is {MAX_RESPONSE}.")
        answer = json.loads(payload)
        body = answer["body"] or ""
        return Response(
            base64.b64decode(body) if answer["isBase64Encoded"] else body,
            status=answer["statusCode"],
            headers=answer["headers"],
        )

    def _call(self, name: str, event: dict[str, object]) -> dict[str, Any]:
        function = self._functions[name]
        module, _, handler = function.Handler.rpartition(".")
        handle: Handler = getattr(importlib.import_module(module), handler)
        # Through JSON, as on Lambda: a value that JSON cannot represent fails here, too.
        return handle(json.loads(json.dumps(event)), Context(function.Timeout))

    def pass_on(self, records: list[dict[str, object]]) -> None:
        """Give records of the table's stream to the functions on it. Raises what a function raises."""
        self._reload()
        for name, function in self._functions.items():
            if any(event.Type == "DynamoDB" for event in function.Events.values()):
                self._call(name, {"Records": records})

    def _reload(self) -> None:
        with self._reloading:  # requests and the stream have threads of their own
            self._load_changes()

    def _load_changes(self) -> None:
        files = {entry.path: entry.stat().st_mtime_ns for entry in _sources(FUNCTIONS)}
        files[str(template.PATH)] = template.PATH.stat().st_mtime_ns
        if files == self._loaded:
            return
        if self._loaded:
            for name, module in list(sys.modules.items()):
                # A folder of the functions is a namespace package, which has a path but no file.
                places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
                if any(FUNCTIONS in Path(place).parents for place in places if place):
                    del sys.modules[name]
            importlib.invalidate_caches()
        elif str(FUNCTIONS) not in sys.path:
            sys.path.insert(0, str(FUNCTIONS))
        declared = template.load()
        os.environ.update(declared.environment(**self._parameters))
        self._routes = declared.routes(**self._parameters)
        self._functions = declared.functions(**self._parameters)
        self._cors = declared.cors(**self._parameters)
        self._base_path = declared.base_path(**self._parameters)
        for function in self._functions.values():
            if function.Events:
                importlib.import_module(function.Handler.rpartition(".")[0])
        self._loaded = files


def _add_cors(cors: Cors, origin: str, response: Response, *, preflight: bool) -> None:
    """Add the headers that tell a browser what a page of this origin may do.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html
    """
    if origin.lower() not in (each.lower() for each in cors.AllowOrigins):
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = ",".join(cors.ExposeHeaders)
    response.headers["Vary"] = "Origin"
    if preflight:
        response.headers["Access-Control-Allow-Methods"] = ",".join(cors.AllowMethods)
        response.headers["Access-Control-Allow-Headers"] = ",".join(cors.AllowHeaders)
        response.headers["Access-Control-Max-Age"] = str(cors.MaxAge)


def _sources(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    """The Python files below a folder. Path.rglob would take four times as long: a tenth of a list request."""
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _sources(entry.path)
        elif entry.name.endswith(".py"):
            yield entry


def _head_size(request: Request) -> int:
    environ = request.environ
    line = f"{request.method} {environ['REQUEST_URI']} {environ['SERVER_PROTOCOL']}"
    return len(line) + sum(len(value) for _, value in request.headers)


def _target(request: Request) -> tuple[str, str]:
    """The path and the query as the client wrote them, also in absolute form (RFC 9112, section 3.2.2)."""
    path, _, query = re.sub("^https?://[^/?]*", "", request.environ["REQUEST_URI"], flags=re.IGNORECASE).partition("?")
    return path or "/", query


def _event(request: Request, route: Route, parameters: dict[str, str]) -> dict[str, object]:
    path, query = _target(request)
    client = request.remote_addr or ""
    return http_event(
        request.method,
        unquote(path),
        route_key=route.key,
        path_parameters={name: unquote(value) for name, value in parameters.items()},
        query=query,
        headers=dict(request.headers) | {"X-Forwarded-Proto": "http", "X-Forwarded-For": client},
        body=request.get_data(),
        source_ip=client,
        protocol=request.environ["SERVER_PROTOCOL"],
    )


def _message(status: int, message: str) -> Response:
    return Response(json.dumps({"message": message}), status=status, content_type="application/json")
