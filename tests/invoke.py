"""Calls the functions with events like the gateway's, including what the authorizer says about the caller."""

import importlib
import json
from collections.abc import Callable, Mapping

from infra.local.event import http_event
from infra.local.gateway import Context
from infra.local.template import Route

Event = dict[str, object]
Handler = Callable[[Event, Context], Event]


def answer_of(module: str, event: Mapping[str, object]) -> tuple[int, dict[str, str], str]:
    """The status, headers and body of the function's response, which goes through JSON as on Lambda."""
    handler: Handler = importlib.import_module(module).handler
    answer = json.loads(json.dumps(handler(dict(event), Context()), ensure_ascii=False).encode())
    return answer["statusCode"], answer["headers"], answer["body"]


def call(
    module: str,
    route: str,
    body: Mapping[str, object] | None = None,
    authorizer: Mapping[str, object] | None = None,
    *,
    path: str = "",
    **headers: str,
) -> tuple[int, Event]:
    """The response to a request for a route, such as `PATCH /incidents/{id}`, whose path is by default the route's."""
    method, template = route.split()
    path = path or template
    event = http_event(
        method,
        path,
        route_key=route,
        path_parameters=Route(method, template, "", "").match(method, path),
        headers={"Content-Type": "application/json", **headers},
        body=json.dumps(body).encode() if body is not None else b"",
        authorizer={"lambda": authorizer} if authorizer else None,
    )
    status, _, answer = answer_of(module, event)
    return status, json.loads(answer)
