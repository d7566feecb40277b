"""Generate infra/openapi.json, the contract in OpenAPI 3.1: `make openapi`.

Routes, parameters and bodies come from the functions' resolvers and models, errors from their table of problems. This module adds
what a resolver does not know: the headers and problems of each response, the gateway's own errors, and the security schemes.
"""

import importlib
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict, cast

from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.merge import OpenAPIMerge

from infra.local import template

ROOT = template.PATH.parent
PATH = Path(__file__).with_suffix(".json")

if TYPE_CHECKING:
    from api import Api

Json = dict[str, object]

INTEGRATIONS = {"Alerts": "enabled", "TelegramChats": "-1001234567890,4567"}
"""Parameters of the stack with which every route is deployed."""

INFO: Json = {
    "title": "Incident API",
    "summary": "Create incidents, list them, change their status.",
    "description": (
        "Incidents that operators, monitoring systems and partners report.\n\n"
        "JSON is UTF-8, in and out; letters beyond ASCII are not escaped. A 201 or a 200 is sent only after the database has "
        "acknowledged the write. Errors of the API are problem details (RFC 9457); errors of the gateway in front of it "
        "have a body with a `message`. `/incidents/` is the same as `/incidents`.\n\n"
        "On AWS, every request needs an access key: `Authorization: Bearer inc_…`. Its role says which routes it may use."
    ),
    "contact": {"name": "The Incident API authors"},
    "license": {"name": "MIT", "identifier": "MIT"},
}

SERVERS: list[Json] = [
    {
        "url": "https://{api}.execute-api.{region}.amazonaws.com",
        "description": "On AWS: the stack's output ApiUrl.",
        "variables": {
            "api": {"default": "api-id", "description": "The HTTP API's id."},
            "region": {"default": "eu-central-1", "description": "The stack's region."},
        },
    },
]

SECURITY: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "inc_ and 43 characters",
        "description": "An access key, which the operators of the API issue. The local run asks for none.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The access key as the password, with any user name, for clients that cannot send it otherwise.",
    },
    "telegram": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Telegram-Bot-Api-Secret-Token",
        "description": "The access key that was given to Telegram as `secret_token`.",
    },
}

TAG = "incidents"

ID = "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"
CURSOR = "MjAyNi0xMS0yM1QxMDowMDowMC4xMjNaIzZhNWNiN2YwLTRjNWUtNGYwYS05ZDUxLTBkMmE1YjFjN2UzOA"

PROBLEM = "application/problem+json"
BAD_INPUT: list[Json] = [{"loc": ["body", "description"], "msg": "String should have at least 1 visible character"}]

HEADERS: dict[str, Json] = {
    "ETag": {
        "description": "The incident's version, for `If-Match` and `If-None-Match`.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$', "examples": ['"1"']},
    },
    "Location": {
        "description": "Where the incident is.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference", "examples": [f"/incidents/{ID}"]},
    },
    "Idempotent-Replayed": {
        "description": "Present when the request replays an earlier one with the same `Idempotency-Key`.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Link": {
        "description": "The URL of the next page (RFC 8288); present when more incidents follow.",
        "schema": {
            "type": "string",
            "pattern": '^<[^>]+>; rel="next"$',
            "examples": [f'<http://localhost:8000/incidents?limit=1&cursor={CURSOR}>; rel="next"'],
        },
    },
    "Retry-After": {
        "description": "Seconds to wait before retrying. Present on the API's own 503, not on the gateway's.",
        "schema": {"type": "integer", "minimum": 1, "examples": [1]},
    },
}

ERRORS: dict[str, Json] = {
    "Problem": {
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {
                "type": "string",
                "enum": ["about:blank"],
                "description": "The status says what kind of problem it is.",
            },
            "title": {"type": "string", "description": "The status in words."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "minLength": 1, "description": "What went wrong, for people to read."},
            "errors": {
                "type": "array",
                "minItems": 1,
                "description": "What is invalid, at most 100 errors; present when the input is invalid.",
                "items": {"$ref": "#/components/schemas/BadInput"},
            },
        },
    },
    "BadInput": {
        "type": "object",
        "description": "Something invalid in the request.",
        "required": ["loc", "msg"],
        "properties": {
            "loc": {
                "type": "array",
                "minItems": 1,
                "description": "Where: `body`, `query` or `header`, the name, and for a list the index, from 0.",
                "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            },
            "msg": {"type": "string", "minLength": 1, "description": "The rule."},
        },
        "examples": BAD_INPUT,
    },
    "GatewayError": {
        "type": "object",
        "description": "An error of the gateway.",
        "required": ["message"],
        "properties": {"message": {"type": "string"}},
    },
}

PROBLEM_SCHEMA: Json = {"$ref": "#/components/schemas/Problem"}
GATEWAY_SCHEMA: Json = {"$ref": "#/components/schemas/GatewayError"}

