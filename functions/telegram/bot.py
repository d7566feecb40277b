"""A client of Telegram's Bot API: the calls that a bot makes by itself, and what it means if Telegram refuses one.

The bot's token is part of every URL. It is read from SSM once, and stands in no log line and in no exception.

https://core.telegram.org/bots/api#making-requests
"""

import json
import logging
import os
from typing import TYPE_CHECKING, cast

import urllib3
from botocore.config import Config
from botocore.httpsession import where
from botocore.session import get_session

if TYPE_CHECKING:
    from types_boto3_ssm import SSMClient

API_URL = os.environ["TELEGRAM_API_URL"]
TOKEN_PARAMETER = os.environ["TELEGRAM_TOKEN_PARAMETER"]
"""The name of an SSM parameter of the type SecureString."""

CONNECT_TIMEOUT, READ_TIMEOUT = 2, 8
"""Seconds. There is no second attempt: the caller repeats."""

DEFAULT_WAIT = 5
"""Seconds, where Telegram throttles without saying for how long."""

_NO_ACCESS = (
    "chat not found",
    "not enough rights",
    "have no rights",
    "CHAT_WRITE_FORBIDDEN",
    "message thread not found",
    "TOPIC_CLOSED",
    "TOPIC_DELETED",
)

Method = dict[str, object]
"""A call of a method of the Bot API, its name as `method`."""

# Whatever the level of the root logger is: urllib3 logs URLs, even in warnings, and botocore at DEBUG what SSM answers.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)
logging.getLogger("botocore").setLevel(logging.WARNING)

# urllib3's own attempts would put the URL into the text of their exception.
_http = urllib3.PoolManager(
    ca_certs=where(), retries=False, timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
)


class TryLater(Exception):
    """Telegram throttles, fails, does not answer, or refuses the token; `seconds` is how long it wants to be left alone."""

    def __init__(self, reason: str, seconds: float = 0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class MessageGone(Exception):
    """The message to edit does not exist any more, or cannot be edited."""


class ChatMoved(Exception):
    """The group has become a supergroup."""

    def __init__(self, chat_id: str) -> None:
        super().__init__(chat_id)
        self.chat_id = chat_id


class ChatUnreachable(Exception):
    """The bot is not in the chat, or may not write there."""


class Refused(Exception):
    """Telegram refuses the call itself, so that repeating it would not help. The text is Telegram's description."""


class _Token:
    value = ""


def call(method: Method) -> int:
    """Make a call; return the number of the message that it sent or edited, 0 if it is about none.

    That a message is edited to what it says already is a success: Telegram says so after an edit whose answer was lost. Raises
    this module's errors.
    """
    if not _Token.value:
        _Token.value = _read_token()
    name = method["method"]
    body = json.dumps({key: value for key, value in method.items() if key != "method"})
    try:
        response = _http.request(
            "POST", f"{API_URL}/bot{_Token.value}/{name}", body=body, headers={"Content-Type": "application/json"}
        )
        answer = json.loads(response.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise TryLater(f"{name}: {type(error).__name__}") from None
    if response.status in (401, 404):  # 404 for what has not the form of a token
        _Token.value = ""
        raise TryLater(f"{name}: the token is refused")
    if not isinstance(answer, dict) or response.status >= 500 or "ok" not in answer:
        raise TryLater(f"{name}: status {response.status}")
    if answer["ok"] is True:
        result = answer.get("result")
        return int(result.get("message_id", 0)) if isinstance(result, dict) else 0
    return _refused(str(name), response.status, answer)


def _refused(name: str, status: int, answer: dict[str, object]) -> int:
    """What a refusal means. Telegram tells many of them apart by nothing but their description."""
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


def _read_token() -> str:
    config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 3})
    ssm = cast("SSMClient", get_session().create_client("ssm", config=config))
    parameter = ssm.get_parameter(Name=TOKEN_PARAMETER, WithDecryption=True)["Parameter"]
    return parameter["Value"].strip()
