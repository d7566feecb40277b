"""Functions and containers under the SAM CLI. With `--on sam-local`, the behaviour tests run there, too."""

from urllib.parse import urlsplit

import pytest

from tests.e2e.sam_local import SamLocal, containers
from tests.steps import report
from tests.telegram.chat import CHAT
from tests.telegram.fake_telegram import RealClock, Telegram


@pytest.fixture
def local(deployment: object) -> SamLocal:
    if not isinstance(deployment, SamLocal):
        pytest.skip("the API is not under sam local: make test-sam-local")
    return deployment


def test_notify_telegram_processes_a_stream_record(local: SamLocal) -> None:
    telegram = Telegram(RealClock())
    address = urlsplit(local.dynamodb.meta.endpoint_url)
    with local.client() as api, telegram.listening(str(address.hostname)) as listening:
        incident = report(api, "From a container")
        image = local.dynamodb.get_item(TableName=local.table, Key={"id": {"S": incident["id"]}})["Item"]
        record = {
            "eventID": "1",
            "eventName": "INSERT",
            "eventSource": "aws:dynamodb",
            "dynamodb": {"Keys": {"id": image["id"]}, "NewImage": image, "StreamViewType": "NEW_IMAGE"},
        }
        local.invoke(
            "NotifyTelegramFunction",
            {"Records": [record]},
            TelegramChats=str(CHAT),
            TelegramTokenParameter="/token",
            TelegramApiUrl=listening.replace(str(address.hostname), "host.docker.internal"),
        )
        (text,) = telegram.shown(CHAT)
    assert text.startswith("From a container\n\nStatus: open")


def test_stopping_removes_the_containers(local: SamLocal) -> None:
    with local.client() as api:
        incident = report(api)
        assert api.get(f"/incidents/{incident['id']}").json() == incident
    assert containers() > local.found
    assert local.stop() == 0
    assert containers() <= local.found
