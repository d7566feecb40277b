"""infra/openapi.json, and whether an answer of the API is one of those that it promises."""

import json
from typing import NotRequired, TypedDict

import httpx
import jsonschema_rs

from infra import openapi
from infra.local import template
from infra.local.template import Route
from infra.openapi import Json


class Example(TypedDict):
    """An example by name."""

    value: object


class Shape(TypedDict):
    """A header, a parameter, or a body of one media type."""

    schema: Json
    required: NotRequired[bool]
    examples: NotRequired[dict[str, Example]]


class Body(TypedDict):
    """What a request holds."""

    content: dict[str, Shape]


class Answer(TypedDict):
    """What the document says of one status."""

    headers: NotRequired[dict[str, Shape]]
    content: NotRequired[dict[str, Shape]]


class Operation(TypedDict):
    """What the document says of one route."""

    operationId: str
    parameters: NotRequired[list[Shape]]
    requestBody: NotRequired[Body]
    responses: dict[str, Answer]


class Document(TypedDict):
    """The document, each `$ref` replaced with what it names."""

    paths: dict[str, dict[str, Operation]]


def _closed(each: Json) -> Json:
    # The document lets a later version add fields; an answer of this version has no others than those that are described.
    return {"additionalProperties": False} | each if each.get("type") == "object" else each


DOCUMENT: Document = jsonschema_rs.dereference(json.loads(openapi.PATH.read_text(), object_hook=_closed))
ROUTES = template.load().routes(**openapi.INTEGRATIONS)
OF_THE_SERVER = {"connection", "content-length", "content-type", "date", "server"}
"""Headers that any HTTP server sends."""


def assert_documented(response: httpx.Response) -> None:
    """Check that the document promises this status, these headers and such a body. Requests of other routes are let pass."""
    request = response.request
    path = request.url.raw_path.decode().partition("?")[0]
    matched = next((route for route in ROUTES if route.match(request.method, path) is not None), None)
    if matched and (documented := documented_path(matched)) in (matched.path, path.removesuffix("/")):
        operation = DOCUMENT["paths"][documented][request.method.lower()]
        response.read()
        _assert_answered(operation, response)


def documented_path(route: Route) -> str:
    """The path under which the document has a route: that of the slash at the end is documented without it."""
    return route.path.removesuffix("/{proxy+}")


def _assert_answered(operation: Operation, response: httpx.Response) -> None:
    what = f"{operation['operationId']} {response.status_code}"
    assert str(response.status_code) in operation["responses"], f"{what}: no such status in the document"
    answer = operation["responses"][str(response.status_code)]
    headers = {name.lower(): header for name, header in answer.get("headers", {}).items()}
    undocumented = set(response.headers) - OF_THE_SERVER - set(headers)
    assert not undocumented, f"{what}: no such headers in the document: {undocumented}"
    for name, header in headers.items():
        if name in response.headers:
            assert_valid(f"{what}: {name}", _value(response.headers[name], header), header)
        else:
            assert not header.get("required"), f"{what}: {name} is missing"
    if "content" in answer:
        media_type = response.headers["Content-Type"]
        assert media_type in answer["content"], f"{what}: no {media_type} in the document"
        assert_valid(f"{what}: the body", response.json(), answer["content"][media_type])
    else:
        assert not response.content, f"{what}: no body in the document"


def assert_valid(what: str, value: object, shape: Shape) -> None:
    """Check a value against a schema of the document."""
    errors = [str(error) for error in jsonschema_rs.iter_errors(shape["schema"], value, validate_formats=True)]
    assert not errors, f"{what}: {errors}"


def _value(text: str, header: Shape) -> object:
    return int(text) if header["schema"]["type"] == "integer" else text
