"""The API to test, over HTTP, on an empty table.

By default, the functions run in this process, behind the local gateway and on moto's DynamoDB. `pytest --on aws` runs the
same tests on an emulated AWS, `pytest --on sam-local` on `sam local start-api`.
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

from infra.keys import Keys
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
"""Parameters of the stack with which every function is deployed."""

HANDLERS = {
    name: function.Handler.removesuffix(".handler") for name, function in TEMPLATE.functions(**EVERYTHING).items()
}
"""The module of each function, by its logical id."""

# Set before the functions are imported, as on Lambda. The local run's database is in another region.
environment.isolate()
os.environ.update(AWS_DEFAULT_REGION="eu-central-1", **TEMPLATE.environment(**EVERYTHING))
os.environ["TELEGRAM_TOKEN_PARAMETER"] = ""  # tests/telegram/conftest.py sets it where the bot sends messages

CI = "CI" in os.environ
Report = pytest.TestReport | pytest.CollectReport

# No deadline: a slow machine must not fail a test.
settings.register_profile("test", max_examples=10, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.register_profile("fuzz", max_examples=1000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--on", choices=["aws", "sam-local"], help="run the API there instead of in this process")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect the failures that `emulator_gap` marks."""
    for item in items:
        for gap in item.iter_markers("emulator_gap"):
            if config.getoption("--on") in gap.args:
                item.add_marker(pytest.mark.xfail(reason=gap.kwargs["reason"], strict=True))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    """Fail skipped tests in CI."""
    report = yield
    if CI and report.skipped and isinstance(report.longrepr, tuple) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"CI skips no test: {report.longrepr[2].removeprefix('Skipped: ')}"
    return report


pytest_make_collect_report = pytest_runtest_makereport


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
    """Where `--on` runs the API."""
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
    """A client of a server on this machine, over plain HTTP and without a proxy."""
    # Without this SSLContext, httpx would load all root certificates for each client, which takes longer than most tests.
    return httpx.Client(base_url=address, trust_env=False, verify=SSLContext(PROTOCOL_TLS_CLIENT), timeout=60)


@pytest.fixture(scope="session")
def address(serve: Callable[["WSGIApplication"], str]) -> str:
    """The URL of the gateway, with the functions in this process."""
    return serve(Gateway(**INTEGRATIONS))


@pytest.fixture(scope="session")
def dynamodb() -> Iterator["DynamoDBClient"]:
    """Moto's DynamoDB."""
    transact, one_at_a_time = DynamoDBBackend.transact_write_items, Lock()

    def transact_alone(*arguments: object) -> None:
        # moto first copies every table, which fails if another thread writes meanwhile.
        with one_at_a_time:
            transact(*arguments)  # type: ignore[arg-type]  # passed on unchanged

    with moto.mock_aws(), mock.patch.object(DynamoDBBackend, "transact_write_items", transact_alone):
        yield boto3.client("dynamodb")


@pytest.fixture
def table(dynamodb: "DynamoDBClient") -> Iterator[str]:
    """The name of an empty table."""
    dynamodb.create_table(**TEMPLATE.table())
    yield template.TABLE
    dynamodb.delete_table(TableName=template.TABLE)


@pytest.fixture
def stored_keys(dynamodb: "DynamoDBClient") -> Iterator[Keys]:
    """The access keys in an empty table."""
    dynamodb.create_table(**TEMPLATE.table("KeysTable"))
    yield Keys(dynamodb, "KeysTable")
    dynamodb.delete_table(TableName="KeysTable")


@pytest.fixture
def api(request: pytest.FixtureRequest, deployment: aws.Aws | sam_local.SamLocal | None) -> Iterator[httpx.Client]:
    """A client of the API, whose table is empty. Responses of the functions in this process are checked against the contract."""
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
    """The name of the client's access key; None if the API asks for none."""
    return aws.OPERATOR if isinstance(deployment, aws.Aws) else None


@pytest.fixture
def dynamodb_calls() -> Iterator[list[str]]:
    """The operations that the functions request from DynamoDB, in order."""
    calls: list[str] = []

    def note(operation_name: str, **_: object) -> None:
        calls.append(operation_name)

    events = importlib.import_module("store").client.meta.events
    events.register("request-created.dynamodb", note)
    yield calls
    events.unregister("request-created.dynamodb", note)


@pytest.fixture(scope="session")
def database(
    dynamodb: "DynamoDBClient",  # noqa: ARG001 (starting moto later would empty the database)
    serve: Callable[["WSGIApplication"], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The URL of the local run's database, whose region and therefore tables are not those of `dynamodb`."""
    database = Database(tmp_path_factory.mktemp("database"), TEMPLATE)
    yield serve(database)
    database.close()


class LocalRun:
    """`python -m infra.local`, started as by `make run`."""

    def __init__(self, data: Path, *arguments: str, root: Path = ROOT) -> None:
        command = [executable, "-u", "-m", "infra.local", "--port", "0", "--data", str(data), *arguments]
        self.data = data
        self.process = Popen(command, stdout=PIPE, stderr=STDOUT, text=True, cwd=root)
        assert self.process.stdout
        self.output = self.process.stdout
        self.start_up: list[str] = []
        """The lines that the program printed before it served requests."""
        for line in self.output:
            if line.startswith("The API answers on http://localhost:"):
                break
            self.start_up.append(line)
        else:
            raise AssertionError("".join(self.start_up))
        self.client = http_client(line.split()[-1].removesuffix("/incidents/"))

    def stop(self, signal: int) -> str:
        """Send the signal; return the rest of the output."""
        self.process.send_signal(signal)
        self.process.wait(timeout=30)
        self.client.close()
        with self.output:
            return self.output.read()


@pytest.fixture
def run_local(tmp_path: Path) -> Iterator[Callable[..., LocalRun]]:
    """Start the local run with these arguments, each time on the same data folder."""
    started: list[LocalRun] = []

    def run(*arguments: str) -> LocalRun:
        started.append(LocalRun(tmp_path / "data", *arguments))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.stop(9)
