"""Updates as Telegram sends them, and the bot's calls as Telegram accepts them: aiogram's models check both.

aiogram takes three seconds to import, so each function that needs it imports it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import httpx

if TYPE_CHECKING:
    from aiogram.methods import AnswerCallbackQuery, EditMessageText, SendMessage, SetMessageReaction
    from aiogram.types import InlineKeyboardMarkup

    Call = SendMessage | EditMessageText | AnswerCallbackQuery | SetMessageReaction

CHAT = -1001234567890
"""A group in infra.openapi.INTEGRATIONS."""

REPORT = "Самокат #4567 не отвечает"

Fields = Mapping[str, object]
"""An object of the Bot API, by the names of its fields."""

MAX_TEXT = {"sendMessage": 4096, "editMessageText": 4096, "answerCallbackQuery": 200}
"""UTF-16 code units."""

ANNA: Fields = {"id": 11, "is_bot": False, "first_name": "Анна", "last_name": "Петрова", "language_code": "ru"}
BORIS: Fields = {"id": 22, "is_bot": False, "first_name": "Boris", "language_code": "en"}
BOT: Fields = {"id": 99, "is_bot": True, "first_name": "Incidents"}

SENT = 1_795_428_000
"""The date of every message. It is constant because test ids that contain an update must be equal in every process."""


class Chat:
    """Makes updates of a chat."""

    def __init__(self, id: int = CHAT) -> None:
        self.id = id
        self.chat = {"id": id, "type": "supergroup" if id < 0 else "private"}
        self._updates = 0

    def message(self, text: str = "", by: Fields = ANNA, /, **fields: object) -> Fields:
        return {"update_id": self._next(), "message": self.written(text, by, **fields)}

    def written(self, text: str = "", by: Fields = ANNA, /, **fields: object) -> Fields:
        message = {"message_id": self._next(), "date": SENT, "chat": self.chat, "from": by}
        return message | ({"text": text} if text else {}) | fields

    def tap(self, button: str, by: Fields = ANNA, message_id: int = 1) -> Fields:
        """A tap on the button with this callback data, below a message of the bot."""
        message = {"chat": self.chat, "message_id": message_id, "date": 0}  # all that Telegram sends of an old message
        query = {"id": str(self._next()), "from": by, "chat_instance": "1", "message": message, "data": button}
        return {"update_id": self._next(), "callback_query": query}

    def _next(self) -> int:
        self._updates += 1
        return self._updates


class Room:
    """A chat whose updates reach the webhook."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api
        self.chat = Chat()

    def say(self, text: str = "", by: Fields = ANNA, /, **fields: object) -> Call | None:
        return deliver(self.api, self.chat.message(text, by, **fields))

    def tap(self, button: str, by: Fields = ANNA, message_id: int = 1) -> Call | None:
        return deliver(self.api, self.chat.tap(button, by, message_id))

    def record(self, text: str = REPORT, by: Fields = ANNA, /, **fields: object) -> tuple[str, dict[str, str]]:
        """Report an incident; return its id, and the buttons below the bot's reply."""
        below = buttons(sent(self.say(f"/incident {text}", by, **fields)))
        return next(iter(below.values())).split(":")[1], below

    def incidents(self) -> list[dict[str, str]]:
        incidents: list[dict[str, str]] = self.api.get("/incidents?limit=100").json()
        return incidents

    def descriptions(self) -> list[str]:
        """The incidents' descriptions, oldest first."""
        return [incident["description"] for incident in reversed(self.incidents())]

    def history(self, incident_id: str) -> list[tuple[str, str | None]]:
        """The comment of each version, or its status if it has none, and who made it."""
        entries = self.api.get(f"/incidents/{incident_id}/history").json()
        return [(entry["comment"] or entry["status"], entry["by"]) for entry in entries]


def body(update: Fields) -> str:
    """The update in JSON. Fails for one that Telegram would not send."""
    from aiogram.types import Update

    sent = json.dumps(update, ensure_ascii=False)
    Update.model_validate_json(sent, extra="forbid")
    return sent


def deliver(api: httpx.Client, update: Fields) -> Call | None:
    """Send an update to the webhook; return the bot's call."""
    response = api.post("/telegram", content=body(update), headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    return call(response.json())


def call(answer: Fields) -> Call | None:
    """The call in an answer, None if there is none. Fails for one that Telegram would refuse."""
    from aiogram import methods

    if not answer:
        return None
    method = str(answer["method"])
    fields = {name: value for name, value in answer.items() if name != "method"}
    kind: type[Call] = getattr(methods, method[0].upper() + method[1:])
    # encode() fails for half of a surrogate pair.
    made = kind.model_validate_json(json.dumps(fields, ensure_ascii=False).encode(), extra="forbid")
    if "text" in fields:
        assert text(made) == text(made).strip()
        assert units(text(made)) <= MAX_TEXT[method]
        assert "parse_mode" not in fields
    if isinstance(made, methods.SendMessage | methods.EditMessageText):
        assert fields["link_preview_options"] == {"is_disabled": True}
    for button in buttons(made).values():
        assert 1 <= len(button.encode()) <= 64
    return made


def units(text: str) -> int:
    """The length of a text as Telegram counts it."""
    return len(text.encode("utf-16-le")) // 2


def buttons(made: Call | None) -> dict[str, str]:
    """The callback data of each button, by the button's text."""
    keyboard = cast("InlineKeyboardMarkup | None", getattr(made, "reply_markup", None))
    rows = keyboard.inline_keyboard if keyboard else []
    shown = [(button.text, button.callback_data or "") for row in rows for button in row]
    assert len(dict(shown)) == len(shown)
    return dict(shown)


def text(made: Call) -> str:
    said: str | None = getattr(made, "text", None)
    assert said
    return said


def sent(made: Call | None) -> SendMessage:
    return cast("SendMessage", _checked(made, "sendMessage"))


def edited(made: Call | None) -> EditMessageText:
    return cast("EditMessageText", _checked(made, "editMessageText"))


def reacted(made: Call | None) -> SetMessageReaction:
    reaction = cast("SetMessageReaction", _checked(made, "setMessageReaction"))
    # Every chat allows this reaction by default.
    assert [each.model_dump() for each in reaction.reaction or []] == [{"type": "emoji", "emoji": "👍"}]
    return reaction


def answered(made: Call | None) -> None:
    """Check that the call answers a tap without a text."""
    assert cast("AnswerCallbackQuery", _checked(made, "answerCallbackQuery")).text is None


def alerted(made: Call | None) -> str:
    """The text of a call that shows an alert."""
    alert = cast("AnswerCallbackQuery", _checked(made, "answerCallbackQuery"))
    assert alert.show_alert
    return text(alert)


def _checked(made: Call | None, method: str) -> Call:
    assert made
    assert made.__api_method__ == method, made
    return made
