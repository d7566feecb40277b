from collections.abc import Iterator

import boto3
import httpx
import pytest

from telegram import bot, notify_telegram, receive_telegram
from tests.telegram.chat import CHAT, Room
from tests.telegram.fake_telegram import OTHER, TOKEN, Clock, Telegram


@pytest.fixture
def room(api: httpx.Client) -> Room:
    return Room(api)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(notify_telegram, "time", clock)
    return clock


@pytest.fixture
def telegram(clock: Clock, api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    """The Telegram that notify_telegram calls: it notifies `CHAT`, and every call has to be valid."""
    api.get("/incidents")  # loads the functions
    boto3.client("ssm").put_parameter(Name="/token", Value=TOKEN, Type="SecureString", Overwrite=True)
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT)])
    monkeypatch.setattr(receive_telegram, "NOTIFIES", True)
    monkeypatch.setattr(bot, "TOKEN_PARAMETER", "/token")
    telegram = Telegram(clock)
    with telegram.listening() as address:
        monkeypatch.setattr(bot, "API_URL", address)
        yield telegram
    telegram.assert_valid()


@pytest.fixture
def two_chats(telegram: Telegram, monkeypatch: pytest.MonkeyPatch) -> Telegram:
    """The same Telegram, with notify_telegram notifying `CHAT` and `OTHER`."""
    monkeypatch.setattr(notify_telegram, "CHATS", [str(CHAT), str(OTHER)])
    return telegram
