"""A client of DynamoDB: how long it waits, which responses it rejects, and which failures another attempt may overcome."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, TypedDict, cast
from zlib import crc32

from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.session import get_session

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

    class _Response(TypedDict):
        status_code: int
        headers: dict[str, str]
        body: bytes


CONNECTIONS = 4
"""Concurrent requests of one function. A function of 512 MB has 0.29 of a processor: more would only wait for each other."""

TRANSIENT_CODES = {
    "ExpiredTokenException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
"""The error codes below 500 that another attempt may overcome. Any other is a fault of the code or of the deployment."""

TRANSIENT_REASONS = {"ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict"}
"""The reasons for cancelling a transaction that another attempt may overcome, as those of `TRANSIENT_CODES`."""

_BROKEN = "BrokenResponse"


class Unavailable(Exception):
    """DynamoDB throttled the request, failed or did not answer. The request can be repeated."""


def connect(
    attempts: int = 3,
    *,
    parse: Callable[[bytes], object] = json.loads,
    endpoint: str | None = None,
    read_timeout: float = 2,
) -> "DynamoDBClient":
    """A client of the DynamoDB at the endpoint, by default the one that `AWS_ENDPOINT_URL_DYNAMODB` names, or the region's.

    An attempt takes at most 1 + 2 seconds, and the wait before the next one at most 1 and 2 seconds, and 5 more if DynamoDB asks
    for them: three attempts end within 22 seconds, two within 7.
    """
    config = Config(
        connect_timeout=1,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        # botocore otherwise describes itself and its environment in every request: a sixth of a warm create's CPU time.
        user_agent="incident-api",
        # Types and tests have checked the parameters: validating them is 4 % of a warm read.
        parameter_validation=False,
    )

    def parse_response(response_dict: "_Response", customized_response_dict: dict[str, object], **_: object) -> None:
        customized_response_dict.update(_parsed(response_dict, parse))

    client = get_session().create_client("dynamodb", endpoint_url=endpoint, config=config)
    client.meta.events.register("before-parse.dynamodb", parse_response)
    client.meta.events.register("after-call.dynamodb", _reject_broken_response)
    return cast("DynamoDBClient", client)


def _parsed(response: "_Response", parse: Callable[[bytes], object]) -> dict[str, object]:
    """A successful response, parsed in one go; botocore gets an empty object to parse.

    botocore looks up the type of every value in its model of DynamoDB: 40 % of a warm list's CPU time. The result is the same for
    items without binary values. Errors are left to botocore. A response that is cut short, damaged or not a JSON object is marked:
    botocore would take it for an empty object and a write for done, or the last of three damaged ones for good.
    """
    body, headers = response["body"], response["headers"]
    checksum = str(crc32(body))
    whole = headers.get("x-amz-crc32", checksum) == checksum
    if whole and response["status_code"] != HTTPStatus.OK:
        return {}
    try:
        parsed = parse(body) if whole else None
    except ValueError:
        parsed = None
    response["body"] = b"{}"
    return parsed if isinstance(parsed, dict) else {_BROKEN: True}


def _reject_broken_response(parsed: dict[str, object], **_: object) -> None:
    # After the attempts: an exception during parsing would end them, while botocore repeats a request if the checksum of its
    # response differs.
    if _BROKEN in parsed:
        raise ConnectionClosedError(endpoint_url="dynamodb")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `Unavailable` for a failure that another attempt may overcome. Any other leaves the function."""
    try:
        yield
    except (BotoConnectionError, HTTPClientError) as error:
        raise Unavailable from error
    except ClientError as error:
        failed = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        if failed or error.response["Error"]["Code"] in TRANSIENT_CODES:
            raise Unavailable from error
        raise
