"""The API to test, over HTTP, on an empty table.

By default these are the functions in this process, behind the local gateway, on moto's DynamoDB. `pytest --on aws` runs
the same tests against a deployment to an emulated AWS, `pytest --on sam-local` against `sam local start-api`.
"""

import importlib
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from subprocess import PIPE, STDOUT, Popen
from sys import executable
from threading import Lock
from typing import TYPE_CHECKING
from unittest import mock

import boto3
import httpx
import moto
import pytest
from hypothesis import settings
from moto.dynamodb.models import DynamoDBBackend

from infra.local import environment, template
from infra.local.database import Database
from infra.local.gateway import Gateway
from infra.local.server import Server
from infra.openapi import INTEGRATIONS
from tests.document import assert_documented
from tests.e2e import aws, sam_local

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from types_boto3_dynamodb import DynamoDBClient

ROOT = Path(__file__).parents[1]
TEMPLATE = template.load()

EVERYTHING = INTEGRATIONS | {"TelegramTokenParameter": "/incident-api/telegram-token", "RemindAt": "rate(1 day)"}
"""Values of the stack's parameters with which every function is deployed."""

# Set before the functions are imported, as Lambda does. The region is not that of the local run's database.
environment.isolate()
os.environ.update(AWS_DEFAULT_REGION="eu-central-1", **TEMPLATE.environment(**EVERYTHING))
os.environ["TELEGRAM_TOKEN_PARAMETER"] = ""  # the bot answers only, but where tests/telegram/conftest.py says otherwise

CI = "CI" in os.environ
ALLOWED_SKIPS: dict[str, str] = {}
"""The skips that CI accepts: the reason that a test gives, and why CI cannot have what is missing."""

# No deadline: how fast the machine is must not decide whether a test passes.
settings.register_profile("test", max_examples=10, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.register_profile("fuzz", max_examples=1000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", choices=["aws", "sam-local"], help="run the API there, not in this process")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect the failures that `emulator_gap` marks for where the API runs."""
    for item in items:
        for gap in item.iter_markers("emulator_gap"):
            if config.getoption("--on") in gap.args:
                item.add_marker(pytest.mark.xfail(reason=gap.kwargs["reason"], strict=True))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skipped test a failed one in CI."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make a skipped test file a failed one in CI."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if CI and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in ALLOWED_SKIPS:
            report.outcome = "failed"
            report.longrepr = f"CI skips no test: {reason}"


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[["WSGIApplication"], str]]:
    """Serve an application over HTTP until the tests end; return its URL."""
    with ExitStack() as running:

        def start(app: "WSGIApplication") -> str:
            server = Server(app, port=0)
            server.start()
            running.callback(server.stop)
            return f"http://127.0.0.1:{server.port}"

        yield start


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest) -> Iterator[aws.Aws | sam_local.SamLocal | None]:
    """The API outside this process, where that was asked for."""
    match request.config.getoption("--on"):
        case "aws":
            with aws.emulated() as deployed:
                yield deployed
        case "sam-local":
            with sam_local.running() as local:
                yield local
        case None:
            yield None


def http_client(address: str) -> httpx.Client:
    """A client of a server on this machine: through no proxy, over plain HTTP."""
    # httpx would load every root certificate for each client, which takes longer than most tests.
    return httpx.Client(base_url=address, trust_env=False, verify=SSLContext(PROTOCOL_TLS_CLIENT), timeout=60)


@pytest.fixture(scope="session")
def address(serve: Callable[["WSGIApplication"], str]) -> str:
    """Where the gateway answers, with the functions in this process."""
    return serve(Gateway(**INTEGRATIONS))


@pytest.fixture(scope="session")
def dynamodb() -> Iterator["DynamoDBClient"]:
    """Moto's DynamoDB."""
    transact, one_at_a_time = DynamoDBBackend.transact_write_items, Lock()

    def transact_alone(*arguments: object) -> None:
        # moto copies every table first, which fails while another thread writes.
        with one_at_a_time:
            transact(*arguments)  # type: ignore[arg-type]  # what it was called with

    with moto.mock_aws(), mock.patch.object(DynamoDBBackend, "transact_write_items", transact_alone):
        yield boto3.client("dynamodb")


@pytest.fixture
def table(dynamodb: "DynamoDBClient") -> Iterator[str]:
    """The name of an empty table."""
    dynamodb.create_table(**TEMPLATE.table())
    yield template.TABLE
    dynamodb.delete_table(TableName=template.TABLE)


@pytest.fixture
def api(request: pytest.FixtureRequest, deployment: aws.Aws | sam_local.SamLocal | None) -> Iterator[httpx.Client]:
    """A client of the API. A response of the functions in this process has to be one that infra/openapi.json documents."""
    if deployment:
        for page in deployment.dynamodb.get_paginator("scan").paginate(TableName=deployment.table):
            for item in page["Items"]:
                deployment.dynamodb.delete_item(TableName=deployment.table, Key={"id": item["id"]})
        client = deployment.client()
    else:
        request.getfixturevalue("table")
        client = http_client(request.getfixturevalue("address"))
        client.event_hooks["response"] = [assert_documented]
    with client:
        yield client


@pytest.fixture
def caller(deployment: aws.Aws | sam_local.SamLocal | None) -> str | None:
    """The name of the client's access key; None where the API asks for none."""
    return aws.OPERATOR if isinstance(deployment, aws.Aws) else None


@pytest.fixture
def dynamodb_calls() -> Iterator[list[str]]:
    """The operations that the functions ask of DynamoDB, in order."""
    calls: list[str] = []

    def note(operation_name: str, **_: object) -> None:
        calls.append(operation_name)

    events = importlib.import_module("store").client.meta.events
    events.register("request-created.dynamodb", note)
    yield calls
    events.unregister("request-created.dynamodb", note)


@pytest.fixture(scope="session")
def database(
    dynamodb: "DynamoDBClient",  # noqa: ARG001 (when it begins, it empties every table of moto's)
    serve: Callable[["WSGIApplication"], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The address of the local run's database: over real sockets, in a region of its own, apart from `table`."""
    database = Database(tmp_path_factory.mktemp("database"), TEMPLATE)
    yield serve(database)
    database.close()


class LocalRun:
    """`python -m infra.local`, as `make run` starts it."""

    def __init__(self, data: Path, *arguments: str, root: Path = ROOT) -> None:
        command = [executable, "-u", "-m", "infra.local", "--port", "0", "--data", str(data), *arguments]
        self.data = data
        self.process = Popen(command, stdout=PIPE, stderr=STDOUT, text=True, cwd=root)
        assert self.process.stdout
        self.output = self.process.stdout
        self.start_up: list[str] = []
        """What the program printed before it served requests."""
        for line in self.output:
            if line.startswith("The API answers on http://localhost:"):
                break
            self.start_up.append(line)
        else:
            raise AssertionError("".join(self.start_up))
        self.client = http_client(line.split()[-1].removesuffix("/incidents/"))

    def stop(self, signal: int) -> str:
        """Send the signal; return the rest of what the program printed."""
        self.process.send_signal(signal)
        self.process.wait(timeout=30)
        self.client.close()
        with self.output:
            return self.output.read()


@pytest.fixture
def run_local(tmp_path: Path) -> Iterator[Callable[..., LocalRun]]:
    """Start the local program, with these arguments, on one data folder, again and again."""
    started: list[LocalRun] = []

    def run(*arguments: str) -> LocalRun:
        started.append(LocalRun(tmp_path / "data", *arguments))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.stop(9)
