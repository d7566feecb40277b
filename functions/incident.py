"""The incident: its fields, their rules, and its changes. Independent of HTTP and AWS."""

import re
import unicodedata
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Self
from uuid import NAMESPACE_URL, uuid4, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from rfc3339 import now

if TYPE_CHECKING:
    from pydantic.config import JsonDict

MAX_DESCRIPTION = 10_000
"""Characters (Unicode code points), counted after trimming."""

ID_PATTERN = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""For `re.fullmatch`: the form of an id (RFC 9562, section 4)."""

POSITION_PATTERN = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z#{ID_PATTERN}"
"""For `re.fullmatch`: the form of `Incident.position`."""

MAX_COMMENT = 1_000
"""Characters of a comment, counted after trimming."""

MAX_COMMENTS = 100_000
"""Bytes of all comments on one incident together, in UTF-8."""

MAX_CHANGES = 1_000
"""Changes to one incident. Its item contains its history, and DynamoDB limits an item to 400 KB."""

# The times have exactly three decimals, so that they sort as text.
_TIME_SCHEMA: "JsonDict" = {"format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}

EXAMPLE: "JsonDict" = {
    "id": "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38",
    "description": "Самокат #4567 не отвечает на запросы",
    "source": "monitoring",
    "status": "open",
    "created_at": "2026-11-23T10:00:00.123Z",
    "updated_at": "2026-11-23T10:00:00.123Z",
    "version": 1,
}
_EXAMPLE_CHANGED: "JsonDict" = EXAMPLE | {
    "status": "in_progress",
    "updated_at": "2026-11-23T10:02:41.007Z",
    "version": 2,
}


class Status(StrEnum):
    """Where the work on an incident stands. Any status may follow any other."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    RESOLVED = "resolved"
    CLOSED = "closed"


ACTIVE = (Status.OPEN, Status.IN_PROGRESS)
"""The statuses of an incident that still needs work."""


class Source(StrEnum):
    """Who reported an incident."""

    OPERATOR = "operator"
    MONITORING = "monitoring"
    PARTNER = "partner"


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Me", "Mn", "Zl", "Zp", "Zs"}
"""Unicode's general categories of separators, format characters, and marks that combine with another character."""

# Unicode's Default_Ignorable_Code_Point, and blanks that it lacks: Braille, Egyptian hieroglyphs, a null notehead.
# https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt
_BLANK = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\u2800\U00013441\U00013442\U0001d159]"
)


def _visible_text(text: str, max_length: int) -> str:
    # In one function, because pydantic would check the length before trimming.
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can represent and UTF-8 cannot
        raise PydanticKnownError("string_unicode") from None
    if _CONTROL.search(text):
        raise PydanticCustomError(
            "control_character", "String should have no control characters other than tabs and line ends"
        )
    text = text.strip()
    if len(text) > max_length:
        raise PydanticKnownError("string_too_long", {"max_length": max_length})
    if not _has_visible_character(text):
        raise PydanticCustomError("invisible", "String should have at least 1 visible character")
    return text


def _has_visible_character(text: str) -> bool:
    return any(
        unicodedata.category(character) not in _INVISIBLE_CATEGORIES and not _BLANK.match(character)
        for character in text
    )


Description = Annotated[str, AfterValidator(partial(_visible_text, max_length=MAX_DESCRIPTION))]
Comment = Annotated[str, AfterValidator(partial(_visible_text, max_length=MAX_COMMENT))]

