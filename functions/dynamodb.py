"""The client of DynamoDB: its timeouts, the responses that it rejects, and which failures are transient."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, TypedDict, cast
from zlib import crc32

from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.session import get_session
from pydantic_core import from_json

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

    class _Response(TypedDict):
        status_code: int
        headers: dict[str, str]
        body: bytes


CONNECTIONS = 4
"""Concurrent requests of one function. With 1,024 MB it has 0.58 vCPU, so more would only wait for each other."""

TRANSIENT_CODES = {
    "ExpiredTokenException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
"""The transient errors with a status below 500. Any other is a fault of the code or the deployment."""

TRANSIENT_REASONS = {"ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"}
"""The transient reasons for which DynamoDB cancels a transaction."""

_BROKEN = "BrokenResponse"


class Unavailable(Exception):
    """DynamoDB throttled the request, failed, or did not respond. The request can be repeated."""


def connect(attempts: int = 3, *, endpoint: str | None = None, read_timeout: float = 2) -> "DynamoDBClient":
    """A client of the DynamoDB at this endpoint, by default that of `AWS_ENDPOINT_URL_DYNAMODB` or the region.

    An attempt takes at most 1 + 2 seconds. The waits between attempts are at most 1 and 2 seconds, and 5 more each if DynamoDB
    asks for them: three attempts end within 22 seconds.
    """
    config = Config(
        connect_timeout=1,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        # botocore would compose a description of its environment for every request: a sixth of a warm create's CPU time.
        user_agent="incident-api",
        # Types and tests check the parameters. Validation would take 4 % of a warm read's CPU time.
        parameter_validation=False,
    )
    client = get_session().create_client("dynamodb", endpoint_url=endpoint, config=config)
    client.meta.events.register("before-parse.dynamodb", _parse)
    client.meta.events.register("after-call.dynamodb", _reject_broken_response)
    return cast("DynamoDBClient", client)


def _parse(response_dict: "_Response", customized_response_dict: dict[str, object], **_: object) -> None:
    """Parse a successful response. Errors are left to botocore.

    botocore would look up each value's type in its model of DynamoDB: 40 % of a warm list's CPU time. For items without binary
    values, the result is the same. A response that is cut short, damaged or not a JSON object is marked as broken: botocore would
    treat it as empty, and a write therefore as successful, and would accept a damaged response to its last attempt.
    """
    body, headers = response_dict["body"], response_dict["headers"]
    checksum = str(crc32(body))
    whole = headers.get("x-amz-crc32", checksum) == checksum
    if whole and response_dict["status_code"] != HTTPStatus.OK:
        return
    try:
        parsed = from_json(body) if whole else None
    except ValueError:
        parsed = None
    response_dict["body"] = b"{}"
    customized_response_dict.update(parsed if isinstance(parsed, dict) else {_BROKEN: True})


def _reject_broken_response(parsed: dict[str, object], **_: object) -> None:
    # Only after the attempts: an exception during parsing would end them, whereas botocore repeats a request whose response
    # does not match its checksum.
    if _BROKEN in parsed:
        raise ConnectionClosedError(endpoint_url="dynamodb")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `Unavailable` for transient failures, and any other error unchanged."""
    try:
        yield
    except (BotoConnectionError, HTTPClientError) as error:
        raise Unavailable from error
    except ClientError as error:
        failed = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        if failed or error.response["Error"]["Code"] in TRANSIENT_CODES:
            raise Unavailable from error
        raise
