"""What Telegram sends, as far as it is used: updates, and the commands, reports and replies in them.

https://core.telegram.org/bots/api#update
"""

import re
from typing import Annotated, NamedTuple
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from incident import ID_PATTERN

COMMAND = re.compile(
    # Telegram ends a command at the first character that is none of its own; a letter of any script, or a slash, makes it none.
    r"/incident(?P<s>s?)(?:_(?P<id>[0-9a-f]{32}))?(?:@[a-zA-Z0-9_]+)?(?![\w/<>])"
    # What separates it from the text: punctuation that follows at once, or a dash or colon between spaces.
    r"(?:[:;,.!?–—-]+|\s+[:;–—-](?=\s))?\s*(?P<text>.*)",
    re.DOTALL | re.IGNORECASE,
)
"""For `fullmatch`: `s` in /incidents, the id that is part of the command, and the text after it.

The bot does not know its own name, so a command for another bot (`/incident@other_bot`) counts. Telegram delivers those only to
bots that are administrators, or whose privacy mode is off.
"""

STAND_INS = {1087968824, 136817688, 777000}
"""The users in place of an anonymous administrator, of a channel, and of Telegram itself."""


class _Object(BaseModel):
    """An object of the Bot API. An update that is not of this shape is ignored."""

    model_config = ConfigDict(strict=True)


def _encodable(text: str) -> str:
    text.encode()  # a UnicodeEncodeError is a ValueError, of which pydantic makes a ValidationError
    return text


Text = Annotated[str, AfterValidator(_encodable)]
"""Without half of a surrogate pair, which JSON can write and UTF-8 cannot."""


class Chat(_Object):
    id: int
    title: Text = ""


class User(_Object):
    id: int
    is_bot: bool = False
    first_name: Text = ""
    last_name: Text = ""
    language_code: Text = ""


class Quote(_Object):
    """The part of another message that a reply quotes."""

    text: Text
    is_manual: bool = False


class ExternalReply(_Object):
    """A message of another chat or topic, of which a reply has only this."""

    chat: Chat | None = None
    message_id: int | None = None


class RepliedTo(_Object):
    message_id: int
    date: int = 0
    edit_date: int | None = None
    sender: User | None = Field(None, alias="from")
    text: Text = ""
    caption: Text = ""

    @property
    def content(self) -> str:
        return self.text or self.caption


class Message(RepliedTo):
    chat: Chat
    sender: User = Field(alias="from")
    sender_chat: Chat | None = None
    author_signature: Text = ""
    message_thread_id: int | None = None
    is_topic_message: bool = False
    reply_to_message: RepliedTo | None = None
    external_reply: ExternalReply | None = None
    quote: Quote | None = None

    @property
    def author(self) -> str:
        """Who wrote it, for a history. Behind a stand-in user, that is the chat or channel, by its signature or title."""
        if self.sender.id in STAND_INS and self.sender_chat:
            return _author(self.sender_chat.id, self.author_signature or self.sender_chat.title)
        return author(self.sender)


class _ButtonsMessage(_Object):
    """The message that a button belongs to. Telegram leaves out its text and sender when it is old."""

    message_id: int
    chat: Chat


class CallbackQuery(_Object):
    """A tap on a button."""

    id: Text
    sender: User = Field(alias="from")
    message: _ButtonsMessage
    data: Text


class Update(_Object):
    message: Message | None = None
    callback_query: CallbackQuery | None = None


class Report(NamedTuple):
    """A text to be recorded, and the message that identifies it."""

    text: str
    chat_id: int
    message_id: int
    date: int = 0
    """Seconds since 1970."""
    edited: bool = False


def author(user: User) -> str:
    """A user, for a history."""
    return _author(user.id, f"{user.first_name} {user.last_name}")


def _author(id: int, name: str) -> str:
    # At most 100 characters and 200 bytes, so that a thousand of them fit into an item.
    text = f"telegram:{id} {' '.join(name.split())}"
    return text[:100].encode()[:200].decode(errors="ignore").strip()


def id_in(command: re.Match[str]) -> str:
    """The incident's id that is part of a command, or all of its text; empty if there is none."""
    if command["id"]:
        return str(UUID(command["id"]))
    text = command["text"].strip().lower()
    return text if re.fullmatch(ID_PATTERN, text) else ""


def report_in(message: Message, command: re.Match[str]) -> Report | None:
    """What a command reports: the text after it, or else what it quotes or replies to."""
    if text := command["text"].strip():
        return _report(text, message.chat.id, message)
    replied, quote, external = message.reply_to_message, message.quote, message.external_reply
    if replied and not (quote and quote.is_manual):
        return _report(_without_command(replied.content), message.chat.id, replied)
    if replied and quote:
        return _report(quote.text, message.chat.id, replied)
    if quote and external and external.chat and external.message_id:
        return Report(quote.text, external.chat.id, external.message_id)
    return _report(quote.text, message.chat.id, message) if quote else None


def _report(text: str, chat_id: int, message: RepliedTo) -> Report | None:
    if not text:
        return None
    return Report(text, chat_id, message.message_id, message.date, edited=message.edit_date is not None)


def _without_command(text: str) -> str:
    command = COMMAND.fullmatch(text)
    return command["text"].strip() if command else text


def commented_id(message: Message) -> str:
    """The id of the incident that a reply comments on: that of the bot's message; empty if it is no such reply."""
    replied = message.reply_to_message
    if not replied or not replied.sender or not replied.sender.is_bot:
        return ""
    ids = [line for line in replied.text.splitlines() if re.fullmatch(ID_PATTERN, line)]
    return ids[-1] if ids else ""
