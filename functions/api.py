"""HTTP for all functions: request bodies, responses and errors.

Exceptions listed in `PROBLEMS` become responses here and nowhere else. Any other propagates: Lambda counts an error, and the
gateway answers 500.
"""

import cold_start

import base64
import codecs
import json
import re
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, NoReturn, cast

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.middlewares.openapi_validation import OpenAPIRequestValidationMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.types import EventHandlerInstance
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic import AfterValidator, JsonValue
from pydantic_core import to_json

import dynamodb
import log
from incident import (
    ACTIVE,
    MAX_CHANGES,
    MAX_COMMENTS,
    IdempotencyKeyReused,
    Incident,
    IncidentNotFound,
    Source,
    TooManyChanges,
    TooManyComments,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aws_lambda_powertools.utilities.typing import LambdaContext

MAX_BODY = 128 * 1024
"""Bytes of a body, unless a function sets its own limit. The longest description fits even if every character is escaped as a
surrogate pair."""

MAX_ERRORS = 100
"""Errors in one response: Lambda limits it to 6 MB, and a body of 1 MB can contain 300,000 errors."""

IncidentId = Annotated[
    str,
    Path(
        description="The incident's id, in upper or lower case. Any value that is not an incident's id gets a 404.",
        examples=["6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"],
    ),
    AfterValidator(str.lower),  # RFC 9562, section 4
]


class EmptyBody(Exception):
    """The request has no body."""


class NotUtf8(Exception):
    """The body is not valid UTF-8."""


class NotJson(Exception):
    """The body is not a JSON text (RFC 8259)."""


class BodyTooLarge(Exception):
    """The body is longer than the function accepts."""


class UnsupportedMediaType(Exception):
    """The body's content type is not JSON."""


class UnsupportedContentEncoding(Exception):
    """The body is compressed."""


PROBLEMS: dict[type[Exception], tuple[int, str, str]] = {
    EmptyBody: (400, "Bad Request", "The body is empty."),
    NotUtf8: (400, "Bad Request", "The body is not UTF-8."),
    NotJson: (400, "Bad Request", "The body is not JSON."),
    NotFoundError: (404, "Not Found", "There is no such route."),
    IncidentNotFound: (404, "Not Found", "There is no incident with this id."),
    TooManyChanges: (409, "Conflict", f"The incident has reached the limit of {MAX_CHANGES} changes."),
    TooManyComments: (
        409,
        "Conflict",
        f"With this comment, the incident's comments would exceed {MAX_COMMENTS} bytes.",
    ),
    VersionConflict: (412, "Precondition Failed", "The incident has changed since the version in If-Match."),
    BodyTooLarge: (413, "Content Too Large", "The body is longer than this route allows."),
    UnsupportedMediaType: (415, "Unsupported Media Type", "The body's Content-Type is not application/json."),
    UnsupportedContentEncoding: (
        415,
        "Unsupported Media Type",
        "The Content-Encoding is not supported: do not compress the body.",
    ),
    RequestValidationError: (422, "Unprocessable Content", "The request is invalid; see errors."),
    IdempotencyKeyReused: (422, "Unprocessable Content", "The Idempotency-Key was used for another incident."),
    dynamodb.Unavailable: (503, "Service Unavailable", "The incidents are temporarily unavailable. Try again."),
}
"""Status, title and detail of each error. The titles are those of RFC 9110, which Python has only since 3.13."""

ERROR_METRICS: dict[type[Exception], str] = {
    TooManyChanges: "Conflicts",
    TooManyComments: "Conflicts",
    VersionConflict: "Conflicts",
    IdempotencyKeyReused: "Conflicts",
    dynamodb.Unavailable: "Unavailable",
}
"""The CloudWatch metric that counts each of these errors."""


class Api(APIGatewayHttpResolver):
    """One function's routes, and the log line of the current request. Lambda sends a function one request at a time."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(serializer=_json)
        self.max_body = max_body
        self.use([_Validation()])  # type: ignore[no-untyped-call]  # Powertools' own __init__ has no annotations
        self.exception_handler(list(PROBLEMS))(self._problem)
        self.line = log.Line()
        self._path = ""
        cold_start.finish()

    def resolve(self, event: "Mapping[str, object]", context: "LambdaContext") -> dict[str, object]:
        """Respond to an event, and log it in one line that contains no text from the client.

        The gateway's `routeKey` decides the route: behind a custom domain, `rawPath` begins with the API mapping's path. An
        exception that leaves the function is logged by its type, with the gateway's status, 500.
        """
        http = APIGatewayProxyEventV2(dict(event))
        self.line = log.Line(request_id=http.request_context.request_id, route=http.route_key, status_code=500)
        self._path = http.raw_path
        # White space around a value does not belong to it (RFC 9110, section 5.5).
        headers = {name: value.strip(" \t") for name, value in http.headers.items()}
        try:
            routed = {**event, "rawPath": _routed_path(http), "headers": headers}
            response: dict[str, object] = super().resolve(routed, context)
            self.line.add(status_code=response["statusCode"])
            return response
        finally:
            if error := sys.exception():
                self.line.add(exception=type(error).__name__)
            self.line.write()

    def count_change(self, before: Incident, incident: Incident) -> None:
        """Count the status that a change has set, and the time to resolve if it ended the work."""
        if incident.status != before.status:
            self.line.count("StatusesSet", status=incident.status)
        if before.status in ACTIVE and incident.status not in ACTIVE:
            self.count_times_to_resolve([incident], incident.source)

    def count_times_to_resolve(self, incidents: "Iterable[Incident]", source: Source) -> None:
        """Count how long these incidents took from their creation to the change that ended the work."""
        seconds = [incident.seconds_to_last_change for incident in incidents]
        self.line.count("TimeToResolve", *seconds, unit="Seconds", source=source)

    def incident_response(
        self, incident: Incident, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
    ) -> Response[Incident]:
        """A response with one incident and its ETag."""
        self.line.add(incident_id=incident.id)
        return Response(status, "application/json", incident, {"ETag": etag(incident.version), **(headers or {})})

    @property
    def caller(self) -> str | None:
        """The name of the request's access key; None if the API asks for none, as in the local run."""
        return self._authorizer_context.get("caller")

    @property
    def source(self) -> Source | None:
        """The only source that the access key may report as, if it is bound to one."""
        source = self._authorizer_context.get("source")
        return Source(source) if source else None

    @property
    def own_reporter(self) -> str | None:
        """The caller, if its access key may read only the incidents that it reported itself."""
        return self.caller if self._authorizer_context.get("reads") == "own" else None

    @property
    def _authorizer_context(self) -> dict[str, str]:
        """The context that authorize.py returned."""
        return self.current_event.request_context.authorizer.get_lambda

    @property
    def url(self) -> str:
        """The request's absolute URL, without its query."""
        event = self.current_event
        scheme = event.headers.get("x-forwarded-proto", "https").partition(",")[0]
        host = event.headers.get("host") or event.request_context.domain_name
        return f"{scheme}://{host}{self._path}"

    def location(self, incident: Incident) -> str:
        """The incident's path, including that of an API mapping."""
        mounted_at, _, _ = self._path.rpartition("/incidents")
        return f"{mounted_at}/incidents/{incident.id}"

    def _problem(self, error: Exception) -> Response[str]:
        """The response to an error: problem details (RFC 9457). Only validation errors contribute text of their own."""
        status, title, detail = PROBLEMS[type(error)]
        if type(error) in ERROR_METRICS:
            self.line.count(ERROR_METRICS[type(error)])
        problem: dict[str, object] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        if isinstance(error, RequestValidationError):
            errors = error.errors()
            if len(errors) > MAX_ERRORS:
                problem["detail"] = f"{detail} These are the first {MAX_ERRORS} of {len(errors)}."
            problem["errors"] = [
                {"loc": [_writable(part) if isinstance(part, str) else part for part in bad["loc"]], "msg": bad["msg"]}
                for bad in errors[:MAX_ERRORS]
            ]
        headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return Response(status, "application/problem+json", _json(problem), headers)


class _Validation(OpenAPIRequestValidationMiddleware):
    """Powertools' validation, limited to JSON bodies. An unknown query parameter is an error."""

    def handler(self, app: EventHandlerInstance, next_middleware: NextMiddleware) -> Response[object]:
        # Powertools' patterns end in `$`, which also matches before a trailing line feed.
        if app.current_event.path.endswith("\n"):
            raise NotFoundError
        known = {parameter.alias for parameter in app.context["_route"].dependant.query_params}
        unknown = sorted(app.current_event.query_string_parameters.keys() - known)
        errors = [{"loc": ("query", name), "msg": "Unknown parameter"} for name in unknown]
        try:
            super().handler(app, cast("NextMiddleware", lambda _: Response(HTTPStatus.OK)))
        except RequestValidationError as error:
            errors = [*error.errors(), *errors]
        if errors:
            raise RequestValidationError(errors)
        return next_middleware(app)

    def _get_body(self, app: EventHandlerInstance) -> JsonValue | tuple[JsonValue, ...]:  # type: ignore[override]  # any JSON
        body = json_body(cast("APIGatewayProxyEventV2", app.current_event), cast("Api", app).max_body)
        # Powertools would validate only the first element of a list.
        return tuple(body) if isinstance(body, list) else body


def _routed_path(http: APIGatewayProxyEventV2) -> str:
    """The path of the gateway's route, with this request's variables."""
    path = http.route_key.partition(" ")[2]
    return re.sub(r"\{(\w+)\+?\}", lambda variable: http.path_parameters.get(variable[1]) or "", path)


def json_body(event: APIGatewayProxyEventV2, max_size: int) -> JsonValue:
    """The event's body, parsed. Raises this module's exceptions if it is not JSON or exceeds `max_size` bytes."""
    media_type = event.headers.get("content-type", "application/json").partition(";")[0].strip()
    if not re.fullmatch(r"application/(.+\+)?json", media_type, re.IGNORECASE):
        raise UnsupportedMediaType
    if event.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedContentEncoding
    body = (event.body or "").encode(errors="surrogatepass")
    try:
        if event.is_base64_encoded:
            body = base64.b64decode(body, validate=True)
        if len(body) > max_size:
            raise BodyTooLarge
        text = body.removeprefix(codecs.BOM_UTF8).decode()
    except ValueError as error:  # invalid base64 or UTF-8
        raise NotUtf8 from error
    if not text.strip():
        raise EmptyBody
    try:
        value: JsonValue = json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise NotJson from error
    # pydantic rejects an object if UTF-8 cannot represent one of its names.
    return {_writable(name): item for name, item in value.items()} if isinstance(value, dict) else value


def _not_json(constant: str) -> NoReturn:
    """Reject `NaN` and `Infinity`, which Python accepts and JSON does not have."""
    raise NotJson(constant)


def etag(version: int) -> str:
    """An incident's version as an entity tag (RFC 9110, section 8.8.3): `"3"`."""
    return f'"{version}"'


def _json(body: object) -> str:
    return to_json(body).decode()


def _writable(name: str) -> str:
    """A client's field name, with lone surrogates replaced: JSON can represent them, UTF-8 cannot."""
    return name.encode(errors="replace").decode()
