"""Which episode of an alert a report is about, and what follows from it. Nothing here knows HTTP or AWS.

An alert is a fingerprint, as one caller reports it. It fires in episodes that do not overlap, and each episode is an incident.
**An alert has at most one active incident, and none after its resolve.** Senders repeat reports, deliver them late, and name wrong
times: two replicas of Prometheus name different starts, Grafana names an alert's end as its start, clocks are wrong.

- **Firing.** What starts after everything that is known begins an episode. If the end of the one before was never told, its
  incident is resolved first. Anything else repeats what is known, or is late, and changes nothing.
- **Resolved.** The active episode ends, whatever start is named, unless the report's end, or its start if it has no end, shows
  that it is about an earlier episode. If none is active, the report repeats the latest end, or tells of an episode that was never
  reported as firing, which is recorded as resolved.
- **Times** are the sender's word where they can be true. A start before 1990 or after the report's arrival cannot: while an
  episode is active, such a report repeats it; otherwise the alert fires from the report's arrival on, unless the latest episode
  had the same start to come. Any resolve ends an episode that began so. An end after the arrival is the arrival, and one before
  the start is none.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from rfc3339 import parse_instant

EARLIEST = "1990-01-01T00:00:00.000000000Z"
"""The times that stand for none are earlier: the zeros of Go, Unix and GPS, and what a clock shows that was never set."""


class Told(NamedTuple):
    """What a report says of its alert; instants in the format of `parse_instant`."""

    firing: bool
    starts: str
    ends: str | None
    arrived: str

    @property
    def start(self) -> str | None:
        """When the alert started, if what is told can be true."""
        return self.starts if EARLIEST <= self.starts <= self.arrived else None

    @property
    def end(self) -> str | None:
        """When it ended, if what is told can be true."""
        if self.ends is None or self.ends < max(self.starts, EARLIEST):
            return None
        return min(self.ends, self.arrived)


class Episode(NamedTuple):
    """The latest episode of an alert."""

    starts: str
    """When it started: its incident's id depends on it."""
    ends: str | None = None
    """None while the alert fires."""
    recorded: bool = False
    """Whether its incident is known to be stored. The episode is remembered first, so its incident may be missing."""
    claimed: str | None = None
    """The start that the sender named, if it cannot be true."""
    before: str | None = None
    """When the episode before it ended, or started if its end was never told."""


class Change(NamedTuple):
    """What follows from a report."""

    latest: Episode
    """What is then the latest episode."""
    resolve: str | None = None
    """The start of the episode whose incident is resolved, or recorded as resolved, before the latest one is remembered."""
    opens: bool = False
    """Whether the incident of the latest episode is recorded afterwards, unless it is stored."""


def after(known: Episode | None, told: Told) -> Change:
    """What follows from a report, given the latest episode that is known before it."""
    return _after_firing(known, told) if told.firing else _after_resolved(known, told)


def _after_firing(known: Episode | None, told: Told) -> Change:
    if known is None:
        return Change(_episode(told, told.start or told.arrived), opens=True)
    if not _begins_another(known, told):
        return Change(known, opens=known.ends is None and not known.recorded)
    if known.ends is None:
        return Change(_episode(told, told.starts, before=known.starts), resolve=known.starts, opens=True)
    # No two episodes start at once, even if another function's clock is ahead of this one's.
    starts = told.start or max(told.arrived, _just_after(known.ends))
    return Change(_episode(told, starts, before=known.ends), opens=True)


def _begins_another(known: Episode, told: Told) -> bool:
    """Whether a firing alert starts after everything that is known."""
    if known.ends is None:
        return told.start is not None and told.start > max(known.starts, known.claimed or "")
    if told.starts < EARLIEST:  # it says nothing
        return True
    return told.starts not in (known.starts, known.claimed) and (told.start is None or told.start >= known.ends)


def _after_resolved(known: Episode | None, told: Told) -> Change:
    if known is None or _never_reported(known, told):
        starts = min(told.starts, told.arrived)
        ended = _episode(told, starts, told.end or starts, before=known.ends if known else None)
        return Change(ended, resolve=told.starts)
    if _is_late(known, told):
        repeated = told.end in (None, known.before) or told.starts == told.end < (known.before or "")
        return Change(known, resolve=None if repeated else told.starts)
    if known.ends:
        return Change(known)
    ends = max(known.starts, told.end or told.start or known.starts)
    return Change(known._replace(ends=ends), resolve=known.starts)


def _never_reported(known: Episode, told: Told) -> bool:
    """Whether a resolved alert started after the latest episode had ended."""
    if known.ends is None or told.starts in (known.starts, known.claimed):
        return False
    return told.starts >= known.ends and (told.end or told.starts) > known.ends


def _is_late(known: Episode, told: Told) -> bool:
    """Whether a resolved alert ended before the latest episode started."""
    if known.claimed or told.starts == known.starts:
        return False
    if told.end:
        return told.end <= known.starts
    return told.start is not None and told.start <= (known.before or "")


def _episode(told: Told, starts: str, ends: str | None = None, *, before: str | None = None) -> Episode:
    return Episode(starts, ends, claimed=told.starts if told.starts != starts else None, before=before)


def _just_after(instant: str) -> str:
    return parse_instant((datetime.fromisoformat(instant) + timedelta(microseconds=1)).isoformat())
