"""What an incident is and what may happen to it. Nothing here knows HTTP or AWS."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self
from uuid import NAMESPACE_URL, uuid4, uuid5

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from pydantic.config import JsonDict

MAX_DESCRIPTION = 10_000
"""Characters (Unicode code points), counted after trimming."""

ID_PATTERN = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""For `re.fullmatch`: the only form that ids are made in (RFC 9562, section 4)."""

POSITION_PATTERN = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z#{ID_PATTERN}"
"""For `re.fullmatch`: what `Incident.position` looks like."""

MAX_CHANGES = 1_000
"""Changes of one incident. Its history is stored with it, and DynamoDB's items have at most 400 KB."""

_TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"

_KEYED_IDS = uuid5(NAMESPACE_URL, "urn:incident-api:idempotency-key")
"""Never to be changed: a retry that crosses the change would record its incident twice."""

_TELEGRAM_IDS = uuid5(NAMESPACE_URL, "urn:incident-api:telegram-message")
"""Never to be changed, for the same reason."""

_ALERT_IDS = uuid5(NAMESPACE_URL, "urn:incident-api:alert")
"""Never to be changed, for the same reason."""

_EXAMPLE: "JsonDict" = {
    "id": "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38",
    "description": "Самокат #4567 не отвечает на запросы",
    "source": "monitoring",
    "status": "open",
    "created_at": "2026-11-23T10:00:00.123Z",
    "updated_at": "2026-11-23T10:00:00.123Z",
    "version": 1,
}
_EXAMPLE_CHANGED: "JsonDict" = _EXAMPLE | {
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

# Separators, format characters and marks that combine with another character: Unicode's general categories.
_INVISIBLE = {"Cc", "Cf", "Me", "Mn", "Zl", "Zp", "Zs"}
_BLANK = set("\u115f\u1160\u2800\u3164\uffa0")
"""Of the other categories, the characters that are drawn as nothing: Hangul fillers and the blank Braille pattern."""


def _without_control_characters(value: object) -> object:
    if isinstance(value, str) and _CONTROL.search(value):
        raise PydanticCustomError(
            "control_character", "String should have no control characters other than tabs and line ends"
        )
    return value


def _visible(value: str) -> str:
    if not _has_visible_character(value):
        raise PydanticCustomError("invisible", "String should have at least 1 visible character")
    return value


def _has_visible_character(text: str) -> bool:
    return any(unicodedata.category(character) not in _INVISIBLE and character not in _BLANK for character in text)


Description = Annotated[
    str,
    BeforeValidator(_without_control_characters),
    StringConstraints(strip_whitespace=True, max_length=MAX_DESCRIPTION),
    AfterValidator(_visible),
]


def readable(text: str) -> str:
    """The text without what a description may not contain; empty if nothing visible remains."""
    text = _CONTROL.sub("", text).encode(errors="replace").decode().strip()
    return text if _has_visible_character(text) else ""


class NewIncident(BaseModel):
    """A report, as a client sends it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{name: _EXAMPLE[name] for name in ("description", "source")}]},
    )

    description: Description = Field(
        description="What happened, in the reporter's words. Leading and trailing white space is removed and does not count.",
        json_schema_extra={"minLength": 1, "pattern": r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"},
    )
    source: Source
    status: Status = Status.OPEN


class StatusChange(BaseModel):
    """What a client may change of an incident."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"status": "in_progress"}]})

    status: Status


class Incident(BaseModel):
    """A recorded incident."""

    model_config = ConfigDict(
        # A stored item that is not an incident is reported without the description that it may hold.
        hide_input_in_errors=True,
        json_schema_extra={"examples": [_EXAMPLE, _EXAMPLE_CHANGED]},
    )

    id: str = Field(description="Made by the service.", json_schema_extra={"format": "uuid"})
    description: str = Field(
        description="As reported, without leading and trailing white space. It never changes.",
        json_schema_extra={"minLength": 1},
    )
    source: Source
    status: Status
    # The times have exactly three decimals, so that they sort as text.
    created_at: str = Field(
        description="RFC 3339, UTC, exactly milliseconds.",
        json_schema_extra={"format": "date-time", "pattern": _TIME_PATTERN},
    )
    updated_at: str = Field(
        description="The time of the last change, in the same format.",
        json_schema_extra={"format": "date-time", "pattern": _TIME_PATTERN},
    )
    version: int = Field(
        description="1, and 1 more with every change; also the ETag.", json_schema_extra={"minimum": 1}
    )

    @classmethod
    def report(cls, new: NewIncident, *, id: str) -> Self:
        """The incident that `new` reports, as of now."""
        time = now()
        return cls(**new.model_dump(), id=id, created_at=time, updated_at=time, version=1)

    @property
    def position(self) -> str:
        """The incident's place in the order of creation; no other incident has the same."""
        return f"{self.created_at}#{self.id}"

    def reports_the_same_as(self, other: "Incident") -> bool:
        """Whether one report can have made both: all that a client reports is the same, but for a status changed since."""
        reported = NewIncident.model_fields.keys() - {"status"}
        return self.model_dump(include=reported) == other.model_dump(include=reported)


class HistoryEntry(BaseModel):
    """A version of an incident."""

    version: int = Field(
        description="1 for the report, and 1 more with every change.", json_schema_extra={"minimum": 1}
    )
    status: Status
    at: str = Field(
        description="RFC 3339, UTC, exactly milliseconds, by the clock that made the change. Clocks differ by some "
        "milliseconds: the order is that of the versions.",
        json_schema_extra={"format": "date-time", "pattern": _TIME_PATTERN},
    )
    by: str | None = Field(
        description="The name of the access key; null where the API asks for none, as in the local run."
    )


def now() -> str:
    """The time in UTC, RFC 3339, cut to milliseconds: `2025-11-08T10:00:00.123Z`."""
    return _in_utc(datetime.now(UTC))


def parse_time(text: str) -> str:
    """A time of RFC 3339, in the format of `now`; a part of a millisecond counts as a whole one. Raises `ValueError`."""
    whole, fraction = _seconds(text)
    milliseconds = int(fraction[:3].ljust(3, "0")) + (fraction[3:].strip("0") > "")
    try:
        return _in_utc(whole + timedelta(milliseconds=milliseconds))
    except OverflowError as error:
        raise ValueError("after the year 9999") from error


def parse_instant(text: str) -> str:
    """A time of RFC 3339 to the nanosecond: `2025-11-08T10:00:00.123456789Z`. Raises `ValueError`."""
    whole, fraction = _seconds(text)
    return f"{whole.replace(tzinfo=None).isoformat()}.{fraction[:9].ljust(9, '0')}Z"


def _seconds(text: str) -> tuple[datetime, str]:
    """A time of RFC 3339 as the whole seconds, in UTC, and the digits of the fraction."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", text, re.ASCII)
    if not match:
        raise ValueError("not a time of RFC 3339")
    date, time, fraction, offset = match.groups(default="")
    try:
        return datetime.fromisoformat(f"{date}T{time}{offset.upper()}").astimezone(UTC), fraction
    except OverflowError as error:
        raise ValueError("before the year 1 or after 9999") from error


def _in_utc(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    """An id that no other incident has."""
    return str(uuid4())


def id_for_key(caller: str | None, key: str) -> str:
    """The one id that belongs to this caller's idempotency key. Neither may contain a line feed, which separates them."""
    return str(uuid5(_KEYED_IDS, f"{caller or ''}\n{key}"))


def id_for_message(chat_id: int, message_id: int) -> str:
    """The one id that belongs to this message of a Telegram chat."""
    return str(uuid5(_TELEGRAM_IDS, f"{chat_id}\n{message_id}"))


def id_for_episode(caller: str | None, fingerprint: str, starts: str) -> str:
    """The one id that belongs to an alert that this caller reports to fire since an instant, as `parse_instant` writes it."""
    return str(uuid5(_ALERT_IDS, f"{caller or ''}\n{fingerprint}\n{starts}"))


def key_for_alert(caller: str | None, fingerprint: str) -> str:
    """What the store remembers an alert of this caller by. It is no incident's id."""
    name = f"{caller or ''}\n{fingerprint}"
    return f"alert#{uuid5(_ALERT_IDS, name)}"


class IncidentNotFound(Exception):
    """No incident has this id."""


class VersionConflict(Exception):
    """The incident has changed since the version that the caller named."""


class TooManyChanges(Exception):
    """The incident has had `MAX_CHANGES` changes."""


class IdempotencyKeyReused(Exception):
    """The key belongs to an incident with another description or source."""


class StoreUnavailable(Exception):
    """The store throttled the request, failed or did not answer. It can be tried again."""
