"""HTTP as every function speaks it: what a request may hold, how incidents and errors are written, what is logged.

The only place that turns errors into responses. An exception that `_PROBLEMS` does not list leaves the function: Lambda
counts it and the gateway answers 500.
"""

import base64
import json
import os
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.event_handler.middlewares.openapi_validation import OpenAPIRequestValidationMiddleware
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.types import EventHandlerInstance
from pydantic_core import to_json

from incident import IdempotencyKeyReused, Incident, IncidentNotFound, StoreUnavailable, VersionConflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_lambda_powertools.utilities.typing import LambdaContext

_said: dict[str, object] = {}
"""What the log says of the request at hand; a function has one at a time."""

METRICS_NAMESPACE = os.environ["METRICS_NAMESPACE"]
"""The CloudWatch namespace of this stack's metrics: two stacks in one account must not add up."""

MAX_BODY = 64 * 1024
"""Bytes, before any decoding of JSON."""


class NotJson(Exception):
    """The body is not a JSON text (RFC 8259)."""


class BodyTooLarge(Exception):
    """The body is longer than `MAX_BODY`."""


class NotJsonType(Exception):
    """The body's content type is not JSON."""


_PROBLEMS: dict[type[Exception], tuple[int, str, str]] = {
    NotJson: (400, "Bad Request", "The body is not JSON in UTF-8."),
    NotFoundError: (404, "Not Found", "There is no such route."),
    IncidentNotFound: (404, "Not Found", "There is no incident with this id."),
    VersionConflict: (412, "Precondition Failed", "The incident has changed since the version in If-Match."),
    BodyTooLarge: (413, "Content Too Large", f"The body is longer than {MAX_BODY} bytes."),
    NotJsonType: (415, "Unsupported Media Type", "The body's Content-Type is not application/json."),
    RequestValidationError: (422, "Unprocessable Content", "The request breaks a rule; errors says which."),
    IdempotencyKeyReused: (422, "Unprocessable Content", "The Idempotency-Key belongs to another incident."),
    StoreUnavailable: (503, "Service Unavailable", "The incidents cannot be reached just now. Try again."),
}
"""Status, title and detail. The titles are RFC 9110's, which Python's own have only since 3.13."""


_COUNTED = {VersionConflict: "Conflicts", IdempotencyKeyReused: "Conflicts", StoreUnavailable: "Unavailable"}
"""The errors that are counted, and the metrics that count them."""


class Api(APIGatewayHttpResolver):
    """One function's routes."""

    def __init__(self) -> None:
        super().__init__(serializer=_json)
        self.use([_Validation()])  # type: ignore[no-untyped-call]  # Powertools' own __init__ says no type
        self.exception_handler(list(_PROBLEMS))(_problem)

    def resolve(self, event: "Mapping[str, object]", context: "LambdaContext") -> dict[str, object]:
        """Answer an event, and log one line of JSON about it. What the client wrote is not in the line."""
        _said.clear()
        answer = super().resolve(event, context)
        request_id = self.current_event.request_context.request_id
        said = {"request_id": request_id, "route": event["routeKey"], "status_code": answer["statusCode"]} | _said
        # Not by Powertools' Logger and Metrics, whose two lines were 49 µs of CPU time against 6: 4 % of a warm create.
        print(json.dumps(said), flush=True)
        return answer

    @property
    def caller(self) -> str:
        """The ARN of the IAM principal that signed the request; empty where none did."""
        return self.current_event.request_context.authorizer.iam.user_arn

    @property
    def url(self) -> str:
        """The request's absolute URL, without its query."""
        event = self.current_event
        scheme = event.headers.get("x-forwarded-proto", "https")
        host = event.headers.get("host") or event.request_context.domain_name
        return f"{scheme}://{host}{event.raw_path}"


class _Validation(OpenAPIRequestValidationMiddleware):
    """Powertools' validation by the types of a route's parameters, for bodies in JSON alone."""

    def handler(self, app: EventHandlerInstance, next_middleware: NextMiddleware) -> Response[object]:
        # Powertools' patterns end in `$`, which to Python is also the place before a last line feed.
        if app.current_event.path.endswith("\n"):
            raise NotFoundError
        return super().handler(app, next_middleware)

    def _get_body(self, app: EventHandlerInstance) -> dict[str, object]:
        event = app.current_event
        media_type = event.headers.get("content-type", "application/json").partition(";")[0].strip()
        if not re.fullmatch(r"application/(.+\+)?json", media_type, re.IGNORECASE):
            raise NotJsonType
        body = (event.body or "").encode(errors="surrogatepass")
        try:
            if event.is_base64_encoded:
                body = base64.b64decode(body, validate=True)
            if len(body) > MAX_BODY:
                raise BodyTooLarge
            value = json.loads(body.decode(), parse_constant=_not_json)
        except (ValueError, RecursionError) as error:  # the errors of base64, UTF-8 and JSON are all ValueErrors
            raise NotJson from error
        if not isinstance(value, dict):
            raise RequestValidationError([{"loc": ("body",), "msg": "Input should be a JSON object"}])
        # A name may hold half of a surrogate pair, which JSON can write and UTF-8 cannot. No field's name has a question mark.
        return {name.encode(errors="replace").decode(): item for name, item in value.items()}


def _not_json(constant: str) -> NoReturn:
    """For `NaN` and `Infinity`, which Python reads and JSON does not have."""
    raise NotJson(constant)


def incident_response(
    incident: Incident, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response[Incident]:
    """An answer that holds one incident, under its ETag."""
    _said["incident_id"] = incident.id
    return Response(
        status_code=status,
        content_type="application/json",
        body=incident,
        headers={"ETag": etag(incident), **(headers or {})},
    )


def etag(incident: Incident) -> str:
    """The incident's version as an entity tag (RFC 9110, section 8.8.3): `"3"`."""
    return f'"{incident.version}"'


def count(metric: str, **dimensions: str) -> None:
    """Count this request in CloudWatch: its log line becomes one in the embedded metric format.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    directive = {
        "Namespace": METRICS_NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": metric, "Unit": "Count"}],
    }
    timestamp = time.time_ns() // 1_000_000
    _said.update({"_aws": {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}, metric: 1}, **dimensions)


def _json(body: object) -> str:
    return to_json(body).decode()


def _problem(error: Exception) -> Response[str]:
    """RFC 9457's problem details. No exception's text is in them, but for the validation's messages on the request."""
    status, title, detail = _PROBLEMS[type(error)]
    if type(error) in _COUNTED:
        count(_COUNTED[type(error)])
    problem: dict[str, object] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if isinstance(error, RequestValidationError):
        problem["errors"] = [{"loc": bad["loc"], "msg": bad["msg"]} for bad in error.errors()]
    return Response(
        status_code=status,
        content_type="application/problem+json",
        body=_json(problem),
        headers={"Retry-After": "1"} if status == 503 else None,
    )
