"""Checks responses of the API against infra/openapi.json."""

import json
from typing import NotRequired, TypedDict

import httpx
import jsonschema_rs

from infra import openapi
from infra.local import template
from infra.local.template import Route
from infra.openapi import Json


class Shape(TypedDict):
    """A header, a parameter, or a body of one media type."""

    schema: Json
    required: NotRequired[bool]
    examples: NotRequired[dict[str, dict[str, object]]]


class Message(TypedDict):
    """A request's body, or a response."""

    headers: NotRequired[dict[str, Shape]]
    content: NotRequired[dict[str, Shape]]


class Operation(TypedDict):
    operationId: str
    parameters: NotRequired[list[Shape]]
    requestBody: NotRequired[Message]
    responses: dict[str, Message]


class Document(TypedDict):
    paths: dict[str, dict[str, Operation]]


def _closed(each: Json) -> Json:
    # The contract permits new fields in later versions; in this version, every field is described.
    return {"additionalProperties": False} | each if each.get("type") == "object" else each


DOCUMENT: Document = jsonschema_rs.dereference(json.loads(openapi.PATH.read_text(), object_hook=_closed))
ROUTES = template.load().routes(**openapi.INTEGRATIONS)
SERVER_HEADERS = {"connection", "content-length", "content-type", "date", "server"}


def assert_documented(response: httpx.Response) -> None:
    """Check the response's status, headers and body against the document, unless the route is not in it."""
    request = response.request
    path = request.url.raw_path.decode().partition("?")[0]
    matched = next((route for route in ROUTES if route.match(request.method, path) is not None), None)
    if not matched or documented_path(matched) not in (matched.path, path.removesuffix("/")):
        return
    operation = DOCUMENT["paths"][documented_path(matched)][request.method.lower()]
    response.read()
    what = f"{operation['operationId']} {response.status_code}"
    assert str(response.status_code) in operation["responses"], f"{what}: undocumented status"
    documented = operation["responses"][str(response.status_code)]
    headers = {name.lower(): header for name, header in documented.get("headers", {}).items()}
    undocumented = set(response.headers) - SERVER_HEADERS - set(headers)
    assert not undocumented, f"{what}: undocumented headers: {undocumented}"
    for name, header in headers.items():
        if name in response.headers:
            text = response.headers[name]
            assert_valid(f"{what}: {name}", int(text) if header["schema"]["type"] == "integer" else text, header)
        else:
            assert not header.get("required"), f"{what}: {name} is missing"
    if "content" in documented:
        media_type = response.headers["Content-Type"]
        assert media_type in documented["content"], f"{what}: undocumented media type {media_type}"
        assert_valid(f"{what}: body", response.json(), documented["content"][media_type])
    else:
        assert not response.content, f"{what}: undocumented body"


def documented_path(route: Route) -> str:
    """The path under which the document has a route: without the trailing slash that `{proxy+}` stands for."""
    return route.path.removesuffix("/{proxy+}")


def assert_valid(what: str, value: object, shape: Shape) -> None:
    """Check a value against its schema."""
    errors = [str(error) for error in jsonschema_rs.iter_errors(shape["schema"], value, validate_formats=True)]
    assert not errors, f"{what}: {errors}"
