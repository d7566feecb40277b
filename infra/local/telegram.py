"""Messages to Telegram chats in the local run: shown on the terminal, or sent if the environment has a bot's `TELEGRAM_TOKEN`.

The bot's updates are polled, because Telegram cannot reach a webhook on this machine: https://core.telegram.org/bots/api#getupdates
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
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

PARAMETER = "/local/telegram-token"
BATCH = 1000
"""The most records of the stream in one event."""
WINDOW = 0.3
"""Seconds in which records are collected."""
LONGEST_WAIT = 30
"""Seconds between two attempts, at most."""
POLL = 25
"""Seconds for which Telegram holds a request for updates."""

Fields = dict[str, object]


class Screen:
    """A Bot API, as a WSGI application, that logs the messages it is asked to send."""

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
    what = "edited" if method == "editMessageText" else "new"
    reply = cast("Fields", call.get("reply_parameters") or {})
    about = f", in reply to {reply['message_id']}" if reply else ""
    keyboard = cast("dict[str, list[list[dict[str, str]]]]", call.get("reply_markup") or {})
    rows = ["  ".join(f"[{button['text']}]" for button in row) for row in keyboard.get("inline_keyboard", [])]
    lines = [*str(call["text"]).splitlines(), *([""] if rows else []), *rows]
    return "\n".join([f"Chat {call['chat_id']}, message {number} ({what}{about}):", *(f"    {line}" for line in lines)])


class Chats:
    """Feeds the functions on the table's stream, and polls the updates of a real bot."""

    def __init__(self, api_url: str, token: str, screen: Server | None) -> None:
        self._api_url = api_url
        self._token = token
        self._screen = screen
        self._stopping = Event()
        self._changed = Event()

    def start(self, database: Database, gateway: Gateway, webhook: str) -> None:
        """Begin, with the changes that an earlier run did not pass on."""
        if self._screen:
            self._screen.start()
        database.turn_stream_on()
        self._changed = database.changed
        Thread(target=self._feed, args=(database, gateway), daemon=True).start()
        if not self._screen:
            Thread(target=self._fetch_updates, args=(webhook,), daemon=True).start()

    def stop(self) -> None:
        """End without waiting for Telegram. The next run passes on what is left."""
        self._stopping.set()
        self._changed.set()

    def _feed(self, database: Database, gateway: Gateway) -> None:
        """Give the functions the stream's records in order, and again after a failure, as Lambda does."""
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
            except Exception as error:  # on AWS, Lambda retries after any exception that leaves a function
                if self._stopping.is_set():
                    return
                name = type(error).__name__
                log.warning("The chats could not be notified (%s: %s). Trying again in %d s.", name, error, wait)
                self._stopping.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    def _fetch_updates(self, webhook: str) -> None:
        """Pass the bot's updates to the webhook, and make the calls in its responses."""
        http = urllib3.PoolManager(retries=False, timeout=POLL + 10)
        offset = 0
        while not self._stopping.is_set():
            try:
                updates = self._ask(http, "getUpdates", {"offset": offset, "timeout": POLL})
                for update in cast("list[dict[str, int]]", updates):
                    response = http.request("POST", webhook, json=update)
                    if response.status != 200:  # the update is then repeated, as Telegram does with a webhook
                        raise ValueError(f"the API answered {response.status}")
                    offset = update["update_id"] + 1
                    if answer := response.json():
                        self._make(http, answer)
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                log.warning("An update from Telegram could not be handled: %s", error)
                self._stopping.wait(LONGEST_WAIT)

    def _make(self, http: urllib3.PoolManager, call: Fields) -> None:
        """Make a call from the webhook's response. If Telegram refuses it, the update is not repeated."""
        try:
            self._ask(http, str(call.pop("method")), call)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            log.warning("Telegram has refused an answer: %s", error)

    def _ask(self, http: urllib3.PoolManager, method: str, fields: Fields) -> object:
        """The result of a method of the Bot API. Raises `ValueError` if Telegram refuses the call."""
        answer = http.request("POST", f"{self._api_url}/bot{self._token}/{method}", json=fields).json()
        if not answer.get("ok"):
            raise ValueError(f"{method}: {answer.get('description')}")
        return cast("object", answer["result"])


def with_token(database: "WSGIApplication") -> "WSGIApplication":
    """The database, and an SSM with the bot's token, for a function that `sam local invoke` runs."""
    token = os.environ.pop("TELEGRAM_TOKEN", "local")

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> "Iterable[bytes]":
        if environ.get("HTTP_X_AMZ_TARGET") == "AmazonSSM.GetParameter":
            return Response(json.dumps(_parameter(token)))(environ, start_response)
        return database(environ, start_response)

    return answer


def _parameter(token: str) -> Fields:
    return {"Parameter": {"Value": token}}


def start(parameters: dict[str, str]) -> Chats | None:
    """Prepare for the chats that the stack's parameters list; set the parameters that the functions need for them."""
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
