"""`make key`, `make keys` and `make revoke`, without a stack. tests/e2e runs them against one."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from io import StringIO
from typing import TYPE_CHECKING

import boto3
import pytest

from infra import keys
from infra.keys import Keys
from infra.stack import CommandError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NOBODY_LISTENS = "http://127.0.0.1:9"
CREATE = {"--name": "partner-x", "--role": "reporter"}

Command = Callable[..., str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run what the Makefile calls; return the line in which it says why it did nothing."""

    def run(*arguments: str, **environment: str) -> str:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        isolated = {"AWS_CONFIG_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
        for name, value in (isolated | environment).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["keys", "--stack", "incident-api", *arguments])
        with pytest.raises(SystemExit) as ended:
            keys.main()
        assert capsys.readouterr().out == ""
        assert "\n" not in str(ended.value)
        return str(ended.value)

    return run


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"--name": ""}, ["NAME"]),
        ({"--name": "Partner X"}, ["NAME"]),
        ({"--name": "partner_x"}, ["NAME"]),
        ({"--name": "партнёр"}, ["NAME"]),
        ({"--name": "x" * 65}, ["NAME"]),
        ({"--name": "x\n"}, ["NAME"]),
        ({"--role": ""}, ["ROLE"]),
        ({"--role": "admin"}, ["ROLE"]),
        ({"--source": "chat"}, ["SOURCE"]),
        *(({"--days": days}, ["DAYS"]) for days in ("0", "-1", "1.5", "90 days", "10000", "ninety")),
        ({"--name": "X", "--role": "Reporter", "--source": "Chat", "--days": "x"}, ["NAME", "ROLE", "SOURCE", "DAYS"]),
    ],
)
def test_every_bad_argument_is_named_without_calling_aws(
    command: Command, arguments: dict[str, str], wrong: list[str]
) -> None:
    # There are no credentials: a call would fail with another error.
    message = command("create", *(f"{name}={value}" for name, value in (CREATE | arguments).items()))
    assert re.findall(r"NAME|ROLE|SOURCE|DAYS", message) == wrong


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
THERE = CREDENTIALS | {"AWS_REGION": "eu-central-1"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_REGION": "eu-central-1"}, "credentials"),
        (CREDENTIALS, "region"),
        (CREDENTIALS | {"AWS_REGION": "not a region"}, "not a region"),
        (THERE | {"AWS_PROFILE": "missing"}, "missing"),
        (THERE | {"AWS_ENDPOINT_URL": NOBODY_LISTENS}, NOBODY_LISTENS),
    ],
    ids=["no credentials", "no region", "no such region", "no such profile", "no answer"],
)
def test_a_missing_setting_is_named_in_one_line(command: Command, environment: dict[str, str], message: str) -> None:
    assert message in command("list", **environment)


def test_the_list_shows_no_key_and_no_hash(stored_keys: Keys) -> None:
    assert keys.listing(stored_keys.all()) == "NAME  ROLE  SOURCE  CREATED  EXPIRES"
    for _ in range(2):
        stored_keys.create("partner-x", "reporter", "partner")
    stored_keys.create("grafana", "observer", days=90)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(
        rf"NAME       ROLE      SOURCE   CREATED                   EXPIRES\n"
        rf"grafana    observer  -        {time}  {time}\n"
        rf"(partner-x  reporter  partner  {time}  -\n?){{2}}",
        keys.listing(stored_keys.all()),
    )


def test_a_list_longer_than_a_page_is_complete(stored_keys: Keys, dynamodb: "DynamoDBClient") -> None:
    names = [f"caller-{number}" for number in range(4)]
    for name in names:  # a page of a scan has at most 1 MB
        stored_keys.store(
            {"key_hash": name, "name": name, "role": "observer", "created_at": "", "padding": "x" * 350_000}
        )
    assert "LastEvaluatedKey" in dynamodb.scan(TableName="KeysTable")
    assert [key["name"] for key in stored_keys.all()] == names


@pytest.fixture
def three(stored_keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Two keys of anna's and one of anna-2's, which `make revoke` finds."""
    monkeypatch.setattr(keys, "find", lambda _: stored_keys)
    for number, name in enumerate(("anna", "anna", "anna-2"), 1):
        created = f"2026-11-2{number}T10:00:00.000Z"
        stored_keys.store({"key_hash": str(number), "name": name, "role": "observer", "created_at": created})
    return stored_keys


@pytest.mark.parametrize(
    ("answer", "arguments", "left", "message"),
    [
        ("y", [], ["3"], ""),
        ("YES", ["--created", "2026-11-22T10:00:00.000Z"], ["1", "3"], ""),
        ("n", ["--yes"], ["3"], ""),
        ("", [], ["1", "2", "3"], "Nothing was revoked."),
        ("n", [], ["1", "2", "3"], "Nothing was revoked."),
        (
            "y",
            ["--created", "2026"],
            ["1", "2", "3"],
            "There is no such key in incident-api: make keys lists the existing",
        ),
    ],
    ids=["every key of the name", "one key", "without asking", "no answer", "no", "no such key"],
)
def test_confirmed_keys_are_revoked_by_name_and_time(
    three: Keys, monkeypatch: pytest.MonkeyPatch, answer: str, arguments: list[str], left: list[str], message: str
) -> None:
    terminal = StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys, "argv", ["keys", "--stack", "incident-api", "revoke", "--name", "anna", *arguments])
    with pytest.raises(SystemExit, match=message) if message else nullcontext():
        keys.main()
    assert [key["key_hash"] for key in three.all()] == left


def test_without_a_terminal_only_yes_revokes(three: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("y\n"))
    with pytest.raises(CommandError, match="YES=1 confirms"):
        keys.revoke("incident-api", "anna", "", yes=False)
    assert len(three.all()) == 3


@pytest.mark.usefixtures("stored_keys")
def test_keys_are_read_with_strong_consistency() -> None:
    sent: list[bool] = []
    client = boto3.client("dynamodb")
    client.meta.events.register(
        "provide-client-params.dynamodb.Scan", lambda params, **_: sent.append(params["ConsistentRead"])
    )
    Keys(client, "KeysTable").all()
    assert sent == [True]


def test_a_key_expires_after_its_days(stored_keys: Keys) -> None:
    stored_keys.create("grafana", "observer", days=90)
    (key,) = stored_keys.all()
    created, expires = (datetime.fromisoformat(key[name]) for name in ("created_at", "expires_at"))
    assert (expires - created).days == 90
