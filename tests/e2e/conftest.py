"""Two stacks on the emulated AWS: the default one, and one with every integration that shares its table."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from tests.conftest import EVERYTHING
from tests.e2e.aws import TELEGRAM_HEADER, Aws
from tests.telegram.fake_telegram import TOKEN, RealClock, Telegram


@pytest.fixture(scope="session")
def deployed(deployment: object) -> Aws:
    if not isinstance(deployment, Aws):
        pytest.skip("the API is not on AWS: make e2e")
    return deployment


@pytest.fixture(scope="session")
def bot_api() -> Iterator[tuple[Telegram, str]]:
    """Telegram and its address."""
    telegram = Telegram(RealClock())
    with telegram.listening() as address:
        yield telegram, address


@pytest.fixture(scope="session")
def integrated(deployed: Aws, bot_api: tuple[Telegram, str]) -> Aws:
    stack = replace(deployed, stack="incident-api-integrations")
    stream = deployed.make("table-stream", f"TABLE={deployed.table}").partition("TableStream=")[2].strip('"\n')
    parameters = EVERYTHING | {"RemindAt": "rate(1 minute)", "TelegramApiUrl": bot_api[1], "TableStream": stream}
    stack.deploy(Table=deployed.table, **parameters)
    stack.make("telegram-token", typed=TOKEN)
    return stack


@pytest.fixture
def webhook(integrated: Aws) -> Iterator[httpx.Client]:
    """Telegram as a client of the webhook."""
    with integrated.anonymous_client({TELEGRAM_HEADER: integrated.make_key("telegram", "telegram")}) as client:
        yield client