GATEWAY: dict[int, tuple[str, str]] = {
    401: ("Unauthorized", "The request has no access key."),
    403: ("Forbidden", "The access key is unknown, expired or revoked, or its role may not use this route."),
    413: ("Request Entity Too Large", "The body is longer than 10 MB."),
    429: ("Too Many Requests", "The request rate is above the API's limit. Wait and retry."),
    500: (
        "Internal Server Error",
        "A fault in a function, or a failure to look up the access key; operators are alerted.",
    ),
    503: ("Service Unavailable", "The function could not be invoked or did not respond."),
    504: ("Gateway Timeout", "The function took too long. The change may have been made."),
}
"""The message of each of the gateway's own errors, and its cause."""

GATEWAY_ONLY = (401, 403, 429, 500, 504)
"""Errors that no function sends, and any request may receive."""


class OperationDoc(NamedTuple):
    id: str
    success: str
    problems: tuple[type[Exception], ...]
    headers: tuple[str, ...] = ()
    status: int = 200
    not_modified: str = ""
    security: tuple[str, ...] = ("bearer", "basic")


def operations() -> dict[str, OperationDoc]:
    """What each route responds, by method and path."""
    from api import BodyTooLarge, EmptyBody, NotJson, NotUtf8, UnsupportedContentEncoding, UnsupportedMediaType
    from dynamodb import Unavailable
    from incident import IdempotencyKeyReused, IncidentNotFound, TooManyChanges, TooManyComments, VersionConflict

    every = (RequestValidationError, Unavailable)
    body = (EmptyBody, NotUtf8, NotJson, BodyTooLarge, UnsupportedMediaType, UnsupportedContentEncoding, *every)
    return {
        "POST /incidents": OperationDoc(
            "create_incident",
            "The incident as it is stored.",
            (*body, IdempotencyKeyReused),
            headers=("ETag", "Location", "Idempotent-Replayed"),
            status=201,
        ),
        "GET /incidents": OperationDoc(
            "list_incidents",
            "The incidents of the page; an empty array if there are none.",
            every,
            headers=("Link",),
        ),
        "GET /incidents/{id}": OperationDoc(
            "get_incident",
            "The incident.",
            (*every, IncidentNotFound),
            headers=("ETag",),
            not_modified="The client has this version of the incident.",
        ),
        "GET /incidents/{id}/history": OperationDoc(
            "get_history",
            "The versions of the incident.",
            (*every, IncidentNotFound),
            headers=("ETag",),
            not_modified="The incident has not changed.",
        ),
        "POST /telegram": OperationDoc(
            "receive_telegram",
            "A call of a method of the Bot API, its name in `method`; empty if the update asks for nothing.",
            body,
            security=("telegram",),
        ),
        "POST /alerts": OperationDoc("receive_alerts", "What became of the alerts, all of which are stored.", body),
        "PATCH /incidents/{id}": OperationDoc(
            "update_incident",
            "The incident as it now stands.",
            (*body, IncidentNotFound, TooManyChanges, TooManyComments, VersionConflict),
            headers=("ETag",),
        ),
    }


_Parameter = TypedDict("_Parameter", {"name": str, "in": str, "required": bool, "description": str, "schema": Json})


class _Operation(TypedDict):
    summary: str
    description: str
    parameters: NotRequired[list[_Parameter]]
    requestBody: NotRequired[Json]
    responses: dict[str, dict[str, dict[str, dict[str, Json]]]]


class _Problem(TypedDict):
    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[Json]]


class _Generated(TypedDict):
    """The parts of Powertools' document that this one uses."""

    paths: dict[str, dict[str, _Operation]]
    components: dict[str, dict[str, Json]]


