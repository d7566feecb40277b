"""POST /telegram: a Telegram bot's webhook. The response to an update is the one call that the bot makes.

Telegram repeats an update for up to 24 hours, and holds back later ones of the same chat, until it gets a 2xx. The response is
therefore a 200, even if the update asks for nothing or for what cannot be done, and a 503 only if DynamoDB fails. A repeated
update changes nothing.

https://core.telegram.org/bots/api#making-requests-when-getting-updates
"""

import cold_start  # noqa: F401 (it acts when it is imported)

import os
import re
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

import store
from api import Api
from incident import (
    ACTIVE,
    ID_PATTERN,
    Change,
    HistoryEntry,
    Incident,
    IncidentNotFound,
    NewIncident,
    Source,
    Status,
    TooManyChanges,
    VersionConflict,
    derived_id,
)
from telegram import messages
from telegram.messages import Words

MAX_BODY = 1024 * 1024
"""Bytes, far more than an update has: Telegram would repeat a refused one, and get the same response."""

app = Api(MAX_BODY)
handler = app.resolve

CHATS = set(os.environ["TELEGRAM_CHATS"].split(","))
"""The ids of the chats that are served."""

COMMAND = re.compile(
    r"/incident(?P<s>s?)(?:_(?P<id>[0-9a-f]{32}))?(?:@\w+)?(?:\s+(?P<text>.*))?", re.DOTALL | re.IGNORECASE
)
"""For `fullmatch`: `s` in /incidents, the id that is part of the command, and the text after it."""

BUTTON = re.compile(
    rf"(?P<action>{'|'.join(Status)}|{messages.REFRESH}):(?P<id>{ID_PATTERN}):(?P<version>[1-9]\d{{0,8}})", re.ASCII
)
"""For `fullmatch`: the status that a button sets, its incident, and the version that its message shows."""

Method = dict[str, object]
"""A call of a method of the Bot API, its name as `method`."""


class _Object(BaseModel):
    """An object of the Bot API, as far as it is used here. An update that is not of this shape is ignored."""

    model_config = ConfigDict(strict=True)


def _encodable(text: str) -> str:
    text.encode()  # a UnicodeEncodeError is a ValueError, of which pydantic makes a ValidationError
    return text


_Text = Annotated[str, AfterValidator(_encodable)]
"""Without half of a surrogate pair, which JSON can write and UTF-8 cannot."""


class _Chat(_Object):
    id: int


class _User(_Object):
    id: int
    first_name: _Text = ""
    last_name: _Text = ""
    language_code: _Text = ""


class _RepliedTo(_Object):
    message_id: int
    text: _Text = ""
    caption: _Text = ""


class _Message(_RepliedTo):
    chat: _Chat
    sender: _User = Field(alias="from")
    message_thread_id: int | None = None
    is_topic_message: bool = False
    reply_to_message: _RepliedTo | None = None


class _ButtonsMessage(_Object):
    """The message that a button belongs to. Telegram leaves out its text and sender when it is old."""

    message_id: int
    chat: _Chat


class _CallbackQuery(_Object):
    """A tap on a button."""

    id: _Text
    sender: _User = Field(alias="from")
    message: _ButtonsMessage
    data: _Text


class _Update(_Object):
    message: _Message | None = None
    callback_query: _CallbackQuery | None = None


@app.post(
    "/telegram",
    summary="Receive an update from Telegram",
    description="The webhook of a Telegram bot: it records incidents, lists them and changes their status, in the chats that "
    "the stack's parameter `TelegramChats` lists. The response is a call of a method of the Bot API, or an empty object.",
)
def receive_telegram(
    update: Annotated[dict[str, object], Body(description="An `Update` of Telegram's Bot API.")],
) -> Response[Method]:
    """Do what a message or a button asks for, and say so."""
    try:
        known = _Update.model_validate(update)
    except ValidationError:
        known = _Update()
    method = None
    if known.message and _is_served(known.message.chat):
        method = _answer_message(known.message)
    elif known.callback_query and _is_served(known.callback_query.message.chat):
        method = _answer_button(known.callback_query)
    if method is None:
        app.count("UpdatesIgnored")
    return Response(HTTPStatus.OK, "application/json", method or {})


def _is_served(chat: _Chat) -> bool:
    if str(chat.id) in CHATS:
        return True
    # To add it to the parameter. A chat's id also changes when a group becomes a supergroup.
    app.log(chat_id=str(chat.id))
    return False


def _answer_message(message: _Message) -> Method | None:
    """What a command asks for; None for a message that is not a command of this bot."""
    command = COMMAND.fullmatch(message.text or message.caption)
    if not command:
        return None
    words = messages.words(message.sender.language_code)
    text = _text(command)
    try:
        if command["s"]:
            return _list(message, words, before=_id(command))
        if incident_id := _id(command) or _id_in(text):
            return _send_incident(message, words, incident_id)
    except IncidentNotFound:
        return _send(message, words.not_found)
    if text:
        return _record(message, words, text, message.message_id)
    if (replied := message.reply_to_message) and (text := _report_in(replied)):
        return _record(message, words, text, replied.message_id)
    return _send(message, words.usage)


