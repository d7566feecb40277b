"""Announce incidents and their changes in the Telegram chats, remind them of what is still open, and pass on alarms.

A function on the table's stream. A record only says that an incident has changed: the function reads the incident and updates
each chat's message to its current version, so repeated, late and merged records need no special handling. A failure that may
pass raises an exception, and Lambda sends the whole batch again.

https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-eventsourcemapping.html
"""

import cold_start

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import log
import store
from incident import ACTIVE, DamagedItem, Incident, IncidentNotFound
from telegram import bot, deliveries, messages
from telegram.bot import ChatMoved, ChatUnreachable, MessageGone, Refused, TryLater
from telegram.messages import Method
from telegram.update import Place

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

CHATS = os.environ["TELEGRAM_CHATS"].split(",")
WORDS = messages.words(os.environ["TELEGRAM_LANGUAGE"])

MAX_SINGLES = 8
"""The most new incidents of a batch that get a message each."""

RESERVE = 15
"""Seconds. Every wait ends at least this long before the function's timeout: a call and storing its result may take as long."""

PAGE = 1000
"""Incidents that the reminder reads per page."""


class _Record(TypedDict, total=False):
    """A record of the stream, or of the alarms' topic."""

    dynamodb: dict[str, dict[str, dict[str, str]]]
    Sns: dict[str, str]


class Invocation:
    """The deadline, the metrics and the log line of one invocation."""

    def __init__(self, context: "LambdaContext") -> None:
        self._deadline = time.time() + context.get_remaining_time_in_millis() / 1000 - RESERVE
        self.id = context.aws_request_id
        """The same when Lambda retries an event that did not come from the stream."""
        self._counts: Counter[str] = Counter()

    def count(self, metric: str) -> None:
        self._counts[metric] += 1

    def log(self, **fields: str) -> None:
        """Write a log line about a part of the work."""
        log.Line(request_id=self.id, **fields).write()

    def skip(self, id: str, reason: str) -> None:
        """Count and log what can never be announced."""
        self.count("NotificationsSkipped")
        self.log(incident_id=id, skipped=reason)

    def finish(self) -> None:
        """Write the log line about the whole invocation."""
        line = log.Line(request_id=self.id)
        for metric, number in self._counts.items():
            line.count(metric, number)
        if error := sys.exception():
            line.add(exception=type(error).__name__, **({"reason": str(error)} if isinstance(error, TryLater) else {}))
        line.write()

    def wait(self, seconds: float) -> None:
        """Wait, or raise `TryLater` if there is not enough time."""
        if time.time() + seconds > self._deadline:
            raise TryLater("no time to wait", seconds)
        time.sleep(seconds)


def handler(event: dict[str, list[_Record]], context: "LambdaContext") -> None:
    """Handle records of the stream, an alarm, or the schedule, which has no records.

    Raises `TryLater` or `Unavailable` so that Lambda retries it.
    """
    invocation = Invocation(context)
    try:
        records = event.get("Records")
        if records is None:
            _for_each_chat(invocation, _remind)
        elif "Sns" in records[0]:
            text = messages.alarm_text(records[0]["Sns"]["Message"])  # SNS sends one at a time
            _for_each_chat(invocation, partial(_send_once, text))
        else:
            changed = _read([record["dynamodb"]["Keys"]["id"]["S"] for record in records], invocation)
            _for_each_chat(invocation, partial(_notify, changed))
    finally:
        invocation.finish()


def _for_each_chat(invocation: Invocation, notify: Callable[["Destination"], None]) -> None:
    """Notify every chat in its own thread, so that none waits for another; then raise the first error."""
    # Both ids of a group that has become a supergroup may be listed. The one that moved knows both.
    listed = sorted((Destination(chat, invocation) for chat in CHATS), key=lambda each: each.has_moved)
    destinations = {each.chat: each for each in listed}.values()
    with ThreadPoolExecutor(len(destinations)) as threads:
        tasks = [threads.submit(notify, destination) for destination in destinations]
    for task in tasks:
        task.result()


class Changed(NamedTuple):
    """An incident that has changed, and the message that reported it, if any."""

    incident: Incident
    origin: Place | None
    is_imported: bool = False
    """Whether it has not changed since `make import` stored it."""