_TEXT_SCHEMA: "JsonDict" = {"minLength": 1, "pattern": r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"}


def readable(text: str) -> str:
    """The text without the characters that a description must not contain; empty if nothing visible remains."""
    text = _CONTROL.sub("", text).encode(errors="replace").decode().strip()
    return text if _has_visible_character(text) else ""


class NewIncident(BaseModel):
    """A report, as a client sends it."""

    model_config = ConfigDict(extra="forbid")

    description: Description = Field(
        description="What happened, in the reporter's words. Leading and trailing white space is removed and does not count.",
        json_schema_extra=_TEXT_SCHEMA,
    )
    source: Source
    status: Status = Status.OPEN


class Change(BaseModel):
    """A change to an incident: another status, a comment, or both."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"status": "in_progress"}, {"status": "resolved", "comment": "Заменили модем"}],
            "minProperties": 1,
        },
    )

    status: Status | None = Field(None, description="The new status. Without one, the incident keeps its status.")
    comment: Comment | None = Field(
        None,
        description="What was found or done: 1 to 1,000 characters after leading and trailing white space is removed. It becomes "
        "part of the history.",
        json_schema_extra=_TEXT_SCHEMA,
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.status is None and self.comment is None:
            raise PydanticCustomError("empty_change", "Input should have a status or a comment")
        return self


class Incident(BaseModel):
    """A recorded incident."""

    model_config = ConfigDict(
        # A validation error of a stored item must not contain its description.
        hide_input_in_errors=True,
        json_schema_extra={"examples": [EXAMPLE, _EXAMPLE_CHANGED]},
    )

    id: str = Field(description="Assigned by the service.", json_schema_extra={"format": "uuid"})
    description: str = Field(
        description="As reported, without leading and trailing white space. It never changes.",
        json_schema_extra={"minLength": 1},
    )
    source: Source
    status: Status
    created_at: str = Field(description="RFC 3339 in UTC, with exactly three decimals.", json_schema_extra=_TIME_SCHEMA)
    updated_at: str = Field(
        description="The time of the last change, in the same format. Never before `created_at`.",
        json_schema_extra=_TIME_SCHEMA,
    )
    version: int = Field(
        description="1 for a new incident, incremented by every change; also the ETag.",
        json_schema_extra={"minimum": 1},
    )

    @classmethod
    def report(cls, new: NewIncident, *, id: str) -> Self:
        """The incident that `new` reports, created now."""
        time = now()
        return cls(**new.model_dump(), id=id, created_at=time, updated_at=time, version=1)

    @property
    def position(self) -> str:
        """The incident's unique place in the order of creation."""
        return f"{self.created_at}#{self.id}"

    @property
    def seconds_to_last_change(self) -> float:
        """Seconds from the incident's creation to its last change."""
        return (datetime.fromisoformat(self.updated_at) - datetime.fromisoformat(self.created_at)).total_seconds()

    def reports_the_same_as(self, other: "Incident") -> bool:
        """Whether both may come from the same report: everything that clients report is equal, except the status."""
        reported = NewIncident.model_fields.keys() - {"status"}
        return self.model_dump(include=reported) == other.model_dump(include=reported)


class HistoryEntry(BaseModel):
    """A version of an incident."""

    version: int = Field(description="1 for the report, incremented by every change.", json_schema_extra={"minimum": 1})
    status: Status
    at: str = Field(
        description="RFC 3339 in UTC, with exactly three decimals. Never before the previous version's.",
        json_schema_extra=_TIME_SCHEMA,
    )
    by: str | None = Field(
        description="The name of the access key; null where the API asks for none, as in the local run."
    )
    comment: str | None = Field(description="What was found or done, in the caller's words; null where there is none.")


def new_id() -> str:
    """A new, unique id."""
    return str(uuid4())


def derived_id(kind: str, *parts: str) -> str:
    """An id that is the same whenever the parts are. No part may contain a line feed.

    It makes a report safe to repeat. How it is derived must never change: a retry after the change would create a second
    incident.
    """
    return str(uuid5(uuid5(NAMESPACE_URL, f"urn:incident-api:{kind}"), "\n".join(parts)))


class DamagedItem(Exception):
    """The stored item is not a valid incident. It has to be restored or deleted."""


class IncidentNotFound(Exception):
    """No incident has this id."""


class VersionConflict(Exception):
    """The incident does not have the version that the caller expects."""


class TooManyChanges(Exception):
    """The incident has had `MAX_CHANGES` changes."""


class TooManyComments(Exception):
    """The comment would take the incident's comments beyond `MAX_COMMENTS` bytes."""


class IdempotencyKeyReused(Exception):
    """The key was used for an incident with another description or source."""
