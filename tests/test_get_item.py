"""What the authorizer's client of DynamoDB sends, and over which connection. Failures: test_authorize.py."""

import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from select import select
from typing import Literal, NamedTuple

import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.loaders import create_loader
from botocore.session import get_session

import get_item
from tests.faults import serving

ITEM = {"name": {"S": "someone"}}
KEY = {"key_hash": {"S": "1234"}}


class Answer(NamedTuple):
    """How `Stub` answers a request."""

    status: int = 200
    connection: Literal["closed", "kept", "dropped"] = "closed"
    """Dropped: closed without a `Connection: close`."""


class Stub(HTTPServer):
    """A DynamoDB with one item that, unlike moto's server, keeps connections open."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.script = [Answer()]
        self.requests: list[tuple[BaseHTTPRequestHandler, bytes]] = []


class _Connection(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.requests.append((self, self.rfile.read(int(self.headers["content-length"]))))
        status, connection = self.server.script.pop(0)
        answer = json.dumps({"Item": ITEM}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if connection == "closed":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = connection != "kept"

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setattr(get_item, "LONGEST_WAIT", 0)
    stub = Stub()
    with serving(stub):
        yield stub


@pytest.fixture
def client(stub: Stub) -> get_item.Client:
    return get_item.Client(f"http://127.0.0.1:{stub.server_port}/")


def test_a_lookup_is_consistent_and_signed_like_botocores(stub: Stub, client: get_item.Client) -> None:
    assert client.get_item("KeysTable", KEY) == ITEM
    ((request, body),) = stub.requests
    headers = request.headers
    assert request.path == "/"
    assert json.loads(body) == {"TableName": "KeysTable", "Key": KEY, "ConsistentRead": True}
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert headers["x-amz-security-token"] == "token"
    # AWS accepts a clock that is five minutes off.
    signed_at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%S%z")
    assert abs(datetime.now(UTC) - signed_at) < timedelta(minutes=5)
    names = ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"]
    sent = AWSRequest("POST", f"http://{headers['host']}/", {name: headers[name] for name in names}, body)
    sent.context["timestamp"] = headers["x-amz-date"]
    credentials = get_session().get_credentials()
    assert credentials
    signer = SigV4Auth(credentials, "dynamodb", "eu-central-1")
    signature = signer.signature(signer.string_to_sign(sent, signer.canonical_request(sent)), sent)
    assert headers["authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(sent)}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )


MINIMAL = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
FORM = MINIMAL | {
    "content-length": "13",
    "content-type": "application/x-www-form-urlencoded",
    "x-amz-content-sha256": "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
}


# The names are AWS's: https://github.com/awslabs/aws-c-auth/tree/main/tests/aws-signing-test-suite/v4
@pytest.mark.parametrize(
    ("headers", "body", "signature"),
    [
        (MINIMAL, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (MINIMAL | {"my-header1": "value1"}, b"", "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"),
        (FORM, b"Param1=value1", "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"),
    ],
    ids=["post-vanilla", "post-header-key-sort", "post-x-www-form-urlencoded"],
)
def test_a_signature_matches_the_test_vectors_of_aws(
    headers: dict[str, str], body: bytes, signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert get_item.authorization(headers, body, "service") == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={';'.join(sorted(headers))}, Signature={signature}"
    )


def test_the_endpoint_equals_botocores_in_every_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    session = get_session()
    for partition in create_loader().load_data("partitions")["partitions"]:
        monkeypatch.setenv("URL_SUFFIX", partition["outputs"]["dnsSuffix"])
        for region in session.get_available_regions("dynamodb", partition["id"]):
            monkeypatch.setenv("AWS_DEFAULT_REGION", region)
            assert get_item.endpoint() == session.create_client("dynamodb", region).meta.endpoint_url


def test_the_environment_sets_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("URL_SUFFIX", raising=False)  # as in a stack that has no such variable yet
    assert get_item.endpoint() == "https://dynamodb.eu-central-1.amazonaws.com"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all")
    assert get_item.endpoint() == "http://all"
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://dynamodb")
    assert get_item.endpoint() == "http://dynamodb"


def test_a_connection_is_kept_between_requests(stub: Stub, client: get_item.Client) -> None:
    stub.script = [Answer(connection="kept"), Answer(connection="kept"), Answer()]
    assert all(client.get_item("KeysTable", KEY) for _ in range(3))
    assert len({request.client_address for request, _ in stub.requests}) == 1


def test_a_connection_closed_between_requests_costs_no_attempt(stub: Stub, client: get_item.Client) -> None:
    stub.script = [Answer(connection="dropped"), Answer(500), Answer()]
    assert client.get_item("KeysTable", KEY)
    assert select([client._connection.sock], [], [], 10)[0], "the connection is still open"
    assert client.get_item("KeysTable", KEY)


def test_a_server_without_a_trusted_certificate_is_not_asked(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    stub.socket = context.wrap_socket(stub.socket, server_side=True)
    roots = tmp_path / "roots.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    stranger.cert_pem.write_to_path(roots)
    with pytest.raises(get_item.Unavailable):
        get_item.Client(f"https://127.0.0.1:{stub.server_port}").get_item("KeysTable", KEY)
    assert not stub.requests
    authority.cert_pem.write_to_path(roots)
    assert get_item.Client(f"https://127.0.0.1:{stub.server_port}").get_item("KeysTable", KEY) == ITEM
