"""The gateway's authorizer: which access key may use which route.

A Lambda authorizer with simple responses. It is asked once a minute for each value of the header and each route; in between
API Gateway repeats its last answer. To a refusal the gateway answers 403. When DynamoDB fails this function raises, and the
gateway answers 500, which clients retry: a failure is never a refusal.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
"""

import cold_start  # noqa: F401 (it acts when it is imported)

import gc
import json
import os
import re
import time
from base64 import b64decode
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypedDict, cast

from botocore.config import Config
from botocore.exceptions import ConnectionClosedError
from botocore.session import get_session

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

    class _RequestContext(TypedDict):
        requestId: str

    class _Event(TypedDict):
        routeKey: str
        headers: dict[str, str]
        requestContext: _RequestContext

    class _Answer(TypedDict):
        isAuthorized: bool
        context: dict[str, str]

    class _Response(TypedDict):
        status_code: int
        headers: dict[str, str]
        body: bytes


TABLE = os.environ["KEYS_TABLE"]
METRICS_NAMESPACE = os.environ["METRICS_NAMESPACE"]

_CREATE = {"POST /incidents", "POST /incidents/{proxy+}"}
_READ = {"GET /incidents", "GET /incidents/{proxy+}", "GET /incidents/{id}", "GET /incidents/{id}/history"}
_UPDATE = {"PATCH /incidents/{id}"}
_ALERT = {"POST /alerts"}
_TELEGRAM = {"POST /telegram"}

ROLES = {
    "reporter": _CREATE | _ALERT,
    "observer": _READ,
    "operator": _CREATE | _READ | _UPDATE,
    "telegram": _TELEGRAM,
}
"""The routes that each role may use, by route key. A route that is not listed is closed to everyone."""

KEY_PATTERN = r"inc_[A-Za-z0-9_-]{43}"
"""For `re.fullmatch`: `inc_` and 32 bytes in base64url without padding."""

Refusal = Literal["no access key", "unknown access key", "role may not use route"]

# Two attempts of at most 1 + 2 seconds, and at most 1 between them: 7 seconds, inside this function's timeout (9), inside
# the gateway's for an authorizer (10). If DynamoDB asks for a longer wait, the timeout ends it, with the same 500.
CONFIG = Config(
    connect_timeout=1,
    read_timeout=2,
    retries={"mode": "standard", "total_max_attempts": 2},
    # For the reasons in store.py.
    user_agent="incident-api",
    parameter_validation=False,
)


def connect(endpoint: str | None = None) -> "DynamoDBClient":
    """A client of DynamoDB, the region's own unless there is another endpoint."""
    client = get_session().create_client("dynamodb", endpoint_url=endpoint, config=CONFIG)
    client.meta.events.register("before-parse.dynamodb", _reject_broken_response)
    return cast("DynamoDBClient", client)


def _reject_broken_response(response_dict: "_Response", **_: object) -> None:
    # botocore would find no item in what is cut short or no JSON object, and a key that is good would be refused.
    body, length = response_dict["body"], int(response_dict["headers"].get("content-length", 0))
    if len(body) < length or (response_dict["status_code"] == HTTPStatus.OK and not body.startswith(b"{")):
        raise ConnectionClosedError(endpoint_url="dynamodb")


_dynamodb = connect()
gc.freeze()  # the modules, which are imported by now; see cold_start.py
gc.enable()


def handler(event: "_Event", _: object) -> "_Answer":
    """Allow a request, with the name and the source of its access key in the context, or refuse it."""
    key = _presented_key(event["routeKey"], event["headers"])
    if not re.fullmatch(KEY_PATTERN, key):
        return _refuse(event, "no access key")
    response = _dynamodb.get_item(
        TableName=TABLE,
        Key={"key_hash": {"S": sha256(key.encode()).hexdigest()}},
        ConsistentRead=True,  # a key that has been revoked is refused once the gateway asks again
    )
    if "Item" not in response:
        return _refuse(event, "unknown access key")
    item = {name: value["S"] for name, value in response["Item"].items()}
    if event["routeKey"] not in ROLES.get(item["role"], ()):
        return _refuse(event, "role may not use route", caller=item["name"])
    context = {"caller": item["name"]}
    if "source" in item:
        context["source"] = item["source"]
    return {"isAuthorized": True, "context": context}


def _presented_key(route: str, headers: dict[str, str]) -> str:
    """What stands in the place of an access key, if anything.

    Only the header that the route's authorizer has among its identity sources is read: the answer is repeated for every
    request with the same value of that one.
    """
    if route in _TELEGRAM:
        return headers.get("x-telegram-bot-api-secret-token", "")
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials
    if scheme.lower() == "basic":
        try:
            return b64decode(credentials, validate=True).decode().partition(":")[2]
        except ValueError:  # not base64, or not UTF-8 in it
            return ""
    return ""


def _refuse(event: "_Event", reason: Refusal, **caller: str) -> "_Answer":
    """Log and count the refusal, without anything that the client wrote."""
    metric = {"Namespace": METRICS_NAMESPACE, "Dimensions": [[]], "Metrics": [{"Name": "Refusals", "Unit": "Count"}]}
    line = {
        "request_id": event["requestContext"]["requestId"],
        "route": event["routeKey"],
        "refused": reason,
        **caller,
        "Refusals": 1,
        "_aws": {"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": [metric]},
    }
    print(json.dumps(line), flush=True)
    return {"isAuthorized": False, "context": {"reason": reason, **caller}}
