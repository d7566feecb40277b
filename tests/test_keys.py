"""`make key`, `make keys` and `make revoke`, as far as they go without a stack. tests/e2e has the rest."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from infra import keys
from infra.keys import Keys
from tests.conftest import ROOT, TEMPLATE

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NOBODY_LISTENS = "http://127.0.0.1:9"
# No file of the person's who runs the tests, and no question to the address that gives a server its credentials.
ISOLATED = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

Command = Callable[..., str]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in this environment and no other of AWS's."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "MAKE", "MFLAGS")) and name not in ("NAME", "ROLE", "SOURCE", "STACK")
    }
    return subprocess.run(
        ["make", "--silent", *arguments],
        cwd=ROOT,
        env=inherited | ISOLATED | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """What the Makefile calls, in this process; returns the one line that says why nothing was done."""

    def run(*arguments: str, **environment: str) -> str:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in (ISOLATED | environment).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["keys", "--stack", "incident-api", *arguments])
        with pytest.raises(SystemExit) as ended:
            keys.main()
        assert capsys.readouterr().out == ""
        assert "\n" not in str(ended.value)
        return str(ended.value)

    return run


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.mark.parametrize(
    ("name", "role", "source", "wrong"),
    [
        ("", "reporter", "", ["NAME"]),
        ("Partner X", "reporter", "", ["NAME"]),
        ("partner_x", "reporter", "", ["NAME"]),
        ("партнёр", "reporter", "", ["NAME"]),
        ("x" * 65, "reporter", "", ["NAME"]),
        ("x\n", "reporter", "", ["NAME"]),
        ("partner-x", "", "", ["ROLE"]),
        ("partner-x", "admin", "", ["ROLE"]),
        ("partner-x", "reporter", "chat", ["SOURCE"]),
        ("X", "Reporter", "Chat", ["NAME", "ROLE", "SOURCE"]),
    ],
)
def test_bad_arguments_are_named_without_asking_aws(
    command: Command, name: str, role: str, source: str, wrong: list[str]
) -> None:
    # Without credentials: asking AWS would be another error.
    said = command("create", "--name", name, "--role", role, "--source", source)
    assert re.findall(r"NAME|ROLE|SOURCE", said) == wrong


@pytest.mark.parametrize("days", ["0", "-1", "1.5", "90 days", "10000", "ninety"])
def test_days_are_a_whole_number(command: Command, days: str) -> None:
    said = command("create", "--name", "partner-x", "--role", "reporter", "--days", days)
    assert said == "DAYS is a number from 1 to 9999, or is left out."


def test_make_hands_names_on_as_they_are() -> None:
    ran = make("key", """NAME=x"; echo 'pwned""", "ROLE=reporter")
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr  # make's own status for a command that failed
    error, *of_make = ran.stderr.splitlines()
    assert error.startswith("NAME has 1 to 64 ")
    assert all(line.startswith("make: ***") for line in of_make)


@pytest.mark.parametrize(
    "arguments",
    [("create", "--name", "partner-x", "--role", "reporter"), ("list",), ("revoke", "--name", "partner-x")],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AWS_REGION": "eu-central-1"}, "credentials"),
        (CREDENTIALS, "region"),
        (CREDENTIALS | {"AWS_REGION": "not a region"}, "not a region"),
        (CREDENTIALS | {"AWS_REGION": "eu-central-1", "AWS_PROFILE": "missing"}, "missing"),
        (CREDENTIALS | {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": NOBODY_LISTENS}, NOBODY_LISTENS),
    ],
    ids=["no credentials", "no region", "no such region", "no such profile", "no answer"],
)
def test_what_is_missing_is_said_in_one_line(
    command: Command, arguments: tuple[str, ...], environment: dict[str, str], says: str
) -> None:
    assert says in command(*arguments, **environment)


@pytest.fixture
def stored(dynamodb: "DynamoDBClient") -> Iterator[Keys]:
    """The access keys in an empty table."""
    dynamodb.create_table(**TEMPLATE.table("KeysTable"))
    yield Keys(dynamodb, "KeysTable")
    dynamodb.delete_table(TableName="KeysTable")


def test_a_key_is_32_random_bytes_in_base64url(stored: Keys) -> None:
    made = {stored.create("partner-x", "reporter") for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"inc_[A-Za-z0-9_-]{43}", key) for key in made)


def test_the_list_shows_what_is_stored_but_no_hash(stored: Keys) -> None:
    assert keys.listing(stored.all()) == "NAME  ROLE  SOURCE  CREATED  EXPIRES"
    secrets = [
        stored.create("partner-x", "reporter", "partner"),
        stored.create("partner-x", "reporter", "partner"),
        stored.create("grafana", "observer", days=90),
    ]
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    shown = keys.listing(stored.all())
    assert re.fullmatch(
        rf"NAME       ROLE      SOURCE   CREATED                   EXPIRES\n"
        rf"grafana    observer  -        {time}  {time}\n"
        rf"partner-x  reporter  partner  ({time})  -\n"
        rf"partner-x  reporter  partner  ({time})  -",
        shown,
    )
    assert all(key.removeprefix("inc_") not in shown for key in secrets)
    assert all(key["key_hash"] not in shown for key in stored.all())


def test_a_long_list_is_read_to_its_end(stored: Keys, dynamodb: "DynamoDBClient") -> None:
    # A page of a scan has at most 1 MB.
    for number in range(4):
        item = {
            "key_hash": str(number),
            "name": f"caller-{number}",
            "role": "observer",
            "created_at": "",
            "x": "x" * 350_000,
        }
        dynamodb.put_item(TableName="KeysTable", Item={name: {"S": value} for name, value in item.items()})
    assert "LastEvaluatedKey" in dynamodb.scan(TableName="KeysTable")
    assert [key["name"] for key in stored.all()] == [f"caller-{number}" for number in range(4)]
