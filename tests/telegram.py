"""A chat in Telegram: updates as its server sends them, built with aiogram's models, and answers as it would take them."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import cast

import httpx
from aiogram import methods, types
from pydantic import BaseModel

CHAT = -1001234567890
"""A group that is served: infra.openapi.INTEGRATIONS lists it."""

Fields = Mapping[str, object]
NONE: Fields = {}

Call = methods.SendMessage | methods.EditMessageText | methods.AnswerCallbackQuery
"""What the bot may do."""

CALLS: dict[str, type[Call]] = {
    "sendMessage": methods.SendMessage,
    "editMessageText": methods.EditMessageText,
    "answerCallbackQuery": methods.AnswerCallbackQuery,
}
MAX_TEXT = {"sendMessage": 4096, "editMessageText": 4096, "answerCallbackQuery": 200}
"""UTF-16 code units."""
MAX_CALLBACK_DATA = 64
"""Bytes."""

ANNA = types.User(id=11, is_bot=False, first_name="Анна", last_name="Петрова", language_code="ru")
BORIS = types.User(id=22, is_bot=False, first_name="Boris", language_code="en")


SENT = datetime(2026, 11, 23, 10, tzinfo=UTC)
"""Always the same, so that tests that are named for an update have one name in every process."""


class Chat:
    """A chat, in which people write messages and tap buttons."""

    def __init__(self, id: int = CHAT) -> None:
        self.chat = types.Chat(id=id, type="supergroup" if id < 0 else "private")
        self._updates = 0

    def message(self, text: str = "", by: types.User = ANNA, fields: Fields = NONE) -> types.Update:
        """A new message; it need not have a text. `fields` are others of its fields."""
        return types.Update(update_id=self._next(), message=self.written(text, by, fields))

    def written(self, text: str = "", by: types.User = ANNA, fields: Fields = NONE) -> types.Message:
        message = {"message_id": self._next(), "date": SENT, "chat": self.chat, "from_user": by}
        return types.Message.model_validate(message | ({"text": text} if text else {}) | dict(fields))

    def tap(self, button: str, by: types.User = ANNA, message_id: int = 1) -> types.Update:
        """A tap on a button, named by its callback data, below the bot's message."""
        # Telegram tells nothing but this of a message that is old.
        message = types.InaccessibleMessage(chat=self.chat, message_id=message_id, date=0)
        query = types.CallbackQuery(id=str(self._next()), from_user=by, chat_instance="1", message=message, data=button)
        return types.Update(update_id=self._next(), callback_query=query)

    def _next(self) -> int:
        self._updates += 1
        return self._updates


def body(update: types.Update) -> str:
    """An update as Telegram sends it."""
    return update.model_dump_json(by_alias=True, exclude_none=True)


def deliver(api: httpx.Client, update: types.Update | str, **headers: str) -> Call | None:
    """Send an update to the webhook, which takes it; return what the bot is to do."""
    content = update if isinstance(update, str) else body(update)
    response = api.post("/telegram", content=content, headers={"Content-Type": "application/json", **headers})
    assert response.status_code == 200, response.text
    return call(response.json())


def call(answer: dict[str, object]) -> Call | None:
    """The call in an answer, if there is one, which has to be one that Telegram accepts."""
    if not answer:
        return None
    method = str(answer["method"])
    # As Telegram reads it: UTF-8, and no half of a surrogate pair in it.
    made = CALLS[method].model_validate_json(json.dumps(answer, ensure_ascii=False).encode())
    assert made.model_extra == {"method": method}
    assert not [field for part in _parts(made) for field in part.model_extra or {} if part is not made]
    assert text(made) == text(made).strip()
    assert units(text(made)) <= MAX_TEXT[method]
    if isinstance(made, methods.AnswerCallbackQuery):
        return made
    assert made.chat_id is not None
    assert "parse_mode" not in answer
    assert isinstance(made.link_preview_options, types.LinkPreviewOptions)
    assert made.link_preview_options.is_disabled is True
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
    rows = cast("types.InlineKeyboardMarkup", keyboard).inline_keyboard
    shown = [(button.text, button.callback_data or "") for row in rows for button in row]
    assert len(dict(shown)) == len(shown)
    return dict(shown)


def text(made: Call) -> str:
    """What a call says."""
    assert made.text
    return made.text


def sent(made: Call | None) -> methods.SendMessage:
    """A call that has to send a message."""
    assert isinstance(made, methods.SendMessage), made
    return made


def edited(made: Call | None) -> methods.EditMessageText:
    """A call that has to change the message of a button."""
    assert isinstance(made, methods.EditMessageText), made
    return made


def alerted(made: Call | None) -> str:
    """The text of a call that has to be an alert."""
    assert isinstance(made, methods.AnswerCallbackQuery), made
    assert made.show_alert
    return text(made)
