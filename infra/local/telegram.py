"""Telling the chats without AWS: the table's stream, and a Telegram that shows messages here, or the real one.

The real one is for a bot whose token is in the environment as `TELEGRAM_TOKEN`. Its updates are fetched, since a webhook cannot
reach this machine: https://core.telegram.org/bots/api#getupdates
"""

import json
import logging
import os
from itertools import count
from threading import Event, Thread
from typing import TYPE_CHECKING, cast

import urllib3
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.handlers import BUILTIN_HANDLERS
from werkzeug.wrappers import Request, Response

from infra.local.database import Database
from infra.local.gateway import Gateway
from infra.local.server import HOST, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

PARAMETER = "/local/telegram-token"
BATCH = 1000
"""Records of the stream that a function gets at once."""
WINDOW = 0.3
"""Seconds in which records are gathered."""
LONGEST_WAIT = 30
"""Seconds before another attempt."""
POLL = 25
"""Seconds that Telegram holds a request for updates."""

Fields = dict[str, object]


class Screen:
    """A Bot API that shows what it is asked to send: a WSGI application."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        request = Request(environ)
        method = request.path.rpartition("/")[2]
        call: Fields = json.loads(request.get_data())
        number = call.get("message_id") or next(self._numbers)
        log.info("%s", shown(method, call, number))
        answer = {"ok": True, "result": {"message_id": number, "chat": {"id": call["chat_id"]}}}
        return Response(json.dumps(answer), content_type="application/json")(environ, start_response)


def shown(method: str, call: Fields, number: object) -> str:
    """A message, as its chat would show it."""
    what = "edited" if method == "editMessageText" else "new"
    reply = cast("Fields", call.get("reply_parameters") or {})
    about = f", in reply to {reply['message_id']}" if reply else ""
    keyboard = cast("dict[str, list[list[dict[str, str]]]]", call.get("reply_markup") or {})
    rows = ["  ".join(f"[{button['text']}]" for button in row) for row in keyboard.get("inline_keyboard", [])]
    lines = [*str(call["text"]).splitlines(), *([""] if rows else []), *rows]
    return "\n".join([f"Chat {call['chat_id']}, message {number} ({what}{about}):", *(f"    {line}" for line in lines)])


class Chats:
    """Feeds the functions on the table's stream, and fetches the updates of a real bot."""

    def __init__(self, api_url: str, token: str, screen: Server | None) -> None:
        self._api_url = api_url
        self._token = token
        self._screen = screen
        self._stopping = Event()
        self._changed = Event()

    def tell(self, database: Database, gateway: Gateway, webhook: str) -> None:
        """Begin, with the changes that an earlier run has not told of."""
        if self._screen:
            self._screen.start()
        database.turn_stream_on()
        self._changed = database.changed
        self._begin(lambda: self._feed(database, gateway))
        if not self._screen:
            self._begin(lambda: self._fetch_updates(webhook))

    def stop(self) -> None:
        """End, without waiting for Telegram: what is not told yet is told by the next run."""
        self._stopping.set()
        self._changed.set()

    def _begin(self, work: "Callable[[], None]") -> None:
        Thread(target=work, daemon=True).start()

    def _feed(self, database: Database, gateway: Gateway) -> None:
        """Give the functions the stream's records, in order; after a failure the same ones again, as Lambda does."""
        wait = 1
        while not self._stopping.is_set():
            self._changed.clear()
            try:
                records = database.stream(BATCH)
                if not records:
                    self._changed.wait()
                    self._stopping.wait(WINDOW)
                    continue
                gateway.pass_on([{"dynamodb": {"Keys": {"id": {"S": incident_id}}}} for _, incident_id in records])
                database.forget(records[-1][0])
                wait = 1
            except Exception as error:  # as on AWS, where Lambda handles every exception that leaves a function
                if self._stopping.is_set():
                    return
                log.warning(
                    "The chats could not be told (%s: %s). Trying again in %d s.", type(error).__name__, error, wait
                )
                self._stopping.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _fetch_updates(self, webhook: str) -> None:
        """Give the updates of the bot to the webhook, and make the calls that it answers."""
        http = urllib3.PoolManager(retries=False, timeout=POLL + 10)
        offset = 0
        while not self._stopping.is_set():
            try:
                updates = self._ask(http, "getUpdates", {"offset": offset, "timeout": POLL})
                for update in cast("list[dict[str, int]]", updates):
                    response = http.request("POST", webhook, json=update)
                    if response.status != 200:  # the same update again, as Telegram does with a webhook
                        raise ValueError(f"the API answered {response.status}")
                    offset = update["update_id"] + 1
                    if answer := response.json():
                        self._make(http, answer)
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                log.warning("An update from Telegram could not be handled: %s", error)
                self._stopping.wait(LONGEST_WAIT)

    def _make(self, http: urllib3.PoolManager, call: Fields) -> None:
        """Make the call that the webhook answers. Telegram does not repeat an update because it refuses the call."""
        try:
            self._ask(http, str(call.pop("method")), call)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            log.warning("Telegram has refused an answer: %s", error)

    def _ask(self, http: urllib3.PoolManager, method: str, fields: Fields) -> object:
        """Call a method of the Bot API; return its result. Raises `ValueError` for a refusal."""
        answer = http.request("POST", f"{self._api_url}/bot{self._token}/{method}", json=fields).json()
        if not answer.get("ok"):
            raise ValueError(f"{method}: {answer.get('description')}")
        return cast("object", answer["result"])


def with_token(database: "WSGIApplication") -> "WSGIApplication":
    """The database, and SSM with the bot's token, for a function that `sam local invoke` runs."""
    token = os.environ.pop("TELEGRAM_TOKEN", "local")

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        if environ.get("HTTP_X_AMZ_TARGET") == "AmazonSSM.GetParameter":
            return Response(json.dumps(_parameter(token)))(environ, start_response)
        return database(environ, start_response)

    return answer


def _parameter(token: str) -> Fields:
    return {"Parameter": {"Value": token}}


def start(parameters: dict[str, str]) -> Chats | None:
    """Prepare for telling the chats that the stack's parameters list, and add what the functions need for it."""
    token, api_url = os.environ.pop("TELEGRAM_TOKEN", ""), os.environ.pop("TELEGRAM_API_URL", "")
    if not parameters.get("TelegramChats"):
        return None
    parameters["TelegramTokenParameter"] = PARAMETER
    screen = None
    if token:
        parameters["TelegramApiUrl"] = api_url = api_url or parameters.get("TelegramApiUrl", "https://api.telegram.org")
    else:
        screen = Server(Screen(), port=0)
        parameters["TelegramApiUrl"] = api_url = f"http://{HOST}:{screen.port}"
    # As SSM would answer the functions' client.
    answer = AWSResponse("", 200, HTTPHeaders(), None), _parameter(token or "local")
    BUILTIN_HANDLERS.append(("before-call.ssm", lambda **_: answer))
    return Chats(api_url, token, screen)
