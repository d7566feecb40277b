"""Which episode of an alert a report belongs to, and what has to be written. Pure functions, without HTTP or AWS.

An alert is identified by its caller and fingerprint. It fires in episodes that do not overlap, and each episode is an incident.
**An alert has at most one active incident, and none once it is resolved.** Senders repeat reports, deliver them late, and send
wrong times: two replicas of Prometheus send different starts, Grafana sends an alert's end as its start, and clocks are wrong.

- **Firing.** A start after all known times begins a new episode. If the previous episode has no end, its incident is resolved
  first. Any other firing report is a repetition or late, and changes nothing.
- **Resolved.** The active episode ends, whatever the report's start, unless the report's end (or its start, if it has no end)
  belongs to an earlier episode. If no episode is active, the report repeats the latest end, or belongs to an episode without a
  firing report, which is recorded as resolved.
- **Times** are the sender's, if they are possible. A start before 1990 or after the report's arrival is not: during an active
  episode, such a report is a repetition; otherwise the episode starts at the report's arrival, unless the latest episode had the
  same impossible start. Any resolve ends an episode that began like this. An end after the arrival is replaced by the arrival;
  an end before the start is ignored.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from rfc3339 import parse_instant

EARLIEST = "1990-01-01T00:00:00.000000000Z"
"""Earlier times mean "none": the zero times of Go, Unix and GPS, and clocks that were never set."""


class Told(NamedTuple):
    """A report's claims about its alert; instants have the format of `parse_instant`."""

    firing: bool
    starts: str
    ends: str | None
    arrived: str

    @property
    def start(self) -> str | None:
        """The start, if it is possible."""
        return self.starts if EARLIEST <= self.starts <= self.arrived else None

    @property
    def end(self) -> str | None:
        """The end, if it is possible."""
        if self.ends is None or self.ends < max(self.starts, EARLIEST):
            return None
        return min(self.ends, self.arrived)


class Episode(NamedTuple):
    """The latest episode of an alert."""

    starts: str
    """The start, from which its incident's id is derived."""
    ends: str | None = None
    """None while the alert fires."""
    recorded: bool = False
    """Whether its incident is known to be stored. The episode is stored first."""
    claimed: str | None = None
    """The sender's start, if it differs from `starts`."""
    before: str | None = None
    """The previous episode's end, or its start if it had no end."""


class Change(NamedTuple):
    """The writes that follow from a report, in order: `resolve`, `latest`, `opens`."""

    latest: Episode
    """The new latest episode."""
    resolve: str | None = None
    """The start of the episode whose incident has to be resolved, or recorded as resolved."""
    opens: bool = False
    """Whether the latest episode's incident has to be recorded unless it is stored."""


def after(known: Episode | None, told: Told) -> Change:
    """The writes that follow from a report, given the latest known episode."""
    return _after_firing(known, told) if told.firing else _after_resolved(known, told)


def _after_firing(known: Episode | None, told: Told) -> Change:
    if known is None:
        return Change(_episode(told, told.start or told.arrived), opens=True)
    if not _begins_another(known, told):
        return Change(known, opens=known.ends is None and not known.recorded)
    if known.ends is None:
        return Change(_episode(told, told.starts, before=known.starts), resolve=known.starts, opens=True)
    # Two episodes never have the same start, even if another function's clock is ahead of this one's.
    starts = told.start or max(told.arrived, _just_after(known.ends))
    return Change(_episode(told, starts, before=known.ends), opens=True)


def _begins_another(known: Episode, told: Told) -> bool:
    """Whether a firing alert starts after all known times."""
    if known.ends is None:
        return told.start is not None and told.start > max(known.starts, known.claimed or "")
    if told.starts < EARLIEST:  # no start
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
    """Whether a resolved alert started after the latest episode's end."""
    if known.ends is None or told.starts in (known.starts, known.claimed):
        return False
    return told.starts >= known.ends and (told.end or told.starts) > known.ends


def _is_late(known: Episode, told: Told) -> bool:
    """Whether a resolved alert ended before the latest episode's start."""
    if known.claimed or told.starts == known.starts:
        return False
    if told.end:
        return told.end <= known.starts
    return told.start is not None and told.start <= (known.before or "")


def _episode(told: Told, starts: str, ends: str | None = None, *, before: str | None = None) -> Episode:
    return Episode(starts, ends, claimed=told.starts if told.starts != starts else None, before=before)


def _just_after(instant: str) -> str:
    return parse_instant((datetime.fromisoformat(instant) + timedelta(microseconds=1)).isoformat())
