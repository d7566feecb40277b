"""A client of Telegram's Bot API, and what Telegram's refusals mean.

The bot's token is part of every URL. It is read from SSM once, and appears in no log line and no exception.

https://core.telegram.org/bots/api#making-requests
"""

import json
import logging
import os
from functools import cache
from typing import TYPE_CHECKING, cast

import urllib3
from botocore.config import Config
from botocore.httpsession import where
from botocore.session import get_session

from telegram.messages import Method

if TYPE_CHECKING:
    from types_boto3_ssm import SSMClient

API_URL = os.environ["TELEGRAM_API_URL"]
TOKEN_PARAMETER = os.environ["TELEGRAM_TOKEN_PARAMETER"]
"""The name of an SSM parameter of the type SecureString."""

CONNECT_TIMEOUT, READ_TIMEOUT = 2, 8
"""Seconds. There is no second attempt: the caller retries."""

DEFAULT_WAIT = 5
"""Seconds, if Telegram throttles without saying for how long."""

_NO_ACCESS = (
    "chat not found",
    "not enough rights",
    "have no rights",
    "CHAT_WRITE_FORBIDDEN",
    "message thread not found",
    "TOPIC_CLOSED",
    "TOPIC_DELETED",
)

# Regardless of the root logger's level: urllib3 logs URLs, even in warnings, and botocore logs SSM's responses at DEBUG.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)
logging.getLogger("botocore").setLevel(logging.WARNING)

# No retries by urllib3: the exception that it raises after them contains the URL.
_http = urllib3.PoolManager(
    ca_certs=where(), retries=False, timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
)


class TryLater(Exception):
    """Telegram throttles, fails, does not answer or refuses the token. If it throttles, it accepts no call for `seconds`."""

    def __init__(self, reason: str, seconds: float = 0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class MessageGone(Exception):
    """The message to edit no longer exists or cannot be edited."""


class ChatMoved(Exception):
    """The group has become a supergroup."""

    def __init__(self, chat_id: str) -> None:
        super().__init__(chat_id)
        self.chat_id = chat_id


class ChatUnreachable(Exception):
    """The bot is not in the chat, or may not write there."""


class Refused(Exception):
    """Telegram refuses the call, and would refuse it again. The text is Telegram's description."""


def call(method: Method) -> int:
    """Make a call; return the number of the message that it sent or edited, 0 if there is none. Raises this module's errors.

    An edit that changes nothing is a success: it may repeat one whose answer was lost.
    """
    name = str(method["method"])
    url = f"{API_URL}/bot{_token()}/{name}"
    fields = {key: value for key, value in method.items() if key != "method"}
    try:
        response = _http.request("POST", url, json=fields)
        answer = json.loads(response.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise TryLater(f"{name}: {type(error).__name__}") from None
    if response.status in (401, 404):  # 404 if it does not look like a token
        _token.cache_clear()
        raise TryLater(f"{name}: the token is refused")
    if not isinstance(answer, dict) or response.status >= 500 or "ok" not in answer:
        raise TryLater(f"{name}: status {response.status}")
    if answer["ok"] is True:
        result = answer.get("result")
        return int(result.get("message_id", 0)) if isinstance(result, dict) else 0
    return _refused(name, response.status, answer)


def _refused(name: str, status: int, answer: dict[str, object]) -> int:
    """Raise the error that a refusal means; return 0 if it means none. Many refusals differ only in their descriptions."""
    description = str(answer.get("description", ""))
    parameters = cast("dict[str, int]", answer.get("parameters") or {})
    if status == 429:
        raise TryLater(f"{name}: too many requests", parameters.get("retry_after", DEFAULT_WAIT))
    if "migrate_to_chat_id" in parameters:
        raise ChatMoved(str(parameters["migrate_to_chat_id"]))
    if "message is not modified" in description:
        return 0
    if "message to edit not found" in description or "message can't be edited" in description:
        raise MessageGone(description)
    if status == 403 or any(text in description for text in _NO_ACCESS):
        raise ChatUnreachable(description)
    raise Refused(description)


@cache
def _token() -> str:
    config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 3})
    ssm = cast("SSMClient", get_session().create_client("ssm", config=config))
    parameter = ssm.get_parameter(Name=TOKEN_PARAMETER, WithDecryption=True)["Parameter"]
    return parameter["Value"].strip()
