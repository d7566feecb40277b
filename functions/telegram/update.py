"""The parts of Telegram's updates that the bot uses, and the commands, reports, comments and taps in them.

https://core.telegram.org/bots/api#update
"""

import json
import re
from typing import Annotated, NamedTuple, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from incident import ID_PATTERN, Status, derived_id
from telegram.messages import REFRESH

_PUNCTUATION = "[:;,.!?\u2026\u2010-\u2015\u2212-]+"  # with the ellipsis, Unicode's dashes, and the minus

# The bot does not know its name, so a command for another bot (/incident@other_bot) counts, too. Telegram delivers these only
# to bots that are administrators or have their privacy mode off.
_COMMAND = re.compile(
    # As Telegram finds commands: in ASCII, and not before a letter or digit of any script, or one of /<>.
    r"(?ai:/incident(?P<s>s?)(?:_(?P<id>[0-9a-f]{32}))?(?:@\w{3,32}|(?!@)))(?![\w/<>])"
    # Punctuation right after the command, or between spaces, is not part of the text; the minus of -5 °C is.
    rf"(?:{_PUNCTUATION}|\s+{_PUNCTUATION}(?=\s|$))?(?P<text>.*)",
    re.DOTALL,
)
_BUTTON = re.compile(
    rf"(?P<action>{'|'.join(Status)}|{REFRESH}):(?P<id>{ID_PATTERN}):(?P<version>[1-9]\d{{0,8}})", re.ASCII
)


class _Object(BaseModel):
    """An object of the Bot API. An update that is not of this shape is ignored."""

    model_config = ConfigDict(strict=True)


def _encodable(text: str) -> str:
    text.encode()  # pydantic turns a UnicodeEncodeError, which is a ValueError, into a ValidationError
    return text


Text = Annotated[str, AfterValidator(_encodable)]
"""Text without unpaired surrogates, which JSON can represent and UTF-8 cannot."""


class Place(NamedTuple):
    """The message that reported an incident. `str` converts it to the form that is stored."""

    chat: int
    message: int
    thread: int
    """Its topic; 0 for none."""

    def __str__(self) -> str:
        return f"telegram#{self.chat}#{self.message}#{self.thread}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read the stored form; None for any other text."""
        found = re.fullmatch(r"telegram#(-?\d+)#(\d+)#(\d+)", text)
        return cls(*map(int, found.groups())) if found else None


class Chat(_Object):
    id: int
    title: Text = ""


class User(_Object):
    id: int
    is_bot: bool = False
    first_name: Text = ""
    last_name: Text = ""
    language_code: Text = ""

    @property
    def author(self) -> str:
        """How a history names the user."""
        return _author(self.id, f"{self.first_name} {self.last_name}")


class Quote(_Object):
    """The part of another message that a reply quotes."""

    text: Text
    is_manual: bool = False
    """Whether the sender chose it; otherwise it is the beginning of a message from another chat or topic."""


class Origin(_Object):
    date: int


class ExternalReply(_Object):
    """The message from another chat or topic that is replied to. Only the quoted part of its text is known."""

    origin: Origin
    chat: Chat | None = None
    message_id: int | None = None


class RepliedTo(_Object):
    message_id: int
    date: int = 0
    """Seconds since 1970."""
    edit_date: int = 0
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
        """How a history names the author: as a chat or channel if the sender writes on its behalf."""
        if self.sender_chat:
            return _author(self.sender_chat.id, self.author_signature or self.sender_chat.title)
        return self.sender.author

    @property
    def thread(self) -> int:
        """The number of its topic, if the group has topics; otherwise 0."""
        return self.message_thread_id or 0 if self.is_topic_message else 0

    @property
    def place(self) -> Place:
        return Place(self.chat.id, self.message_id, self.thread)

    @property
    def commented_id(self) -> str:
        """The id of the incident that it comments on, if it replies to the bot's message about one; otherwise empty."""
        replied = self.reply_to_message
        if not replied or not replied.sender or not replied.sender.is_bot:
            return ""
        ids = [line for line in replied.text.splitlines() if re.fullmatch(ID_PATTERN, line)]
        return ids[-1] if ids and self.content else ""


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


class Command(NamedTuple):
    """/incident or /incidents."""

    lists: bool
    id: str
    """The incident's id, if it is in the command's name or is the whole text; otherwise empty."""
    text: str


class Button(NamedTuple):
    """The data of a button."""

    status: Status | None
    """The status to set; None to refresh the message."""
    id: str
    version: int
    """The version that the message shows."""


class Report(NamedTuple):
    """A text to record."""

    text: str
    ids: tuple[str, ...]
    """Ids to try in order: the first that is free, or whose incident has the same text, is the incident's."""


def command_in(text: str) -> Command | None:
    found = _COMMAND.fullmatch(text)
    if not found:
        return None
    text = found["text"].strip()
    named = str(UUID(found["id"])) if found["id"] else text.lower()
    return Command(bool(found["s"]), named if re.fullmatch(ID_PATTERN, named) else "", text)


def button_in(data: str) -> Button | None:
    found = _BUTTON.fullmatch(data)
    if not found:
        return None
    status = None if found["action"] == REFRESH else Status(found["action"])
    return Button(status, found["id"], int(found["version"]))


def report_in(message: Message, command: Command) -> Report | None:
    """What a command reports: the text after it, otherwise what it quotes or replies to; None if there is no text."""
    if command.text:
        return Report(command.text, _ids(message.chat.id, message.message_id, message.date))
    quote, replied = message.quote, message.reply_to_message
    if quote and (quote.is_manual or not replied or not replied.content):
        text, ids = quote.text, _quote_ids(message, quote)
    elif replied:
        text, ids = replied.content, _ids(message.chat.id, replied.message_id, replied.date, replied.edit_date)
    else:
        return None
    inner = command_in(text)
    text = inner.text if inner else text
    return Report(text, ids) if text else None


def _ids(chat_id: int, message_id: int, date: int, edit_date: int = 0) -> tuple[str, ...]:
    """The ids of a message's incident: by its number, then by its number and date.

    In basic groups and private chats each bot account numbers the messages itself, so a new bot reuses its predecessor's numbers
    for other messages. An edited message has only the first id, because its text may differ from the one recorded.
    """
    message = ("telegram-message", str(chat_id), str(message_id))
    if edit_date:
        return (derived_id(*message),)
    return derived_id(*message), derived_id(*message, str(date))


def _quote_ids(message: Message, quote: Quote) -> tuple[str, ...]:
    """The ids of a quote's incident: its own if the sender chose the quote, otherwise those of the quoted message."""
    chat_id, message_id, date = message.chat.id, 0, message.date
    if external := message.external_reply:
        chat_id = external.chat.id if external.chat else chat_id
        message_id, date = external.message_id or 0, external.origin.date
    elif replied := message.reply_to_message:
        message_id, date = replied.message_id, replied.date
    if message_id and not quote.is_manual:
        return _ids(chat_id, message_id, date)
    return (derived_id("telegram-quote", str(chat_id), str(message_id), str(date), json.dumps(quote.text)),)


def _author(id: int, name: str) -> str:
    # At most 100 characters and 200 bytes, so that a thousand of them fit into an item.
    text = f"telegram:{id} {' '.join(name.split())}"
    return text[:100].encode()[:200].decode(errors="ignore").strip()
