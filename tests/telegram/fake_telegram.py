"""Telegram's Bot API as an HTTP server, with the limits and failures that the bot has to cope with."""

import importlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from heapq import heappop, heappush
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import NamedTuple, cast

from infra.local.gateway import Context
from tests.telegram.chat import CHAT, buttons, call

TOKEN = "123456:AAtheTokenOfTheBot"  # noqa: S105 (only this server accepts it)
OTHER = 4567
"""Another chat in infra.openapi.INTEGRATIONS."""
LIMIT = 20
"""Calls per minute and chat: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this"""

Fields = dict[str, object]


class Clock:
    """Virtual time, which passes only while all threads that `run` has started sleep."""

    def __init__(self) -> None:
        self.now: float = 1_795_428_000
        self._order = count()
        self._sleeping: list[tuple[float, int, threading.Event]] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        turn = self._wake_in(seconds)
        self._wake_next()
        turn.wait()

    def run(self, *works: Callable[[], None]) -> None:
        """Run these in threads, one at a time, until all have ended; raise the first error."""
        with ThreadPoolExecutor(len(works)) as threads:
            tasks = [threads.submit(self._run, work, self._wake_in(0)) for work in works]
            self._wake_next()
        for task in tasks:
            task.result()

    def _run(self, work: Callable[[], None], turn: threading.Event) -> None:
        turn.wait()
        try:
            work()
        finally:
            if self._sleeping:
                self._wake_next()

    def _wake_in(self, seconds: float) -> threading.Event:
        turn = threading.Event()
        heappush(self._sleeping, (self.now + seconds, next(self._order), turn))
        return turn

    def _wake_next(self) -> None:
        wake, _, turn = heappop(self._sleeping)
        self.now = max(self.now, wake)
        turn.set()


class RealClock(Clock):
    def time(self) -> float:
        return time.time()


class Answer(NamedTuple):
    """What Telegram answers; by default it closes the connection without an answer."""

    status: int = 0
    body: str = ""
    header: bytes = b""
    done: bool = False
    """Whether it does what was asked before it fails."""
    stalls: bool = False


def refused(status: int, description: str, **parameters: int) -> Answer:
    answer = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    return Answer(status, json.dumps(answer))


class Telegram:
    """Chats and the bot's messages in them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.chats: dict[int, dict[int, Fields]] = {}
        """The messages of each chat as they are shown now, by their numbers."""
        self.calls: list[Fields] = []
        """Every call, with `method` and its time as `at`."""
        self.faults: list[Answer] = []
        """The failures of the next calls."""
        self.faults_of: dict[int, Answer] = {}
        """The failure of every call about a chat."""
        self.updates: list[Fields] = []
        """The updates for `getUpdates`."""
        self.throttled = 0
        self.over = threading.Event()
        """Ends the faults that stall."""
        self._numbers = count(1001)

    def shown(self, chat: int = CHAT) -> list[str]:
        """The texts of a chat's messages, oldest first."""
        return [str(message["text"]) for message in self.chats.get(chat, {}).values()]

    def methods(self, chat: int = CHAT) -> list[str]:
        return [str(each["method"]) for each in self.calls if each.get("chat_id") == chat]

    def buttons(self, number: int) -> dict[str, str]:
        """The buttons below a message in `CHAT`."""
        message = {name: value for name, value in self.chats[CHAT][number].items() if name != "message_id"}
        return buttons(call({"method": "sendMessage", **message}))

    def answer(self, method: str, fields: Fields) -> Answer:
        """Handle a call: its answer, or its failure."""
        if method == "getMe":
            return succeeded({"id": 1, "is_bot": True, "username": "incidents_bot"})
        if method == "getUpdates":
            waiting = [each for each in self.updates if cast("int", each["update_id"]) >= cast("int", fields["offset"])]
            if not waiting:
                self.over.wait(0.1)
            return succeeded(waiting)
        now = self.clock.time()
        self.calls.append({"method": method, "at": now, **fields})
        if method == "answerCallbackQuery":
            return succeeded(result=True)
        chat = cast("int", fields["chat_id"])
        fault = self.faults_of.get(chat) or (self.faults.pop(0) if self.faults else None)
        if fault and not fault.done:
            return fault
        times = [cast("float", each["at"]) for each in self.calls if each.get("chat_id") == chat]
        last_minute = [at for at in times if at > now - 60]
        if len(last_minute) > LIMIT:
            self.throttled += 1
            self.calls.pop()
            wait = int(last_minute[-LIMIT - 1] + 61 - now)
            return refused(429, f"Too Many Requests: retry after {wait}", retry_after=wait)
        answer = self._post(chat, method, fields)
        return fault or answer

    def _post(self, chat: int, method: str, fields: Fields) -> Answer:
        messages = self.chats.setdefault(chat, {})
        number = cast("int", fields.get("message_id")) or next(self._numbers)
        if method == "editMessageText":
            if number not in messages:
                return refused(400, "Bad Request: message to edit not found")
            if all(messages[number].get(name) == fields.get(name) for name in ("text", "reply_markup")):
                return refused(400, "Bad Request: message is not modified: specified new message content is the same")
        messages[number] = messages.get(number, {}) | fields
        return succeeded({"message_id": number, "date": int(self.clock.time()), "chat": {"id": chat}})

    def assert_valid(self) -> None:
        """Check that Telegram would accept every call."""
        for each in self.calls:
            assert call({name: value for name, value in each.items() if name != "at"})

    @contextmanager
    def listening(self, host: str = "127.0.0.1") -> Iterator[str]:
        """Serve; yield the address."""
        server = ThreadingHTTPServer((host, 0), type("Connection", (_Connection,), {"telegram": self}))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            self.over.set()
            server.shutdown()
            thread.join()
            server.server_close()


def succeeded(result: object) -> Answer:
    return Answer(200, json.dumps({"ok": True, "result": result}))


class _Connection(BaseHTTPRequestHandler):
    telegram: Telegram

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        fields: Fields = json.loads(content) if self.headers["Content-Type"] == "application/json" else {}
        _, bot, method = self.path.split("/")
        known = bot == f"bot{TOKEN}"
        answer = self.telegram.answer(method, fields) if known else refused(401, "Unauthorized")
        if answer.stalls:
            self.telegram.over.wait()
        if answer.status:
            with suppress(ConnectionError):  # the client may have given up
                self._send(answer)

    def _send(self, answer: Answer) -> None:
        content = answer.body.encode()
        self.send_response(answer.status)
        self.flush_headers()
        self.wfile.write(answer.header)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def notify(*ids: str, timeout: float = 120) -> None:
    """Hand notify_telegram records about these incidents. The timeout is in seconds."""
    handle({"Records": [{"dynamodb": {"Keys": {"id": {"S": each}}}} for each in ids]}, timeout)


def handle(event: dict[str, object], timeout: float = 120, request_id: str = "") -> None:
    """Call notify_telegram."""
    context = Context(timeout)
    context.aws_request_id = request_id or context.aws_request_id
    importlib.import_module("telegram.notify_telegram").handler(event, context)
