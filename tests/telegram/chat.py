"""A chat in Telegram: updates as its server sends them, and answers as it would take them, both held to aiogram's models.

aiogram takes three seconds to import, so only what needs it does that, not every process that collects the tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import httpx
from pydantic import BaseModel

if TYPE_CHECKING:
    from aiogram.methods import AnswerCallbackQuery, EditMessageText, SendMessage, SetMessageReaction
    from aiogram.types import InlineKeyboardMarkup

    Call = SendMessage | EditMessageText | AnswerCallbackQuery | SetMessageReaction
    """What the bot may do."""

CHAT = -1001234567890
"""A group that is served: infra.openapi.INTEGRATIONS lists it."""

Fields = Mapping[str, object]
"""An object of Telegram's, by the names of its fields."""

MAX_TEXT = {"sendMessage": 4096, "editMessageText": 4096, "answerCallbackQuery": 200}
"""UTF-16 code units."""
MAX_CALLBACK_DATA = 64
"""Bytes."""

ANNA: Fields = {"id": 11, "is_bot": False, "first_name": "Анна", "last_name": "Петрова", "language_code": "ru"}
BORIS: Fields = {"id": 22, "is_bot": False, "first_name": "Boris", "language_code": "en"}

SENT = 1_795_428_000
"""When every message is sent, so that tests that are named for an update have one name in every process."""


class Chat:
    """A chat, in which people write messages and tap buttons."""

    def __init__(self, id: int = CHAT) -> None:
        self.id = id
        self.chat = {"id": id, "type": "supergroup" if id < 0 else "private"}
        self._updates = 0

    def message(self, text: str = "", by: Fields = ANNA, /, **fields: object) -> Fields:
        """A new message; it need not have a text. `fields` are others of its fields."""
        return {"update_id": self._next(), "message": self.written(text, by, **fields)}

    def written(self, text: str = "", by: Fields = ANNA, /, **fields: object) -> Fields:
        message = {"message_id": self._next(), "date": SENT, "chat": self.chat, "from": by}
        return message | ({"text": text} if text else {}) | fields

    def tap(self, button: str, by: Fields = ANNA, message_id: int = 1) -> Fields:
        """A tap on a button, named by its callback data, below the bot's message."""
        # Telegram tells nothing but this of a message that is old.
        message = {"chat": self.chat, "message_id": message_id, "date": 0}
        query = {"id": str(self._next()), "from": by, "chat_instance": "1", "message": message, "data": button}
        return {"update_id": self._next(), "callback_query": query}

    def _next(self) -> int:
        self._updates += 1
        return self._updates


def body(update: Fields) -> str:
    """An update as Telegram sends it, which has to be one that aiogram knows."""
    from aiogram.types import Update

    sent = json.dumps(update, ensure_ascii=False)
    assert not [field for part in _parts(Update.model_validate_json(sent)) for field in part.model_extra or {}]
    return sent


def deliver(api: httpx.Client, update: Fields | str) -> Call | None:
    """Send an update to the webhook, which takes it; return what the bot is to do."""
    content = update if isinstance(update, str) else body(update)
    response = api.post("/telegram", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    return call(response.json())


def call(answer: dict[str, object]) -> Call | None:
    """The call in an answer, if there is one, which has to be one that Telegram accepts."""
    from aiogram import methods

    if not answer:
        return None
    method = str(answer["method"])
    kind: type[Call] = getattr(methods, method[0].upper() + method[1:])
    # As Telegram reads it: UTF-8, and no half of a surrogate pair in it.
    made = kind.model_validate_json(json.dumps(answer, ensure_ascii=False).encode())
    assert made.model_extra == {"method": method}
    assert not [field for part in _parts(made) for field in part.model_extra or {} if part is not made]
    # The tap on a message that notify_telegram keeps up to date is answered without a text.
    if method in MAX_TEXT and (method != "answerCallbackQuery" or "text" in answer):
        assert text(made) == text(made).strip()
        assert units(text(made)) <= MAX_TEXT[method]
        assert "parse_mode" not in answer
    if isinstance(made, methods.SendMessage | methods.EditMessageText):
        assert answer["chat_id"]
        assert answer["link_preview_options"] == {"is_disabled": True}
    if isinstance(made, methods.EditMessageText):
        assert made.message_id is not None
    for button in buttons(made).values():
        assert 1 <= len(button.encode()) <= MAX_CALLBACK_DATA
    return made


def _parts(model: BaseModel) -> Iterator[BaseModel]:
    yield model
    for _, value in model:
        if isinstance(value, BaseModel):
            yield from _parts(value)


def units(text: str) -> int:
    """The length of a text as Telegram counts it."""
    return len(text.encode("utf-16-le")) // 2


def buttons(made: Call | None) -> dict[str, str]:
    """The callback data of each button below a message, by what is written on it."""
    keyboard = getattr(made, "reply_markup", None)
    if keyboard is None:
        return {}
    rows = cast("InlineKeyboardMarkup", keyboard).inline_keyboard
    shown = [(button.text, button.callback_data or "") for row in rows for button in row]
    assert len(dict(shown)) == len(shown)
    return dict(shown)


def text(made: Call) -> str:
    """What a call says."""
    said: str | None = getattr(made, "text", None)
    assert said
    return said


def sent(made: Call | None) -> SendMessage:
    """A call that has to send a message."""
    from aiogram.methods import SendMessage

    assert isinstance(made, SendMessage), made
    return made


def edited(made: Call | None) -> EditMessageText:
    """A call that has to change the message of a button."""
    from aiogram.methods import EditMessageText

    assert isinstance(made, EditMessageText), made
    return made


def reacted(made: Call | None) -> SetMessageReaction:
    """A call that has to set a reaction, one that every chat allows by default."""
    from aiogram.methods import SetMessageReaction

    assert isinstance(made, SetMessageReaction), made
    assert [each.model_dump() for each in made.reaction or []] == [{"type": "emoji", "emoji": "👍"}]
    return made


def answered(made: Call | None) -> None:
    """A call that has to answer a tap, and say nothing."""
    from aiogram.methods import AnswerCallbackQuery

    assert isinstance(made, AnswerCallbackQuery), made
    assert made.text is None


def alerted(made: Call | None) -> str:
    """The text of a call that has to be an alert."""
    from aiogram.methods import AnswerCallbackQuery

    assert isinstance(made, AnswerCallbackQuery), made
    assert made.show_alert
    return text(made)
