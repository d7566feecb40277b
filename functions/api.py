"""HTTP as every function speaks it: request bodies, responses, errors, and the log line of a request.

The only place that turns errors into responses. An exception that `PROBLEMS` does not list leaves the function: Lambda
counts it and the gateway answers 500.
"""

import base64
import gc
import json
import os
import re
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, NoReturn, cast

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.middlewares.openapi_validation import OpenAPIRequestValidationMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Path
from aws_lambda_powertools.event_handler.types import EventHandlerInstance
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from pydantic import JsonValue
from pydantic_core import to_json

from incident import (
    MAX_CHANGES,
    IdempotencyKeyReused,
    Incident,
    IncidentNotFound,
    Source,
    StoreUnavailable,
    TooManyChanges,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_lambda_powertools.utilities.typing import LambdaContext

METRICS_NAMESPACE = os.environ["METRICS_NAMESPACE"]
"""The CloudWatch namespace of this stack's metrics: those of two stacks in one account do not add up."""

MAX_BODY = 128 * 1024
"""Bytes, before JSON is decoded, where a function does not say otherwise. The longest description fits even if every character
is escaped as a surrogate pair."""

ID_PARAMETER = Path(
    description="The incident's id. One that no incident has, in whatever form, is a 404.",
    examples=["6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"],
)

Metric = Literal[
    "AlertsTruncated", "Conflicts", "IncidentsCreated", "Replays", "StatusesSet", "Unavailable", "UpdatesIgnored"
]


class NotJson(Exception):
    """The body is not a JSON text (RFC 8259)."""


class BodyTooLarge(Exception):
    """The body is longer than the function takes."""


class UnsupportedMediaType(Exception):
    """The body's content type is not JSON."""


PROBLEMS: dict[type[Exception], tuple[int, str, str]] = {
    NotJson: (400, "Bad Request", "The body is not JSON in UTF-8."),
    NotFoundError: (404, "Not Found", "There is no such route."),
    IncidentNotFound: (404, "Not Found", "There is no incident with this id."),
    TooManyChanges: (409, "Conflict", f"The incident has had {MAX_CHANGES} changes and takes no more."),
    VersionConflict: (412, "Precondition Failed", "The incident has changed since the version in If-Match."),
    BodyTooLarge: (413, "Content Too Large", "The body is longer than this route allows."),
    UnsupportedMediaType: (415, "Unsupported Media Type", "The body's Content-Type is not application/json."),
    RequestValidationError: (422, "Unprocessable Content", "The request breaks a rule; errors says which."),
    IdempotencyKeyReused: (422, "Unprocessable Content", "The Idempotency-Key belongs to another incident."),
    StoreUnavailable: (503, "Service Unavailable", "The incidents cannot be reached just now. Try again."),
}
"""Status, title and detail of each error. The titles are RFC 9110's, which Python has only since 3.13."""

ERROR_METRICS: dict[type[Exception], Metric] = {
    TooManyChanges: "Conflicts",
    VersionConflict: "Conflicts",
    IdempotencyKeyReused: "Conflicts",
    StoreUnavailable: "Unavailable",
}
"""The errors that are counted in CloudWatch."""


class Api(APIGatewayHttpResolver):
    """One function's routes, and the log entry of the request that it is handling: a function handles one at a time."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        super().__init__(serializer=_json)
        self.max_body = max_body
        self.use([_Validation()])  # type: ignore[no-untyped-call]  # Powertools' own __init__ has no annotations
        self.exception_handler(list(PROBLEMS))(self._problem)
        self._log_entry: dict[str, object] = {}
        self._metrics: list[dict[str, object]] = []
        gc.freeze()  # the modules, which are imported by now; see cold_start.py
        gc.enable()

    def resolve(self, event: "Mapping[str, object]", context: "LambdaContext") -> dict[str, object]:
        """Answer an event and log one line of JSON about it, without anything that the client wrote.

        An exception that leaves the function is logged by its type, with the status that the gateway then answers.
        """
        http = APIGatewayProxyEventV2(dict(event))
        self._log_entry = {"request_id": http.request_context.request_id, "route": http.route_key, "status_code": 500}
        self._metrics = []
        try:
            response: dict[str, object] = super().resolve(event, context)
            self._log_entry["status_code"] = response["statusCode"]
            return response
        finally:
            if error := sys.exception():
                self._log_entry["exception"] = type(error).__name__
            # Not with Powertools' Logger and Metrics: CONTRIBUTING.md, "One log line".
            print(json.dumps(self._log_entry | self._embedded_metrics()), flush=True)

    def count(self, metric: Metric, value: int = 1, **dimensions: str) -> None:
        """Add to a CloudWatch metric when this request is logged, broken down by these dimensions."""
        directive: dict[str, object] = {
            "Namespace": METRICS_NAMESPACE,
            "Dimensions": [list(dimensions)],
            "Metrics": [{"Name": metric, "Unit": "Count"}],
        }
        self._metrics.append(directive)
        self._log_entry |= {metric: value, **dimensions}

    def incident_response(
        self, incident: Incident, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
    ) -> Response[Incident]:
        """A response with one incident and its ETag."""
        self.log(incident_id=incident.id)
        return Response(status, "application/json", incident, {"ETag": etag(incident.version), **(headers or {})})

    def log(self, **fields: str) -> None:
        """Add fields to the request's log line. Never a description, nor anything else that a client wrote."""
        self._log_entry |= fields

    @property
    def caller(self) -> str | None:
        """The name of the access key that was presented; None where the API asks for none, as in the local run."""
        caller: str | None = self._authorizer_context.get("caller")
        return caller

    @property
    def source(self) -> Source | None:
        """The only source that the access key may report as, if it is bound to one."""
        source: str | None = self._authorizer_context.get("source")
        return Source(source) if source else None

    @property
    def _authorizer_context(self) -> dict[str, str]:
        """What functions/authorize.py says of the caller."""
        return self.current_event.request_context.authorizer.get_lambda

    @property
    def url(self) -> str:
        """The request's absolute URL, without its query."""
        event = self.current_event
        scheme = event.headers.get("x-forwarded-proto", "https")
        host = event.headers.get("host") or event.request_context.domain_name
        return f"{scheme}://{host}{event.raw_path}"

    def _embedded_metrics(self) -> dict[str, object]:
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
        if not self._metrics:
            return {}
        return {"_aws": {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": self._metrics}}

    def _problem(self, error: Exception) -> Response[str]:
        """RFC 9457's problem details. They have no exception's text but the messages of the request's validation."""
        status, title, detail = PROBLEMS[type(error)]
        if type(error) in ERROR_METRICS:
            self.count(ERROR_METRICS[type(error)])
        problem: dict[str, object] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        if isinstance(error, RequestValidationError):
            problem["errors"] = [
                {"loc": [_writable(part) if isinstance(part, str) else part for part in bad["loc"]], "msg": bad["msg"]}
                for bad in error.errors()
            ]
        headers = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return Response(status, "application/problem+json", _json(problem), headers)


class _Validation(OpenAPIRequestValidationMiddleware):
    """Powertools' validation by the types of a route's parameters, for JSON bodies only, without unknown parameters."""

    def handler(self, app: EventHandlerInstance, next_middleware: NextMiddleware) -> Response[object]:
        # Powertools' patterns end in `$`, which to Python is also the place before a last line feed.
        if app.current_event.path.endswith("\n"):
            raise NotFoundError
        known = {parameter.alias for parameter in app.context["_route"].dependant.query_params}
        errors = [
            {"loc": ("query", name), "msg": "Unknown parameter"}
            for name in sorted(app.current_event.query_string_parameters)
            if name not in known
        ]
        try:
            super().handler(app, cast("NextMiddleware", _no_response))
        except RequestValidationError as error:
            errors = [*error.errors(), *errors]
        if errors:
            raise RequestValidationError(errors)
        return next_middleware(app)

    def _get_body(self, app: EventHandlerInstance) -> JsonValue | tuple[JsonValue, ...]:  # type: ignore[override]  # any JSON
        body = json_body(cast("APIGatewayProxyEventV2", app.current_event), cast("Api", app).max_body)
        # Powertools would take the first element of a list for the whole.
        return tuple(body) if isinstance(body, list) else body


def _no_response(_: EventHandlerInstance) -> Response[object]:
    return Response(HTTPStatus.OK)


def json_body(event: APIGatewayProxyEventV2, max_size: int) -> JsonValue:
    """The value of the event's body, which may have `max_size` bytes. Raises `UnsupportedMediaType`, `BodyTooLarge` and `NotJson`."""
    media_type = event.headers.get("content-type", "application/json").partition(";")[0].strip()
    if not re.fullmatch(r"application/(.+\+)?json", media_type, re.IGNORECASE):
        raise UnsupportedMediaType
    body = (event.body or "").encode(errors="surrogatepass")
    try:
        if event.is_base64_encoded:
            body = base64.b64decode(body, validate=True)
        if len(body) > max_size:
            raise BodyTooLarge
        value: JsonValue = json.loads(body.decode(), parse_constant=_not_json)
    except (ValueError, RecursionError) as error:  # the errors of base64, UTF-8 and JSON are all ValueErrors
        raise NotJson from error
    # pydantic validates no object with a name that cannot be written.
    return {_writable(name): item for name, item in value.items()} if isinstance(value, dict) else value


def _not_json(constant: str) -> NoReturn:
    """For `NaN` and `Infinity`, which Python reads and JSON does not have."""
    raise NotJson(constant)


def etag(version: int) -> str:
    """An incident's version as an entity tag (RFC 9110, section 8.8.3): `"3"`."""
    return f'"{version}"'


def _json(body: object) -> str:
    return to_json(body).decode()


def _writable(name: str) -> str:
    """A client's name for a field, in which half of a surrogate pair is replaced: JSON can write one, and UTF-8 cannot."""
    return name.encode(errors="replace").decode()