def _id(command: re.Match[str]) -> str:
    """The id in the command's name."""
    return str(UUID(command["id"])) if command["id"] else ""


def _text(command: re.Match[str]) -> str:
    return (command["text"] or "").strip()


def _id_in(text: str) -> str:
    """The id that a text consists of."""
    return text.lower() if re.fullmatch(ID_PATTERN, text.lower()) else ""


def _report_in(message: _RepliedTo) -> str:
    """The report that a message holds, without the command if it has one."""
    text = message.text or message.caption
    command = COMMAND.fullmatch(text)
    return _text(command) if command else text


def _list(message: _Message, words: Words, before: str) -> Method:
    """The newest active incidents; where an id is given, of those that are older than this one."""
    position = store.get(before).position if before else ""
    return _send(message, messages.list_text(words, store.newest(ACTIVE, messages.MAX_LISTED, position)))


def _record(message: _Message, words: Words, text: str, message_id: int) -> Method:
    """Record a report, once for each message that holds one, whoever asks for it and however often."""
    try:
        new = NewIncident(description=text, source=app.source or Source.OPERATOR)
    except ValidationError:
        return _send(message, words.not_a_report)
    incident = Incident.report(new, id=derived_id("telegram-message", str(message.chat.id), str(message_id)))
    if store.add(incident, _by(message.sender)) == incident:
        app.count("IncidentsCreated", source=incident.source)
    else:
        app.count("Replays")
    return _send_incident(message, words, incident.id)


def _answer_button(query: _CallbackQuery) -> Method:
    words = messages.words(query.sender.language_code)
    button = BUTTON.fullmatch(query.data)
    if not button:
        return _alert(query, words.unknown_button)
    version = int(button["version"])
    try:
        if button["action"] == messages.REFRESH:
            return _refresh(query, words, button["id"], version)
        return _set_status(query, words, Status(button["action"]), button["id"], version)
    except IncidentNotFound:
        return _alert(query, words.not_found)
    except TooManyChanges:
        app.count("Conflicts")
        return _alert(query, words.too_many_changes)


def _refresh(query: _CallbackQuery, words: Words, id: str, version: int) -> Method:
    incident, history = store.get_with_history(id)
    if incident.version == version:
        return _alert(query, words.up_to_date)  # Telegram refuses an edit that changes nothing
    return _edit(query, words, incident, history)


def _set_status(query: _CallbackQuery, words: Words, status: Status, id: str, version: int) -> Method:
    by = _by(query.sender)
    try:
        changed, before = store.change(id, Change(status=status), by, version)
    except VersionConflict:
        incident, history = store.get_with_history(id)
        # Telegram repeats a tap whose answer it did not get. Others may have changed the incident since.
        repeated = any((entry.version, entry.status, entry.by) == (version + 1, status, by) for entry in history)
        if not repeated:
            app.count("Conflicts")
            return _alert(query, messages.conflict_alert(words, history[-1]))
    else:
        if before:
            app.count_change(before, changed)
        incident, history = store.get_with_history(id)
    return _edit(query, words, incident, history)


def _by(user: _User) -> str:
    """The user in a history: at most 100 characters and 200 bytes of UTF-8, as the store wants it."""
    name = " ".join(f"{user.first_name} {user.last_name}".split())
    return f"telegram:{user.id} {name}"[:100].encode()[:200].decode(errors="ignore").strip()


def _send(message: _Message, text: str, keyboard: messages.Keyboard | None = None) -> Method:
    """Reply to a message, in its topic if the group has topics."""
    method: Method = {
        "method": "sendMessage",
        "chat_id": message.chat.id,
        "text": text,
        "link_preview_options": {"is_disabled": True},
        "reply_parameters": {"message_id": message.message_id, "allow_sending_without_reply": True},
    }
    if message.is_topic_message and message.message_thread_id:
        method["message_thread_id"] = message.message_thread_id
    if keyboard:
        method["reply_markup"] = keyboard
    return method


def _send_incident(message: _Message, words: Words, id: str) -> Method:
    incident, history = store.get_with_history(id)
    app.log(incident_id=id)
    return _send(message, messages.incident_text(words, incident, history), messages.keyboard(words, incident))


def _edit(query: _CallbackQuery, words: Words, incident: Incident, history: list[HistoryEntry]) -> Method:
    """Bring the button's message up to date."""
    app.log(incident_id=incident.id)
    return {
        "method": "editMessageText",
        "chat_id": query.message.chat.id,
        "message_id": query.message.message_id,
        "text": messages.incident_text(words, incident, history),
        "link_preview_options": {"is_disabled": True},
        "reply_markup": messages.keyboard(words, incident),
    }


def _alert(query: _CallbackQuery, text: str) -> Method:
    return {"method": "answerCallbackQuery", "callback_query_id": query.id, "text": text, "show_alert": True}
