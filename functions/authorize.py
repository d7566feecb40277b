"""The gateway's authorizer: which access key may use which route.

A Lambda authorizer with simple responses. API Gateway caches each response for a minute, by header value and route. It answers
a refused request with 403. If DynamoDB fails, this function raises an exception, and the gateway answers 500, which clients
retry: a failure is never a refusal.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
"""

import cold_start

import os
import re
from base64 import b64decode
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, TypedDict

import get_item
import log

if TYPE_CHECKING:

    class _RequestContext(TypedDict):
        requestId: str

    class _Event(TypedDict):
        routeKey: str
        headers: dict[str, str]
        requestContext: _RequestContext

    class _Answer(TypedDict):
        isAuthorized: bool
        context: dict[str, str]


TABLE = os.environ["KEYS_TABLE"]

_CREATE = {"POST /incidents", "POST /incidents/{proxy+}"}
_READ_ONE = {"GET /incidents/{id}", "GET /incidents/{id}/history"}
_READ = {"GET /incidents", "GET /incidents/{proxy+}"} | _READ_ONE
_TELEGRAM = {"POST /telegram"}

ROLES = {
    "reporter": _CREATE | {"POST /alerts"} | _READ_ONE,
    "observer": _READ,
    "operator": _CREATE | _READ | {"PATCH /incidents/{id}"},
    "telegram": _TELEGRAM,
}
"""The route keys that each role may use. A route that is not listed is closed to everyone."""

KEY_PATTERN = r"inc_[A-Za-z0-9_-]{43}"
"""For `re.fullmatch`: `inc_` and 32 bytes in base64url without padding."""

Refusal = Literal["no access key", "unknown access key", "expired access key", "role may not use route"]

client = get_item.Client(get_item.endpoint())
cold_start.finish()


def handler(event: "_Event", _: object) -> "_Answer":
    """Allow a request, with the access key's name and source in the context, or refuse it."""
    key = _presented_key(event["routeKey"], event["headers"])
    if not re.fullmatch(KEY_PATTERN, key):
        return _refuse(event, "no access key")
    found = client.get_item(TABLE, {"key_hash": {"S": sha256(key.encode()).hexdigest()}})
    if found is None:
        return _refuse(event, "unknown access key")
    item = {name: value["S"] for name, value in found.items()}
    if "expires_at" in item and datetime.fromisoformat(item["expires_at"]) <= datetime.now(UTC):
        return _refuse(event, "expired access key", caller=item["name"])
    if event["routeKey"] not in ROLES.get(item["role"], ()):
        return _refuse(event, "role may not use route", caller=item["name"])
    context = {"caller": item["name"]}
    if "source" in item:
        context["source"] = item["source"]
    if item["role"] == "reporter" and event["routeKey"] in _READ_ONE:
        context["reads"] = "own"  # read_incidents.py finds only the incidents reported under this name
    return {"isAuthorized": True, "context": context}


def _presented_key(route: str, headers: dict[str, str]) -> str:
    """The presented access key, if any.

    It is read only from the authorizer's identity source for the route: the gateway reuses a response for every request with the
    same value of that header.
    """
    if route in _TELEGRAM:
        return headers.get("x-telegram-bot-api-secret-token", "").strip(" \t")
    # White space around a value does not belong to it; several spaces may follow the scheme (RFC 9110, sections 5.5 and 11.4).
    scheme, _, credentials = headers.get("authorization", "").strip(" \t").partition(" ")
    credentials = credentials.lstrip(" ")
    if scheme.lower() == "bearer":
        return credentials
    if scheme.lower() == "basic":
        try:
            return b64decode(credentials, validate=True).decode().partition(":")[2]
        except ValueError:  # invalid base64 or UTF-8
            return ""
    return ""


def _refuse(event: "_Event", reason: Refusal, **caller: str) -> "_Answer":
    """Log and count the refusal; the log line contains nothing from the client."""
    line = log.Line(request_id=event["requestContext"]["requestId"], route=event["routeKey"], refused=reason, **caller)
    line.count("Refusals")
    line.write()
    return {"isAuthorized": False, "context": {"reason": reason, **caller}}
