"""A Telegram for notify_telegram to talk to."""

from collections.abc import Iterator

import boto3
import httpx
import pytest

from telegram import bot, notify_telegram, receive_telegram
from tests.telegram.chat import CHAT
from tests.telegram.fake_telegram import TOKEN, Clock, Telegram


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(notify_telegram, "time", clock)
    return clock


@pytest.fixture
def telegram(clock: Clock, api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    """Telegram, whose bot has its token in SSM and tells one chat. What it is asked has to be valid."""
    api.get("/incidents")  # which loads the functions
    boto3.client("ssm").put_parameter(Name="/token", Value=TOKEN, Type="SecureString", Overwrite=True)
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT)])
    monkeypatch.setattr(receive_telegram, "NOTIFIES", True)
    monkeypatch.setattr(bot, "TOKEN_PARAMETER", "/token")
    monkeypatch.setattr(bot._Token, "value", "")
    telegram = Telegram(clock)
    with telegram.listening() as address:
        monkeypatch.setattr(bot, "API_URL", address)
        yield telegram
    telegram.assert_valid()