def _read(ids: Iterable[str], invocation: Invocation) -> list[Changed]:
    """The incidents, oldest first. One that cannot be read is skipped."""
    changed = []
    for incident_id, stored in store.get_many(ids).items():
        if stored.incident:
            imported = f"import#{stored.incident.version}"
            changed.append(Changed(stored.incident, Place.parse(stored.origin), stored.origin == imported))
        else:
            invocation.skip(incident_id, "no incident")
    return sorted(changed, key=lambda each: each.incident.position)


class Destination:
    """A chat in which incidents are announced."""

    def __init__(self, chat: str, invocation: Invocation) -> None:
        self.invocation = invocation
        self._configured = chat
        self.chat = deliveries.current_name(chat)

    @property
    def id(self) -> int:
        return int(self.chat.partition("/")[0])

    @property
    def has_moved(self) -> bool:
        """Whether the chat is listed by the id of the group that it was."""
        return self.chat != self._configured

    def has_reported(self, changed: Changed) -> bool:
        """Whether the incident was reported in this chat."""
        return changed.origin is not None and changed.origin.chat in (self.id, int(self._configured.partition("/")[0]))

    def send(self, text: str, keyboard: messages.Keyboard | None = None, reply_to: Place | None = None) -> int:
        """Send a message to the chat's topic, or as a reply; return its number."""
        method: Method = {"method": "sendMessage", **messages.content(text, keyboard)}
        thread = reply_to.thread if reply_to else int(self.chat.partition("/")[2] or 0)
        if reply_to:
            method["reply_parameters"] = {"message_id": reply_to.message, "allow_sending_without_reply": True}
        if thread:
            method["message_thread_id"] = thread
        return self._call(method)

    def edit(self, message: int, text: str, keyboard: messages.Keyboard | None = None) -> int:
        """Edit a message, or send a new one if it is gone; return the number of the message that shows the text."""
        try:
            self._call({"method": "editMessageText", "message_id": message, **messages.content(text, keyboard)})
        except MessageGone:
            self.claim()
            return self.send(text, keyboard)
        return message

    def claim(self) -> None:
        """Wait until another call is allowed, and claim it."""
        while wait := deliveries.claim_call(self.chat, time.time()):
            self.invocation.wait(wait)

    def log_unreachable(self, error: Exception) -> None:
        self.invocation.log(chat_id=self.chat, unreachable=str(error))

    def _call(self, method: Method) -> int:
        try:
            self.invocation.count("TelegramCalls")
            return bot.call(method | {"chat_id": self.id})
        except ChatMoved as moved:
            deliveries.remember_move(self._configured, moved.chat_id)
            raise TryLater("the group has become a supergroup") from moved
        except TryLater as error:
            if error.seconds:
                deliveries.pause(self.chat, time.time() + error.seconds)
            raise


def _notify(changed: list[Changed], to: Destination) -> None:
    """Bring the chat's messages about these incidents up to date."""
    known = deliveries.read(to.chat, (each.incident.id for each in changed))
    new: list[Changed] = []
    edited: list[tuple[Changed, int]] = []
    digests: dict[int, list[Incident]] = {}
    for each in changed:
        incident = each.incident
        before = known[incident.id]
        if before.digest:
            digests.setdefault(before.digest, []).append(incident)
        if before.message and before.shown < incident.version:
            edited.append((each, before.message))
        # The response to the report already shows version 1.
        announced = before.message or before.digest or (incident.version == 1 and to.has_reported(each))
        if not announced and not each.is_imported:
            new.append(each)
    try:
        rest = new if len(new) > MAX_SINGLES else _announce(new, to)
        if rest:
            digests.setdefault(deliveries.open_digest(to.chat, time.time()), []).extend(each.incident for each in rest)
        for number, incidents in digests.items():
            _update_digest(number, incidents, to)
        for each, message in edited:
            to.claim()
            _show(each, to, message)
    except ChatUnreachable as error:
        to.invocation.count("ChatsUnreachable")
        to.log_unreachable(error)


