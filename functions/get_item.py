"""DynamoDB's `GetItem` with the standard library alone: importing botocore took 60 % of the authorizer's cold start.

How a request is signed: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
import json
import time
from binascii import crc32
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from os import environ, urandom
from select import select

CONNECT_TIMEOUT, READ_TIMEOUT, LONGEST_WAIT = 1, 2, 1
"""Seconds. Two attempts and the wait between them take at most 7."""

THROTTLED = {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "ThrottlingException"}
"""The transient errors with a status below 500."""

Item = dict[str, dict[str, str]]


class Failed(Exception):
    """DynamoDB rejected the request. The arguments are the status and body of its response."""


class Unavailable(Failed):
    """DynamoDB throttled the request, failed, or gave no valid response."""


def endpoint() -> str:
    """The endpoint in the environment, as for botocore; otherwise the region's, in any partition of AWS."""
    named = environ.get("AWS_ENDPOINT_URL_DYNAMODB") or environ.get("AWS_ENDPOINT_URL")
    # During a deployment, this code may run before its configuration is updated.
    return named or f"https://dynamodb.{environ['AWS_DEFAULT_REGION']}.{environ.get('URL_SUFFIX', 'amazonaws.com')}"


def authorization(headers: dict[str, str], body: bytes, service: str = "dynamodb") -> str:
    """The `Authorization` header of a POST to `/` that signs all of these headers, whose names must be in lower case."""
    date = headers["x-amz-date"]
    scope = f"{date[:8]}/{environ['AWS_DEFAULT_REGION']}/{service}/aws4_request"
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"POST\n/\n\n{lines}\n{names}\n{sha256(body).hexdigest()}"
    to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{sha256(request.encode()).hexdigest()}"
    digest = f"AWS4{environ['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in (*scope.split("/"), to_sign):
        digest = hmac.digest(digest, part.encode(), "sha256")
    credential = f"{environ['AWS_ACCESS_KEY_ID']}/{scope}"
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={digest.hex()}"


class Client:
    """Reads items over one connection, which stays open between requests."""

    def __init__(self, url: str) -> None:
        scheme, _, self._host = url.rstrip("/").partition("://")
        connection = HTTPSConnection if scheme == "https" else HTTPConnection
        self._connection = connection(self._host, timeout=CONNECT_TIMEOUT)  # loads the root certificates, once

    def get_item(self, table: str, key: Item) -> Item | None:
        """The item, read consistently, or None. Raises `Failed`, or `Unavailable` if a second attempt fails, too."""
        body = json.dumps({"TableName": table, "Key": key, "ConsistentRead": True}).encode()
        try:
            return self._ask(body).get("Item")
        except Unavailable:
            time.sleep(LONGEST_WAIT * urandom(1)[0] / 256)  # random, so that instances do not retry in step
            return self._ask(body).get("Item")

    def _ask(self, body: bytes) -> dict[str, Item]:
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": self._host,
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-security-token": environ.get("AWS_SESSION_TOKEN", ""),
            "x-amz-target": "DynamoDB_20120810.GetItem",
        }
        connection = self._connection
        try:
            # If DynamoDB has closed the connection since the last request, the socket is readable.
            if not connection.sock or select([connection.sock], [], [], 0)[0]:
                connection.close()
                connection.connect()
                connection.sock.settimeout(READ_TIMEOUT)
            connection.request("POST", "/", body, headers | {"authorization": authorization(headers, body)})
            response = connection.getresponse()
            answer = response.read()
            parsed = json.loads(answer) if response.status < 500 else None
            if not isinstance(parsed, dict) or response.getheader("x-amz-crc32") not in (None, str(crc32(answer))):
                raise HTTPException(response.status, answer[:1000])
        except (OSError, HTTPException, ValueError) as error:
            connection.close()
            raise Unavailable from error
        if response.status == 200:
            return parsed
        throttled = str(parsed.get("__type")).rpartition("#")[2] in THROTTLED
        raise (Unavailable if throttled else Failed)(response.status, answer[:1000])
