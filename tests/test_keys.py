"""`make key`, `make keys` and `make revoke`, as far as they go without a stack. tests/e2e has the rest."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from io import StringIO
from typing import TYPE_CHECKING

import boto3
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


def revoke(monkeypatch: pytest.MonkeyPatch, answer: str, *arguments: str) -> None:
    """`make revoke`, by a person at a terminal who answers this."""
    terminal = StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys, "argv", ["keys", "--stack", "incident-api", "revoke", "--name", "anna", *arguments])
    keys.main()


@pytest.fixture
def three(stored: Keys, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Two keys of anna's, and one of anna-2's; `make revoke` finds them."""
    monkeypatch.setattr(keys, "find", lambda _: stored)
    for number, name in enumerate(("anna", "anna", "anna-2"), start=1):
        key = {
            "key_hash": str(number),
            "name": name,
            "role": "observer",
            "created_at": f"2026-11-2{number}T10:00:00.000Z",
        }
        stored.store(key)
    return stored


@pytest.mark.parametrize(
    ("answer", "arguments", "left"),
    [
        ("y", [], ["3"]),
        ("YES", ["--created", "2026-11-22T10:00:00.000Z"], ["1", "3"]),
        ("n", ["--yes"], ["3"]),
    ],
    ids=["every key of the name", "one of them", "without asking"],
)
def test_keys_are_revoked_by_name_and_time(
    three: Keys, monkeypatch: pytest.MonkeyPatch, answer: str, arguments: list[str], left: list[str]
) -> None:
    revoke(monkeypatch, answer, *arguments)
    assert [key["key_hash"] for key in three.all()] == left


@pytest.mark.parametrize(
    ("answer", "arguments", "says"),
    [
        ("", [], "Nothing was revoked."),
        ("n", [], "Nothing was revoked."),
        ("y", ["--created", "2026"], "There is no such key in incident-api: make keys shows those there are."),
    ],
)
def test_nothing_is_revoked_without_a_yes_and_a_match(
    three: Keys, monkeypatch: pytest.MonkeyPatch, answer: str, arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit, match=re.escape(says)):
        revoke(monkeypatch, answer, *arguments)
    assert len(three.all()) == 3


def test_without_a_terminal_only_yes_revokes(three: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("y\n"))
    with pytest.raises(keys.KeysError, match="YES=1 confirms"):
        keys.revoke("incident-api", "anna", "", agreed=False)
    assert len(three.all()) == 3


@pytest.mark.usefixtures("stored")
def test_the_keys_are_read_as_of_the_last_write() -> None:
    """A key that was just made is listed, and one that was just revoked is not."""
    sent: list[bool] = []
    client = boto3.client("dynamodb")
    client.meta.events.register(
        "provide-client-params.dynamodb.Scan", lambda params, **_: sent.append(params["ConsistentRead"])
    )
    Keys(client, "KeysTable").all()
    assert sent == [True]


def test_a_key_expires_after_so_many_days(stored: Keys) -> None:
    stored.create("grafana", "observer", days=90)
    (key,) = stored.all()
    created, expires = (datetime.fromisoformat(key[name]) for name in ("created_at", "expires_at"))
    assert (expires - created).days == 90
