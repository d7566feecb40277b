"""infra/openapi.json, the contract as a document (OpenAPI 3.1): `python -m infra.openapi`, or `make openapi`.

The routes, their parameters, the bodies and the rules for them come from the functions' own resolvers, the errors from the
functions' table of problems. What a resolver does not know stands here and not in the functions: texts, examples, and
what an answer holds besides its body. None of it runs on AWS, and a function's package holds what runs.
"""

import importlib
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict, cast

from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.merge import OpenAPIMerge

from infra.local import template

if TYPE_CHECKING:
    from api import Api

Json = dict[str, object]

ROOT = template.PATH.parent
PATH = Path(__file__).with_suffix(".json")

INFO: Json = {
    "title": "Incident API",
    "summary": "Create incidents, list them, change their status.",
    "description": (
        "Problems that operators, monitoring and partners report, kept as incidents.\n\n"
        "JSON is UTF-8, in and out; letters beyond ASCII are not escaped. A 201 or a 200 is sent only after the database has "
        "acknowledged the write. Errors of the API are problem details (RFC 9457); errors of the gateway in front of it "
        "have a body with a `message`. `/incidents/` is the same as `/incidents`."
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
    "sigv4": {
        "type": "apiKey",
        "name": "Authorization",
        "in": "header",
        "description": "AWS Signature Version 4, service execute-api. The local run asks for none.",
        "x-amazon-apigateway-authtype": "awsSigv4",
    }
}

TAG = "incidents"

ID = "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"
DESCRIPTION = "Самокат #4567 не отвечает на запросы"
INCIDENT = {
    "id": ID,
    "description": DESCRIPTION,
    "source": "monitoring",
    "status": "open",
    "created_at": "2026-11-23T10:00:00.123Z",
    "updated_at": "2026-11-23T10:00:00.123Z",
    "version": 1,
}
CHANGED = INCIDENT | {"status": "in_progress", "updated_at": "2026-11-23T10:02:41.007Z", "version": 2}
CURSOR = "MjAyNi0xMS0yM1QxMDowMDowMC4xMjNaIzZhNWNiN2YwLTRjNWUtNGYwYS05ZDUxLTBkMmE1YjFjN2UzOA"

PROBLEM = "application/problem+json"
BAD_INPUT: list[Json] = [{"loc": ["body", "description"], "msg": "String should have at least 1 character"}]

TIME: Json = {"format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}

SCHEMAS: dict[str, Json] = {
    "Incident": {"description": "A recorded incident.", "examples": [INCIDENT, CHANGED]},
    "NewIncident": {"examples": [{"description": DESCRIPTION, "source": "monitoring"}]},
    "StatusChange": {"examples": [{"status": "in_progress"}]},
}
FIELDS: dict[str, dict[str, Json]] = {
    "Incident": {
        "id": {"format": "uuid", "description": "Made by the service."},
        "description": {
            "minLength": 1,
            "description": "As reported, less the white space around it. It never changes.",
        },
        "created_at": TIME | {"description": "RFC 3339, UTC, exactly milliseconds."},
        "updated_at": TIME | {"description": "The time of the last change, in the same form."},
        "version": {"minimum": 1, "description": "1, and 1 more with every change; also the ETag."},
    },
    "NewIncident": {
        "description": {
            "description": "What happened, in the reporter's words. White space around it is cut off and does not count."
        }
    },
}

PARAMETERS: dict[str, tuple[str, Json]] = {
    "id": ("The incident's id. One that no incident has, whatever it looks like, is a 404.", {"examples": [ID]}),
    "status": (
        "Only incidents with one of these statuses: repeated (`?status=open&status=in_progress`) or with commas "
        "(`?status=open,in_progress`). All, if there is none.",
        {},
    ),
    "limit": ("Incidents on a page, at most.", {}),
    "cursor": ("Where the page begins: opaque, part of the URL in a `Link` header.", {"examples": [CURSOR]}),
    "Idempotency-Key": (
        "Makes the request safe to repeat: 1 to 255 visible ASCII characters of the client's choice, quoted or not. Of all "
        "requests with one key, one records an incident and the others answer with it.",
        {"pattern": r'^("[!-~]{1,255}"|[!#-~][!-~]{0,254})$', "examples": ["report-4567"]},
    ),
    "If-None-Match": (
        "The ETags that the client has, or `*`: if the incident's own is one of them, it is not sent again.",
        {"examples": ['"1"']},
    ),
    "If-Match": (
        "The ETag of the version that the change is meant for. `*` and no header stand for any version. Where the incident "
        "has another version, it is left alone: the answer is 412, or 200 if it has the status asked for already.",
        {"pattern": r'^("[1-9][0-9]{0,17}"|\*)$', "examples": ['"1"']},
    ),
}

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
        "description": "There where the `Idempotency-Key` had recorded the incident before.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Link": {
        "description": "The URL of the next page, there where more incidents follow (RFC 8288).",
        "schema": {
            "type": "string",
            "pattern": '^<[^>]+>; rel="next"$',
            "examples": [f'<http://localhost:8000/incidents?limit=1&cursor={CURSOR}>; rel="next"'],
        },
    },
    "Retry-After": {
        "description": "Seconds to wait before another try; there with a problem of the API.",
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
            "detail": {"type": "string", "minLength": 1, "description": "What went wrong, for a person."},
            "errors": {
                "type": "array",
                "minItems": 1,
                "description": "Every rule that the request breaks; there for bad input.",
                "items": {"$ref": "#/components/schemas/BadInput"},
            },
        },
    },
    "BadInput": {
        "type": "object",
        "description": "A rule that the request breaks.",
        "required": ["loc", "msg"],
        "properties": {
            "loc": {
                "type": "array",
                "minItems": 1,
                "description": "Where: `body`, `query` or `header`, a name, and in a list the place, counted from 0.",
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

GATEWAY: dict[int, tuple[str, str]] = {
    403: ("Forbidden", "The request is not signed, or whoever signed it may not use this route."),
    413: ("Request Entity Too Large", "The body is longer than 10 MB."),
    429: ("Too Many Requests", "More requests than the API takes at a time. Wait, and try again."),
    500: ("Internal Server Error", "A fault in a function, which its owners are told of."),
    503: ("Service Unavailable", "The function could not be called, or did not answer."),
    504: ("Gateway Timeout", "The function took too long. What was asked for may have been done."),
}
"""The gateway's own errors: what it says, and when."""

EVERYWHERE = (403, 429, 500, 504)
"""Those of them that are never a function's answer, and that any request may meet."""


class Answers(NamedTuple):
    """What an operation answers, other than problems."""

    id: str
    summary: str
    description: str
    status: int
    success: str
    headers: tuple[str, ...]
    examples: dict[str, object]
    problems: tuple[str, ...]
    """Exceptions by name, as the functions' table of problems has them."""
    not_modified: str = ""


BODY_PROBLEMS = ("NotJson", "BodyTooLarge", "NotJsonType", "RequestValidationError")

OPERATIONS: dict[str, Answers] = {
    "POST /incidents": Answers(
        id="create_incident",
        summary="Create an incident",
        description="Record an incident. With an `Idempotency-Key` the request can be repeated and records it once.",
        status=201,
        success="The incident as it is stored.",
        headers=("ETag", "Location", "Idempotent-Replayed"),
        examples={"incident": INCIDENT},
        problems=(*BODY_PROBLEMS, "IdempotencyKeyReused", "StoreUnavailable"),
    ),
    "GET /incidents": Answers(
        id="list_incidents",
        summary="List incidents",
        description=(
            "A page of incidents, newest first. Where there are more, the `Link` header has the next page's URL: follow it as "
            "it is. An incident that does not change while the pages are read is listed once. A change is listed within "
            "moments."
        ),
        status=200,
        success="The incidents of the page; none is an empty array.",
        headers=("Link",),
        examples={"one": [CHANGED], "none": []},
        problems=("RequestValidationError", "StoreUnavailable"),
    ),
    "GET /incidents/{id}": Answers(
        id="get_incident",
        summary="Read an incident",
        description="One incident, as of the last acknowledged change.",
        status=200,
        success="The incident.",
        headers=("ETag",),
        examples={"incident": INCIDENT},
        problems=("IncidentNotFound", "StoreUnavailable"),
        not_modified="The client has this version of the incident.",
    ),
    "PATCH /incidents/{id}": Answers(
        id="update_incident",
        summary="Change an incident's status",
        description="Change the status; any may follow any other. With `If-Match` only if nobody has changed it meanwhile.",
        status=200,
        success="The incident after the change.",
        headers=("ETag",),
        examples={"incident": CHANGED},
        problems=(*BODY_PROBLEMS, "IncidentNotFound", "VersionConflict", "StoreUnavailable"),
    ),
}


_Parameter = TypedDict("_Parameter", {"name": str, "in": str, "required": bool, "schema": Json})


class _Operation(TypedDict):
    parameters: NotRequired[list[_Parameter]]
    requestBody: NotRequired[Json]
    responses: dict[str, dict[str, dict[str, Json]]]


class _Problem(TypedDict):
    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[Json]]


class _Components(TypedDict):
    schemas: dict[str, Json]


class _Generated(TypedDict):
    """As much of Powertools' document as goes into this one."""

    paths: dict[str, dict[str, _Operation]]
    components: _Components


def document() -> Json:
    """The contract. Raises `LookupError` for a route or a parameter of the functions that is not described here."""
    generated = _generated()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    paths = {
        path: {method: _operation(f"{method.upper()} {path}", operation) for method, operation in item.items()}
        for path, item in sorted(generated["paths"].items())
    }
    schemas = {
        name: _component(name, schema)
        for name, schema in sorted(generated["components"]["schemas"].items())
        # Answers that Powertools would give of its own accord, and these functions do not.
        if not name.endswith("ValidationError")
    }
    return {
        "openapi": "3.1.1",
        "info": INFO | {"version": project["version"]},
        "servers": SERVERS,
        "security": [{name: [] for name in SECURITY}],
        "tags": [{"name": TAG, "description": "What has been reported, and how the work on it stands."}],
        "paths": paths,
        "components": {
            "schemas": schemas | ERRORS,
            "headers": HEADERS,
            "responses": {_name(status): _gateway_error(status) for status in EVERYWHERE},
            "examples": {name: {"value": problem} for name, problem in _problems().items()},
            "securitySchemes": SECURITY,
        },
    }


def text() -> str:
    """The document as the file holds it."""
    return json.dumps(document(), ensure_ascii=False, indent=2) + "\n"


def _generated() -> _Generated:
    merge = OpenAPIMerge(on_conflict="error")
    for handler in dict.fromkeys(route.handler for route in template.load().routes()):
        app: Api = importlib.import_module(handler.removesuffix(".handler")).app
        merge.add_schema(json.loads(app.get_openapi_json_schema()))
    return cast("_Generated", merge.get_openapi_schema())


def _operation(route: str, operation: _Operation) -> Json:
    says = OPERATIONS[route]
    described: Json = {"operationId": says.id, "tags": [TAG], "summary": says.summary, "description": says.description}
    if "parameters" in operation:
        described["parameters"] = [_parameter(parameter) for parameter in operation["parameters"]]
    if "requestBody" in operation:
        described["requestBody"] = operation["requestBody"]
    (content,) = (response["content"]["application/json"] for response in operation["responses"].values())
    return described | {"responses": _responses(says, _plain(cast("Json", content["schema"])))}


def _parameter(parameter: _Parameter) -> Json:
    # Header names have no case; Powertools writes them small.
    names = {name.lower(): name for name in PARAMETERS}
    name = names[parameter["name"].lower()]
    description, rules = PARAMETERS[name]
    schema = parameter["schema"]
    if "anyOf" in schema:  # `| None`: a parameter may be absent, and cannot be null
        schema, _ = cast("list[Json]", schema["anyOf"])
    return {
        "name": name,
        "in": parameter["in"],
        "required": parameter["required"],
        "description": description,
        "schema": _plain(schema) | rules,
    }


def _component(name: str, schema: Json) -> Json:
    described = _plain(schema) | SCHEMAS.get(name, {})
    if "properties" in schema:
        rules = FIELDS.get(name, {})
        properties = cast("dict[str, Json]", schema["properties"])
        described["properties"] = {key: _plain(value) | rules.get(key, {}) for key, value in properties.items()}
    return described


def _plain(schema: Json) -> Json:
    """A schema without what pydantic says of its own accord: titles, bounds as floats, a default that is as good as none."""
    return {
        key: int(value) if isinstance(value, float) else value
        for key, value in schema.items()
        if key != "title" and (key, value) != ("default", "")
    }


def _responses(says: Answers, schema: Json) -> Json:
    examples = {name: {"value": value} for name, value in says.examples.items()}
    responses: dict[int, Json] = {
        says.status: {
            "description": says.success,
            "headers": _headers(*says.headers),
            "content": {"application/json": {"schema": schema, "examples": examples}},
        }
    }
    if says.not_modified:
        responses[304] = {"description": says.not_modified, "headers": _headers(*says.headers)}
    problems = _problems()
    for status in {problems[name]["status"] for name in says.problems}:
        names = [name for name in says.problems if problems[name]["status"] == status]
        examples = {name: {"$ref": f"#/components/examples/{name}"} for name in names}
        content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}}
        if status in GATEWAY:
            content |= _gateway_content(status)
        responses[status] = {
            "description": " Or: ".join(problems[name]["detail"] for name in names),
            "content": content,
        }
    responses[503]["headers"] = _headers("Retry-After")
    for status in EVERYWHERE:
        responses[status] = {"$ref": f"#/components/responses/{_name(status)}"}
    return {str(status): response for status, response in sorted(responses.items())}


def _problems() -> dict[str, _Problem]:
    """The problem that the functions answer for each exception, by the exception's name."""
    from api import _PROBLEMS

    problems: dict[str, _Problem] = {
        error.__name__: {"type": "about:blank", "title": title, "status": status, "detail": detail}
        for error, (status, title, detail) in _PROBLEMS.items()
        if error is not NotFoundError  # a route that no function has; the gateway hands on none
    }
    problems["RequestValidationError"]["errors"] = BAD_INPUT
    return problems


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _name(status: int) -> str:
    return GATEWAY[status][0].replace(" ", "")


def _gateway_error(status: int) -> Json:
    return {"description": GATEWAY[status][1], "content": _gateway_content(status)}


def _gateway_content(status: int) -> dict[str, Json]:
    example = {"message": GATEWAY[status][0]}
    return {"application/json": {"schema": {"$ref": "#/components/schemas/GatewayError"}, "example": example}}


def main() -> None:
    # What the functions find on Lambda when they are imported.
    os.environ.update(template.load().environment(), AWS_DEFAULT_REGION="us-east-1")
    sys.path.insert(0, str(ROOT / "functions"))
    PATH.write_text(text())


if __name__ == "__main__":
    main()