def _announce(new: list[Changed], to: Destination) -> list[Changed]:
    """Send a message for each until the chat has had too many; return the rest. The last one is always sent."""
    for place, each in enumerate(new):
        last = len(new) == place + 1
        limit = deliveries.MAX_CALLS if last else deliveries.MAX_SINGLE_CALLS
        while wait := deliveries.claim_call(to.chat, time.time(), limit):
            if wait > deliveries.CALL_INTERVAL and not last:
                return new[place:]
            to.invocation.wait(wait)
        _show(each, to)
    return []


def _show(changed: Changed, to: Destination, message: int = 0) -> None:
    """Show an incident in its message, or in a new one, which replies to the report if the chat has it."""
    try:
        incident, history = store.get_with_history(changed.incident.id)
    except IncidentNotFound:
        return
    except DamagedItem:
        to.invocation.skip(changed.incident.id, "damaged history")
        return
    text, keyboard = messages.incident_text(WORDS, incident, history), messages.keyboard(WORDS, incident)
    try:
        message = to.edit(message, text, keyboard) if message else _send_new(changed, to, text, keyboard)
    except Refused as error:
        to.invocation.skip(incident.id, str(error))
    else:
        deliveries.remember(to.chat, incident.id, message, incident.version)


def _send_new(changed: Changed, to: Destination, text: str, keyboard: messages.Keyboard) -> int:
    if to.has_reported(changed):
        try:
            return to.send(text, keyboard, changed.origin)
        except ChatUnreachable:  # the topic of the report may have been closed
            to.claim()
    return to.send(text, keyboard)


def _update_digest(number: int, incidents: list[Incident], to: Destination) -> None:
    """Count these incidents in a digest, and update its message."""
    deliveries.add_to_digest(to.chat, number, incidents)
    while (digest := deliveries.digest(to.chat, number)).shown < digest.changes:
        claimed = time.time()
        if wait := deliveries.claim_digest(to.chat, number, claimed):
            to.invocation.wait(wait)  # another function may update the message meanwhile
            continue
        to.claim()
        if deliveries.claim_digest(to.chat, number, time.time(), claimed):
            continue  # another function claimed it while this one waited
        digest = deliveries.digest(to.chat, number)
        stored = store.get_many(digest.first)
        named = [each for each in (stored[first].incident for first in digest.first if first in stored) if each]
        text = messages.digest_text(WORDS, digest.total, digest.active, named)
        try:
            message = to.edit(digest.message, text) if digest.message else to.send(text)
        except Refused as error:
            to.invocation.skip(f"digest {number}", str(error))
            break
        deliveries.remember_digest(to.chat, number, message, digest.changes, time.time())


def _remind(to: Destination) -> None:
    """Remind the chat of what is open or in progress, and name what was never announced."""
    active: list[Incident] = []
    while page := store.newest(ACTIVE, PAGE, active[-1].position if active else ""):
        active += page
    if active:
        active.reverse()
        unannounced = [each.incident for each in _unannounced(active) if not to.has_reported(each)]
        _send_once(messages.reminder_text(WORDS, active, unannounced), to)


def _unannounced(active: list[Incident]) -> list[Changed]:
    """Those of the incidents that no message in any chat shows or counts."""
    shown: set[str] = set()
    for chat in map(deliveries.current_name, CHATS):
        known = deliveries.read(chat, [each.id for each in active])
        digests = {each.digest for each in known.values() if each.digest}
        sent = {number for number in digests if deliveries.digest(chat, number).message}
        shown |= {incident_id for incident_id, each in known.items() if each.message or each.digest in sent}
    rest = [each for each in active if each.id not in shown]
    stored = store.get_many(each.id for each in rest)
    return [Changed(each, Place.parse(stored[each.id].origin)) for each in rest if each.id in stored]


def _send_once(text: str, to: Destination) -> None:
    """Send a text to the chat, unless an earlier attempt did."""
    if deliveries.is_event_delivered(to.chat, to.invocation.id):
        return
    try:
        to.claim()
        to.send(text)
    except (ChatUnreachable, Refused) as error:
        # Not counted: otherwise the alarm about unreachable chats would be raised again by its own message.
        to.log_unreachable(error)
    else:
        deliveries.remember_event(to.chat, to.invocation.id)


cold_start.finish()
