"""Which episode of an alert a report belongs to, and what follows from it. Nothing here knows HTTP or AWS.

An alert is a fingerprint, as one caller reports it. It fires in episodes that do not overlap, and each episode is an incident.
**An alert has at most one active incident, and none after its resolve.** Senders repeat reports, deliver them late, and name wrong
times: two replicas of Prometheus name different starts, Grafana names an alert's end as its start, clocks are wrong.

- **Firing.** What starts after everything that is known begins an episode; if the end of the one before was never told, that one
  is resolved first. Anything else repeats what is known, or is late, and changes nothing.
- **Resolved.** The active episode ends, whatever start is named, unless the report's end is not after its start: then it is about
  an earlier episode. If no episode is active, the report repeats the latest end, or tells of an episode that was never reported as
  firing; that one is recorded as resolved.
- **Times** are the sender's word, where they can be true. A start before 1970 (Go's zero time) or after the report's arrival is
  none: while an episode is active, such a report repeats it; otherwise the alert fires from its arrival on. An end after the
  arrival is the arrival; one that is not after its start is none.
"""

from typing import NamedTuple

from incident import Status

EPOCH = "1970-01-01T00:00:00.000000000Z"
"""No alert is older."""


class Report(NamedTuple):
    """What is told of an alert; instants in the format of `parse_instant`."""

    firing: bool
    told_start: str
    told_end: str | None
    arrived: str

    @property
    def start(self) -> str | None:
        """When the alert started, if what is told can be true."""
        return self.told_start if EPOCH <= self.told_start <= self.arrived else None

    @property
    def end(self) -> str | None:
        """When it ended, if what is told can be true."""
        if self.told_end is None or self.told_end <= (self.start or EPOCH):
            return None
        return min(self.told_end, self.arrived)


class Episode(NamedTuple):
    """The latest episode of an alert."""

    starts: str
    """When it started: its incident's id depends on it."""
    ends: str | None = None
    """None while the alert fires."""
    recorded: bool = False
    """Whether its incident is known to be stored. The episode is remembered first, so its incident may be missing."""
    untrue_start: str | None = None
    """The start in the first report of it, where that cannot be true."""

    @property
    def told_start(self) -> str:
        """The start in the first report of it."""
        return self.untrue_start or self.starts


class Plan(NamedTuple):
    """What follows from a report."""

    latest: Episode
    """What is then the latest episode."""
    first_resolve: str | None = None
    """The start of the episode whose incident is resolved before the latest episode is remembered: it would be forgotten."""
    then: tuple[str, Status] | None = None
    """The start of the episode whose incident is recorded afterwards, unless it stands, and as what; or, if that is resolved, is
    resolved."""


def plan(report: Report, known: Episode | None) -> Plan:
    """What follows from a report, given the latest episode that is known before it."""
    return _plan_firing(report, known) if report.firing else _plan_resolved(report, known)


def _plan_firing(report: Report, known: Episode | None) -> Plan:
    if known and not _begins_another(report, known):
        return Plan(
            known, then=None if known.recorded else (known.starts, Status.RESOLVED if known.ends else Status.OPEN)
        )
    begun = _episode(report, report.start or report.arrived)
    active = known.starts if known and known.ends is None else None
    return Plan(begun, first_resolve=active, then=(begun.starts, Status.OPEN))


def _begins_another(report: Report, known: Episode) -> bool:
    """Whether a firing alert starts after everything that is known."""
    if known.ends is None:
        return report.told_start != known.told_start and report.start is not None and report.start > known.starts
    if report.start is None:
        # A start after the arrival that is told again is the same one, and late. The zero time says nothing.
        return report.told_start < EPOCH or report.told_start != known.told_start
    return report.start > known.starts and report.start >= known.ends and report.told_start != known.told_start


def _plan_resolved(report: Report, known: Episode | None) -> Plan:
    start = report.start or report.end or report.arrived
    never_reported = Plan(_episode(report, start, report.end or start), then=(start, Status.RESOLVED))
    if known is None:
        return never_reported
    same = report.told_start == known.told_start
    if known.ends is None:
        if report.end and report.end <= known.starts and not same:
            return Plan(known, then=(start, Status.RESOLVED))
        ends = max(report.end or report.start or known.starts, known.starts)
        return Plan(known._replace(ends=ends), first_resolve=known.starts)
    if same or report.start is None or _overlaps(report.start, report.end, known.starts, known.ends):
        return Plan(known, then=(known.starts, Status.RESOLVED))
    return never_reported if start > known.starts else Plan(known, then=(start, Status.RESOLVED))


def _overlaps(start: str, end: str | None, starts: str, ends: str) -> bool:
    """Whether a report is about an episode that has ended. Neither includes its end, but a report's start may be the end."""
    return (starts < end and start < ends) if end else start <= ends


def _episode(report: Report, starts: str, ends: str | None = None) -> Episode:
    return Episode(starts, ends, untrue_start=None if report.told_start == starts else report.told_start)
