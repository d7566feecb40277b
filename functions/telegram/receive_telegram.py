"""POST /telegram: a Telegram bot's webhook. The response to an update is the bot's call.

Telegram repeats an update for up to 24 hours, and holds back later ones of the same chat, until it gets a 2xx. The response is
therefore a 200 even if the update is ignored or can never succeed, and a 503 only if DynamoDB fails. A repeated update changes
nothing.

https://core.telegram.org/bots/api#making-requests-when-getting-updates
"""

import cold_start  # noqa: F401 (it acts when it is imported)

import os
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import ValidationError

import store
from api import Api
from incident import (
    ACTIVE,
    Change,
    DamagedItem,
    HistoryEntry,
    Incident,
    IncidentNotFound,
    NewIncident,
    Source,
    Status,
    TooManyChanges,
    TooManyComments,
    VersionConflict,
)
from telegram import deliveries, messages
from telegram.messages import Method, Words
from telegram.update import (
    CallbackQuery,
    Chat,
    Message,
    RepliedTo,
    Report,
    Update,
    button_in,
    command_in,
    report_in,
)

MAX_BODY = 1024 * 1024
"""Bytes, far more than an update has: Telegram would repeat a refused update for a day."""

app = Api(MAX_BODY)
handler = app.resolve

CHATS = {each.partition("/")[0]: each for each in reversed(os.environ["TELEGRAM_CHATS"].split(","))}
"""The chats that are served, by id. Each is named as in the parameter's first mention, with its topic if it has one."""

# A deployment may update the code before the environment.
NOTIFIES = bool(os.environ.get("TELEGRAM_TOKEN_PARAMETER"))
"""Whether notify_telegram updates the messages that it knows."""

FAILURES = (DamagedItem, IncidentNotFound, TooManyChanges, TooManyComments)
"""The errors that are reported to the user."""


@app.post(
    "/telegram",
    summary="Receive an update from Telegram",
    description="The webhook of a Telegram bot: it records incidents, lists them, changes their status and takes comments, in the "
    "chats that the stack's parameter `TelegramChats` lists. The response is a call of a method of the Bot API, or an empty object.",
)
def receive_telegram(
    update: Annotated[dict[str, object], Body(description="An `Update` of Telegram's Bot API.")],
) -> Response[Method]:
    """Handle a message or a tap; ignore any other update."""
    try:
        known = Update.model_validate(update)
    except ValidationError:
        known = Update()
    message, query = known.message, known.callback_query
    method = None
    if message and _is_served(message.chat):
        words = messages.words(message.sender.language_code)
        try:
            method = _answer_message(message, words)
        except FAILURES as error:
            method = _send(message, _failure(error, words))
    elif query and _is_served(query.message.chat):
        words = messages.words(query.sender.language_code)
        try:
            method = _answer_button(query, words)
        except FAILURES as error:
            method = _alert(query, _failure(error, words))
    if method is None:
        app.line.count("UpdatesIgnored")
    return Response(HTTPStatus.OK, "application/json", method or {})


def _is_served(chat: Chat) -> bool:
    if str(chat.id) in CHATS:
        return True
    # Shows which id to add to the parameter; it changes when a group becomes a supergroup.
    app.line.add(chat_id=str(chat.id))
    return False


def _failure(error: Exception, words: Words) -> str:
    """Count a failure; return the text about it."""
    if isinstance(error, IncidentNotFound):
        return words.not_found
    if isinstance(error, DamagedItem):
        app.line.count("DamagedItems")
        return words.damaged
    app.line.count("Conflicts")
    return words.too_much


def _answer_message(message: Message, words: Words) -> Method | None:
    """The response to a command or a comment; None for any other message."""
    command = command_in(message.content)
    if not command:
        replied = message.reply_to_message
        commented = message.commented_id
        return _comment(message, words, commented, replied) if replied and commented else None
    if command.lists:
        return _list(message, words, before=command.id)
    # The command alone, as a reply to the bot's message about an incident, asks for that incident.
    shown = command.id or ("" if command.text or message.quote else message.commented_id)
    if shown:
        return _send_incident(message, words, shown)
    report = report_in(message, command)
    return _record(message, words, report) if report else _send(message, words.usage)


def _list(message: Message, words: Words, before: str) -> Method:
    """List the newest active incidents; if an id is given, the newest of those that are older than this incident."""
    position = store.get(before).position if before else ""
    return _send(message, messages.list_text(words, store.newest(ACTIVE, messages.MAX_LISTED, position)))


