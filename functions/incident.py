"""What an incident is and what may happen to it. Nothing here knows HTTP or AWS."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Self
from uuid import NAMESPACE_URL, uuid4, uuid5

from pydantic import BaseModel, ConfigDict, StringConstraints

MAX_DESCRIPTION = 10_000
"""Characters (Unicode code points), counted after trimming."""

ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""A pattern for `re.fullmatch`: the only form that ids are made in (RFC 9562, section 4)."""

POSITION = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z#{ID}"
"""A pattern for `re.fullmatch`: what `Incident.position` looks like."""

_KEYED_IDS = uuid5(NAMESPACE_URL, "urn:incident-api:idempotency-key")
"""Never to be changed: a retry that crosses the change would record its incident twice."""


class Status(StrEnum):
    """Where the work on an incident stands. Any status may follow any other."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    RESOLVED = "resolved"
    CLOSED = "closed"


class Source(StrEnum):
    """Who reported an incident."""

    OPERATOR = "operator"
    MONITORING = "monitoring"
    PARTNER = "partner"


Description = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_DESCRIPTION)]


class NewIncident(BaseModel):
    """A report, as a client sends it."""

    model_config = ConfigDict(extra="forbid")

    description: Description
    source: Source
    status: Status = Status.OPEN


class StatusChange(BaseModel):
    """What a client may change of an incident."""

    model_config = ConfigDict(extra="forbid")

    status: Status


class Incident(BaseModel):
    """A recorded incident. Times are RFC 3339 in UTC with exactly three decimals, so that they sort as text."""

    # An item that is none of ours is a fault, and is reported; its description stays out of the report.
    model_config = ConfigDict(hide_input_in_errors=True)

    id: str
    description: str
    source: Source
    status: Status
    created_at: str
    updated_at: str
    version: int

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
        """Whether both came of one report; their statuses may have parted since."""
        return (self.description, self.source) == (other.description, other.source)


def now() -> str:
    """The time in UTC, RFC 3339, cut to milliseconds: `2025-11-08T10:00:00.123Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    """An id that no other incident has."""
    return str(uuid4())


def id_for_key(caller: str, key: str) -> str:
    """The one id that belongs to this caller's idempotency key. Neither may hold a line feed, which keeps them apart."""
    return str(uuid5(_KEYED_IDS, f"{caller}\n{key}"))


class IncidentNotFound(Exception):
    """No incident has this id."""


class VersionConflict(Exception):
    """The incident has changed since the version that the caller named."""


class IdempotencyKeyReused(Exception):
    """The key belongs to an incident with another description or source."""


class StoreUnavailable(Exception):
    """The store throttled the request, failed or did not answer. It can be tried again."""