def text() -> str:
    """The contract. Exits with a message that names the file to change if something has no description."""
    generated = _generated()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    paths = {
        path: {method: _operation(f"{method.upper()} {path}", operation) for method, operation in item.items()}
        for path, item in sorted(generated["paths"].items())
    }
    schemas = {
        name: _component(schema)
        for name, schema in sorted(generated["components"]["schemas"].items())
        if not name.endswith("ValidationError")  # Powertools' own errors, which these functions do not send
    }
    document: Json = {
        "openapi": "3.1.1",
        "info": INFO | {"version": version},
        "servers": SERVERS,
        "tags": [{"name": TAG, "description": "Reported incidents and their status."}],
        "paths": paths,
        "components": {
            "schemas": schemas | ERRORS,
            "headers": HEADERS,
            "responses": {
                _name(status): {"description": GATEWAY[status][1], "content": _gateway_content(status)}
                for status in GATEWAY_ONLY
            },
            "examples": {error.__name__: {"value": problem} for error, problem in _problems().items()},
            "securitySchemes": SECURITY,
        },
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _generated() -> _Generated:
    merge = OpenAPIMerge(on_conflict="error")
    for handler in dict.fromkeys(route.handler for route in template.load().routes(**INTEGRATIONS)):
        app: Api = importlib.import_module(handler.removesuffix(".handler")).app
        merge.add_schema(json.loads(app.get_openapi_json_schema()))
    return cast("_Generated", merge.get_openapi_schema())


def _operation(route: str, operation: _Operation) -> Json:
    from authorize import ROLES

    doc = operations().get(route)
    if doc is None:
        sys.exit(f"infra/openapi.py: describe the responses of {route} in operations()")
    roles = " or ".join(role for role, routes in ROLES.items() if route in routes)
    described: Json = {
        "operationId": doc.id,
        "tags": [TAG],
        "summary": operation["summary"],
        "description": f"{operation['description']} For access keys of the role {roles}.",
        "security": [{scheme: []} for scheme in doc.security],
    }
    if "parameters" in operation:
        described["parameters"] = [_parameter(route, parameter) for parameter in operation["parameters"]]
    if "requestBody" in operation:
        described["requestBody"] = operation["requestBody"]
    (content,) = (response["content"]["application/json"] for response in operation["responses"].values())
    return described | {"responses": _responses(doc, _plain(content["schema"]))}


def _parameter(route: str, parameter: _Parameter) -> Json:
    if "description" not in parameter:
        sys.exit(f"functions/: describe the parameter {parameter['name']} of {route}")
    schema = parameter["schema"]
    # Powertools lowers the case of a header's name, but not of its title.
    name = str(schema["title"]) if parameter["in"] == "header" else parameter["name"]
    if "anyOf" in schema:  # `| None`: the parameter may be absent, but not null
        (value, _) = cast("list[Json]", schema["anyOf"])
        schema = value | {key: rule for key, rule in schema.items() if key != "anyOf"}
    rules = {key: rule for key, rule in _plain(schema).items() if key != "description"}
    described = {key: parameter[key] for key in ("in", "required", "description")}
    return {"name": name, **described, "schema": rules}


def _component(schema: Json) -> Json:
    plain = _plain(schema)
    if "properties" in plain:
        properties = cast("dict[str, Json]", plain["properties"])
        plain["properties"] = {name: _plain(value) for name, value in properties.items()}
    return plain


def _plain(schema: Json) -> Json:
    """A schema without pydantic's additions: titles, bounds as floats, empty defaults."""
    return {
        key: int(value) if isinstance(value, float) else value
        for key, value in schema.items()
        if key != "title" and (key, value) != ("default", "")
    }


def _responses(doc: OperationDoc, schema: Json) -> Json:
    content: Json = {"content": {"application/json": {"schema": schema}}}
    headers: Json = {"headers": _headers(*doc.headers)} if doc.headers else {}
    responses: dict[int, Json] = {doc.status: {"description": doc.success} | headers | content}
    if doc.not_modified:
        responses[304] = {"description": doc.not_modified, "headers": _headers(*doc.headers)}
    problems = {error: problem for error, problem in _problems().items() if error in doc.problems}
    for status in {problem["status"] for problem in problems.values()}:
        of_status = {error.__name__: each for error, each in problems.items() if each["status"] == status}
        examples = {name: {"$ref": f"#/components/examples/{name}"} for name in of_status}
        # Generated clients choose a schema by status, whatever the media type.
        schema = {"anyOf": [PROBLEM_SCHEMA, GATEWAY_SCHEMA]} if status in GATEWAY else PROBLEM_SCHEMA
        responses[status] = {
            "description": " Or: ".join(problem["detail"] for problem in of_status.values()),
            "content": {PROBLEM: {"schema": schema, "examples": examples}}
            | (_gateway_content(status) if status in GATEWAY else {}),
        }
    responses[503]["headers"] = _headers("Retry-After")
    for status in GATEWAY_ONLY:
        responses[status] = {"$ref": f"#/components/responses/{_name(status)}"}
    return {str(status): response for status, response in sorted(responses.items())}


def _problems() -> dict[type[Exception], _Problem]:
    from api import PROBLEMS

    problems: dict[type[Exception], _Problem] = {
        error: {"type": "about:blank", "title": title, "status": status, "detail": detail}
        for error, (status, title, detail) in PROBLEMS.items()
        if error is not NotFoundError  # no documented route responds with it
    }
    problems[RequestValidationError]["errors"] = BAD_INPUT
    return problems


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _name(status: int) -> str:
    return GATEWAY[status][0].replace(" ", "")


def _gateway_content(status: int) -> dict[str, Json]:
    example = {"message": GATEWAY[status][0]}
    return {"application/json": {"schema": GATEWAY_SCHEMA, "example": example}}


def main() -> None:
    # The environment in which Lambda imports the functions.
    os.environ.update(template.load().environment(**INTEGRATIONS), AWS_DEFAULT_REGION="us-east-1")
    sys.path.insert(0, str(ROOT / "functions"))
    PATH.write_text(text())


if __name__ == "__main__":
    main()
