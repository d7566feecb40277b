"""The event that an HTTP API sends to a function, in payload format 2.0.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs

_TEXT = ("text/", "application/json", "application/javascript", "application/xml")
"""The media types of bodies that are passed as text; others are in base64."""


def http_event(
    method: str,
    path: str,
    *,
    route_key: str,
    path_parameters: Mapping[str, str] | None = None,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    authorizer: Mapping[str, object] | None = None,
    source_ip: str = "127.0.0.1",
    protocol: str = "HTTP/1.1",
) -> dict[str, object]:
    """The event of one request.

    `path` and `path_parameters` are decoded, `query` is not. The values of a repeated header are joined with commas. `authorizer`
    becomes `requestContext.authorizer`: `{"lambda": {...}}` behind a Lambda authorizer.
    """
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    cookies = lower.pop("cookie", "")
    now = datetime.now(UTC)
    context: dict[str, object] = {
        "accountId": "123456789012",
        "apiId": "local",
        "domainName": lower.get("host", "localhost").partition(":")[0],
        "domainPrefix": "local",
        "http": {
            "method": method,
            "path": path,
            "protocol": protocol,
            "sourceIp": source_ip,
            "userAgent": lower.get("user-agent", ""),
        },
        "requestId": str(uuid.uuid4()),
        "routeKey": route_key,
        "stage": "$default",
        "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(now.timestamp() * 1000),
    }
    if authorizer:
        context["authorizer"] = dict(authorizer)
    event: dict[str, object] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": lower,
        "requestContext": context,
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies.split("; ")
    if values := parse_qs(query, keep_blank_values=True):
        event["queryStringParameters"] = {name: ",".join(several) for name, several in values.items()}
    if path_parameters:
        event["pathParameters"] = dict(path_parameters)
    if body:
        event |= _body(body, lower.get("content-type", ""))
    return event


def _body(body: bytes, content_type: str) -> dict[str, object]:
    if content_type.lower().startswith(_TEXT):
        try:
            return {"body": body.decode()}
        except UnicodeDecodeError:
            pass
    return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
