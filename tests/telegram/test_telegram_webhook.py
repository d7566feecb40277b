"""`make telegram-webhook`, `make telegram-token` and `make table-stream`, which tests/e2e also runs against a stack."""

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest

from infra import telegram
from infra.stack import CommandError
from telegram.update import Update
from tests.conftest import TEMPLATE
from tests.telegram.chat import Room, sent
from tests.telegram.fake_telegram import TOKEN, RealClock, Telegram

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

API = "https://abc.execute-api.eu-central-1.amazonaws.com"
TYPED = "123456:token'$(x)"
KEY = "inc_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


def test_the_printed_commands_set_the_webhook_with_its_key(tmp_path: Path) -> None:
    from aiogram.methods import SetWebhook  # here, as in chat.py

    # A make that creates a key, and a curl that prints each argument on a line.
    for name, does in {"make": f'echo "$*" >"$0.arguments"\necho {KEY}', "curl": """printf '%s\\n' "$@\""""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    ran = subprocess.run(
        ["sh", "-c", telegram.instructions(API, "incidents-2")],
        input=TYPED + "\n",
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    fail, url, *data = ran.stdout.splitlines()
    assert (fail, url) == ("--fail-with-body", f"https://api.telegram.org/bot{TYPED}/setWebhook")
    assert data[::2] == ["--data-urlencode"] * 3
    fields = dict(each.split("=", 1) for each in data[1::2])
    fields["allowed_updates"] = json.loads(fields["allowed_updates"])
    webhook = SetWebhook.model_validate(fields, extra="forbid")
    assert (webhook.url, webhook.secret_token) == (f"{API}/telegram", KEY)
    assert webhook.allowed_updates == list(Update.model_fields), "the updates that the function handles"
    made = (tmp_path / "make.arguments").read_text()
    assert made == "--silent key NAME=telegram ROLE=telegram STACK=incidents-2\n"


def test_the_menu_has_the_commands_that_the_bot_answers(room: Room) -> None:
    from aiogram.methods import SetMyCommands
    from aiogram.types import BotCommand

    menus = re.findall(r"(?:^#   .*\n)+", telegram.instructions(API, "incident-api"), re.MULTILINE)
    assert len(menus) == 2
    for menu in menus:
        commands = re.findall(r"^#   ([a-z0-9_]{1,32}) - (.{1,256})$", menu, re.MULTILINE)
        SetMyCommands(commands=[BotCommand(command=command, description=text) for command, text in commands])
        assert [command for command, _ in commands] == ["incident", "incidents"]
        assert all(sent(room.say(f"/{command}")) for command, _ in commands)


@pytest.mark.usefixtures("dynamodb")
def test_only_a_token_that_telegram_knows_is_stored() -> None:
    ssm = boto3.client("ssm")
    with Telegram(RealClock()).listening() as address:
        assert telegram.store_token(TOKEN, address, "/t/telegram-token") == "incidents_bot"
        with pytest.raises(CommandError, match="does not know this token") as refused:
            telegram.store_token("123:wrong", address, "/t/telegram-token")
    with pytest.raises(CommandError, match="Telegram could not be reached") as unreachable:
        telegram.store_token(TOKEN, "http://127.0.0.1:9", "/t/telegram-token")
    stored = ssm.get_parameter(Name="/t/telegram-token", WithDecryption=True)["Parameter"]
    assert (stored["Value"], stored["Type"]) == (TOKEN, "SecureString")
    for failed, token in ((refused, "123:wrong"), (unreachable, TOKEN)):
        assert token not in repr((failed.value, failed.value.__cause__))


def test_the_stream_of_a_table_is_turned_on_once(dynamodb: "DynamoDBClient", table: str) -> None:
    dynamodb.update_table(TableName=table, StreamSpecification={"StreamEnabled": False})
    arn = telegram.turn_stream_on(table)
    TEMPLATE.check({"TableStream": arn})
    assert telegram.turn_stream_on(table) == arn


def test_a_stream_without_new_images_is_refused(dynamodb: "DynamoDBClient", table: str) -> None:
    dynamodb.update_table(TableName=table, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"})
    with pytest.raises(CommandError, match="does not contain new images"):
        telegram.turn_stream_on(table)
