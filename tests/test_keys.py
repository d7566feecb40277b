"""`make key`, `make keys` and `make revoke`, as far as they go without a stack. tests/e2e has the rest."""

import os
import re
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from infra import keys
from infra.keys import Keys
from tests.conftest import ROOT, TEMPLATE

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NOBODY_LISTENS = "http://127.0.0.1:9"


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in this environment and no other of AWS's."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "MAKE", "MFLAGS")) and name not in ("NAME", "ROLE", "SOURCE", "STACK")
    }
    # No file of the person's who runs the tests, and no question to the address that gives a server its credentials.
    settings = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return subprocess.run(
        ["make", "--silent", *arguments],
        cwd=ROOT,
        env=inherited | settings | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
GOOD = ("key", "NAME=partner-x", "ROLE=reporter")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["NAME=", "ROLE=reporter"], ["NAME"]),
        (["ROLE=reporter"], ["NAME"]),
        (["NAME=Partner X", "ROLE=reporter"], ["NAME"]),
        (["NAME=partner_x", "ROLE=reporter"], ["NAME"]),
        (["NAME=партнёр", "ROLE=reporter"], ["NAME"]),
        ([f"NAME={'x' * 65}", "ROLE=reporter"], ["NAME"]),
        (["NAME=x; echo pwned", "ROLE=reporter"], ["NAME"]),
        (["NAME=x\n", "ROLE=reporter"], ["NAME"]),
        (["NAME=partner-x"], ["ROLE"]),
        (["NAME=partner-x", "ROLE=admin"], ["ROLE"]),
        (["NAME=partner-x", "ROLE=reporter", "SOURCE=chat"], ["SOURCE"]),
        (["NAME=X", "ROLE=Reporter", "SOURCE=Chat"], ["NAME", "ROLE", "SOURCE"]),
    ],
)
def test_a_bad_name_role_or_source_is_named_and_aws_is_not_asked(arguments: list[str], names: list[str]) -> None:
    ran = make("key", *arguments)  # without credentials: asking AWS would be another error
    error = assert_one_line(ran)
    assert re.findall(r"NAME|ROLE|SOURCE", error) == names


def assert_one_line(ran: subprocess.CompletedProcess[str]) -> str:
    """Check that the command failed, printed nothing and said why in one line; return that line."""
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr  # make's own status for a command that failed
    error, *of_make = ran.stderr.splitlines()
    assert all(line.startswith("make: ***") for line in of_make)
    return error


@pytest.mark.parametrize("command", [GOOD, ("keys",), ("revoke", "NAME=partner-x")], ids=lambda command: command[0])
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
def test_what_is_missing_is_said_in_one_line(command: tuple[str, ...], environment: dict[str, str], says: str) -> None:
    assert says in assert_one_line(make(*command, **environment))


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
    assert keys.listing(stored.all()) == "NAME  ROLE  SOURCE  CREATED"
    secrets = [
        stored.create("partner-x", "reporter", "partner"),
        stored.create("partner-x", "reporter", "partner"),
        stored.create("grafana", "observer"),
    ]
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    shown = keys.listing(stored.all())
    assert re.fullmatch(
        rf"NAME       ROLE      SOURCE   CREATED\n"
        rf"grafana    observer  -        {time}\n"
        rf"partner-x  reporter  partner  ({time})\n"
        rf"partner-x  reporter  partner  ({time})",
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
