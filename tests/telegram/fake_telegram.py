"""Telegram's Bot API, as far as the bot uses it: an HTTP server with chats, limits and faults."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from heapq import heappop, heappush
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, cast

from infra.local.gateway import Context
from tests.telegram.chat import call

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

TOKEN = "123456:AAtheTokenOfTheBot"  # noqa: S105 (of this Telegram alone)
LIMIT = 20
"""Calls a minute and chat: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this"""

Fields = dict[str, object]


class Clock:
    """A time that passes only while everybody sleeps. Whoever runs beside others is started by `run`."""

    def __init__(self, now: float = 1_795_428_000) -> None:
        self.now = now
        self._order = count()
        self._sleeping: list[tuple[float, int, threading.Event]] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        turn = threading.Event()
        heappush(self._sleeping, (self.now + seconds, next(self._order), turn))
        self._wake_next()
        turn.wait()

    def run(self, *works: Callable[[], None]) -> None:
        """Run these side by side, one at a time, until all are done; raise the first error."""
        failed: list[BaseException] = []

        def work_in_turn(work: Callable[[], None], turn: threading.Event) -> None:
            turn.wait()
            try:
                work()
            except BaseException as error:
                failed.append(error)
            if self._sleeping:
                self._wake_next()

        turns = [threading.Event() for _ in works]
        for turn in turns:
            heappush(self._sleeping, (self.now, next(self._order), turn))
        threads = [
            threading.Thread(target=work_in_turn, args=each, daemon=True) for each in zip(works, turns, strict=True)
        ]
        for thread in threads:
            thread.start()
        self._wake_next()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def _wake_next(self) -> None:
        wake, _, turn = heappop(self._sleeping)
        self.now = max(self.now, wake)
        turn.set()


class RealClock(Clock):
    """The time as it is."""

    @property
    def now(self) -> float:
        return time.time()

    @now.setter
    def now(self, value: float) -> None:
        pass


class Fault(NamedTuple):
    """What becomes of a call instead of its success."""

    name: str
    status: int = 0  # 0: the connection is cut
    body: str = ""
    done: bool = False
    stalls: bool = False
    header: bytes = b""

    def __repr__(self) -> str:
        return self.name


def refused(status: int, description: str, **parameters: int) -> Fault:
    answer = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    return Fault(description, status, json.dumps(answer))


class Telegram:
    """Chats and the bot's messages in them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.chats: dict[int, dict[int, Fields]] = {}
        """The messages of each chat by their numbers, as they are shown now."""
        self.calls: list[Fields] = []
        """Every call that reached it, with its method and its time."""
        self.faults: list[Fault | None] = []
        """What becomes of the next calls."""
        self.faults_of: dict[int, Fault] = {}
        """What becomes of every call about a chat."""
        self.updates: list[Fields] = []
        """What the bot has not fetched yet."""
        self.throttled = 0
        self.over = threading.Event()
        self._numbers = count(1001)

    def shown(self, chat: int) -> list[str]:
        """The texts of a chat's messages, oldest first."""
        return [str(message["text"]) for message in self.chats.get(chat, {}).values()]

    def methods(self, chat: int) -> list[str]:
        return [str(each["method"]) for each in self.calls if each.get("chat_id") == chat]

    def answer(self, method: str, fields: Fields) -> tuple[Fault | None, int, Fields]:
        """What befalls a call, and the answer to it."""
        if method == "getMe":
            return None, 200, {"ok": True, "result": {"id": 1, "is_bot": True, "username": "incidents_bot"}}
        if method == "getUpdates":
            waiting = [each for each in self.updates if cast("int", each["update_id"]) >= cast("int", fields["offset"])]
            if not waiting:
                self.over.wait(0.1)
            return None, 200, {"ok": True, "result": waiting}
        self.calls.append({"method": method, "at": self.clock.now, **fields})
        if method == "answerCallbackQuery":
            return None, 200, {"ok": True, "result": True}
        chat = cast("int", fields["chat_id"])
        fault = self.faults_of.get(chat) or (self.faults.pop(0) if self.faults else None)
        if fault and not fault.done:
            return fault, 0, {}
        last_minute = [
            each
            for each in self.calls
            if each.get("chat_id") == chat and cast("float", each["at"]) > self.clock.now - 60
        ]
        if len(last_minute) > LIMIT:
            self.throttled += 1
            self.calls.pop()
            wait = int(cast("float", last_minute[-LIMIT - 1]["at"]) + 61 - self.clock.now)
            return refused(429, f"Too Many Requests: retry after {wait}", retry_after=wait), 0, {}
        status, answer = self._post(chat, method, fields)
        return fault, status, answer

    def _post(self, chat: int, method: str, fields: Fields) -> tuple[int, Fields]:
        messages = self.chats.setdefault(chat, {})
        number = cast("int", fields.get("message_id")) or next(self._numbers)
        if method == "editMessageText":
            if number not in messages:
                return 400, {"ok": False, "error_code": 400, "description": "Bad Request: message to edit not found"}
            known = {name: messages[number].get(name) for name in ("text", "reply_markup")}
            if known == {name: fields.get(name) for name in known}:
                description = "Bad Request: message is not modified: specified new message content is the same"
                return 400, {"ok": False, "error_code": 400, "description": description}
        messages[number] = messages.get(number, {}) | fields
        return 200, {"ok": True, "result": {"message_id": number, "date": int(self.clock.now), "chat": {"id": chat}}}

    def assert_valid(self) -> None:
        """Every call is one that Telegram would accept."""
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


class _Connection(BaseHTTPRequestHandler):
    telegram: Telegram

    def do_POST(self) -> None:
        fields: Fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        _, bot, method = self.path.split("/")
        if bot != f"bot{TOKEN}":
            answer = {"ok": False, "error_code": 401, "description": "Unauthorized"}
            return self._answer(401, json.dumps(answer))
        fault, status, done = self.telegram.answer(method, fields)
        if fault is None:
            return self._answer(status, json.dumps(done))
        if fault.stalls:
            self.telegram.over.wait()
        if fault.status:
            with suppress(ConnectionError):  # the client may have given up
                self._answer(fault.status, fault.body, fault.header)
        return None

    def _answer(self, status: int, body: str, header: bytes = b"") -> None:
        content = body.encode()
        self.send_response(status)
        self.flush_headers()
        self.wfile.write(header)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what comes of it."""


def tell(*ids: str, timeout: float = 120) -> None:
    """Hand notify_telegram records about these incidents."""
    handle({"Records": [{"dynamodb": {"Keys": {"id": {"S": each}}}} for each in ids]}, timeout)


def handle(event: dict[str, object], timeout: float = 120, request_id: str = "") -> None:
    """Call notify_telegram."""
    from telegram import notify_telegram  # here, because the environment is set before a function is imported

    context = Context("NotifyTelegramFunction", timeout)
    context.aws_request_id = request_id or context.aws_request_id
    notify_telegram.handler(cast("notify_telegram._Event", event), cast("LambdaContext", context))