def _record(message: Message, words: Words, report: Report) -> Method:
    """Record a report once, no matter who sends the command and how often."""
    try:
        new = NewIncident(description=report.text, source=app.source or Source.OPERATOR)
    except ValidationError:
        return _send(message, words.not_a_report)
    for incident_id in report.ids:
        incident = Incident.report(new, id=incident_id)
        stored = store.add(incident, message.author, str(message.place))
        if stored.description == incident.description:
            break
    if stored == incident:
        app.line.count("IncidentsCreated", source=incident.source)
    else:
        app.line.count("Replays")
    return _send_incident(message, words, incident.id)


def _comment(message: Message, words: Words, id: str, replied: RepliedTo) -> Method:
    """Add a message to an incident as a comment, once, and acknowledge it with a reaction."""
    by = message.author
    try:
        change = Change(comment=message.content)
    except ValidationError:
        return _send(message, words.not_a_comment)
    _, history = store.get_with_history(id)
    # Telegram repeats a message if it gets no response, and the incident may have changed since.
    repeated = any(
        (entry.comment, entry.by) == (change.comment, by)
        and datetime.fromisoformat(entry.at).timestamp() >= message.date
        for entry in history
    )
    if not repeated:
        _adopt(message.chat, id, replied.message_id, 0)
        store.change(id, change, by)
    app.line.add(incident_id=id)
    return {
        "method": "setMessageReaction",
        "chat_id": message.chat.id,
        "message_id": message.message_id,
        "reaction": [{"type": "emoji", "emoji": messages.ACKNOWLEDGED}],
    }


def _answer_button(query: CallbackQuery, words: Words) -> Method:
    button = button_in(query.data)
    if not button:
        return _alert(query, words.unknown_button)
    tracked = _adopt(query.message.chat, button.id, query.message.message_id, button.version)
    if button.status:
        return _set_status(query, words, button.status, button.id, button.version, tracked=tracked)
    incident, history = store.get_with_history(button.id)
    if incident.version == button.version:
        return _alert(query, words.up_to_date)  # Telegram refuses an edit that changes nothing
    return _edit(query, words, incident, history)


def _set_status(query: CallbackQuery, words: Words, status: Status, id: str, version: int, *, tracked: bool) -> Method:
    """Set a status, and edit the message unless it is `tracked`: then notify_telegram edits it."""
    by = query.sender.author
    try:
        changed, before = store.change(id, Change(status=status), by, version)
    except VersionConflict:
        _, history = store.get_with_history(id)
        # Telegram repeats a tap if it gets no response, and the incident may have changed since.
        repeated = any((entry.version, entry.status, entry.by) == (version + 1, status, by) for entry in history)
        if not repeated:
            app.line.count("Conflicts")
            return _alert(query, messages.conflict_alert(words, history[-1]))
    else:
        if before:
            app.count_change(before, changed)
        else:
            tracked = False  # nothing changed, so notify_telegram will not update the message, which may be outdated
    if tracked:
        app.line.add(incident_id=id)
        return {"method": "answerCallbackQuery", "callback_query_id": query.id}
    return _edit(query, words, *store.get_with_history(id))


def _adopt(chat: Chat, id: str, message: int, version: int) -> bool:
    """Have notify_telegram update this message, unless the chat has another about the incident; return whether it already did."""
    return NOTIFIES and deliveries.adopt(CHATS[str(chat.id)], id, message, version)


def _send(message: Message, text: str, keyboard: messages.Keyboard | None = None) -> Method:
    """Reply to a message, in its topic if the group has topics."""
    method: Method = {
        "method": "sendMessage",
        "chat_id": message.chat.id,
        "reply_parameters": {"message_id": message.message_id, "allow_sending_without_reply": True},
        **messages.content(text, keyboard),
    }
    if message.thread:
        method["message_thread_id"] = message.thread
    return method


def _send_incident(message: Message, words: Words, id: str) -> Method:
    incident, history = store.get_with_history(id)
    app.line.add(incident_id=id)
    return _send(message, messages.incident_text(words, incident, history), messages.keyboard(words, incident))


def _edit(query: CallbackQuery, words: Words, incident: Incident, history: list[HistoryEntry]) -> Method:
    """Update the button's message."""
    app.line.add(incident_id=incident.id)
    return {
        "method": "editMessageText",
        "chat_id": query.message.chat.id,
        "message_id": query.message.message_id,
        **messages.content(messages.incident_text(words, incident, history), messages.keyboard(words, incident)),
    }


def _alert(query: CallbackQuery, text: str) -> Method:
    return {"method": "answerCallbackQuery", "callback_query_id": query.id, "text": text, "show_alert": True}
