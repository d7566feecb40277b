"""Many alerts at once: their writes are combined in transactions, which takes an eighth of the CPU time of single writes.

An alert's episode and incident are written together or not at all. If a condition fails, because another request or an earlier
attempt of this one has written one of them, the alert is refused, and the caller writes it singly.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import store
from alerts import episode, memory
from alerts.alert import Report
from alerts.episode import Episode
from incident import ACTIVE, MAX_CHANGES, Change, Incident, Status

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

MAX_WRITES = 100
"""DynamoDB's quota for a transaction. Its other quota, 4 MB, is not reached even with the longest descriptions."""

_RESOLVE = Change(status=Status.RESOLVED)


class Plan(NamedTuple):
    """The writes that follow from a report."""

    report: Report
    writes: "list[TransactWriteItemTypeDef]"
    incidents: list[Incident]
    """The incidents that the writes record and resolve."""


def plan(reports: Sequence[Report], known: dict[str, Episode]) -> tuple[list[Plan], list[Report]]:
    """Plans to write together, given the latest episodes, and the reports to apply singly afterwards."""
    first: dict[str, tuple[Report, episode.Change]] = {}
    rest: list[Report] = []
    for report in reports:
        if report.alert_key in first:  # a transaction may write an item only once
            rest.append(report)
        else:
            first[report.alert_key] = report, episode.after(known.get(report.alert_key), report.told)
    resolved = [report.incident_id(change.resolve) for report, change in first.values() if change.resolve]
    stored = store.get_many(resolved)
    plans: list[Plan] = []
    for report, change in first.values():
        if planned := _plan(report, change, known.get(report.alert_key), stored):
            plans.append(planned)
        else:
            rest.append(report)
    return plans, rest


def _plan(
    report: Report, change: episode.Change, known: Episode | None, stored: dict[str, store.Stored]
) -> Plan | None:
    """None for rare cases: a late report, an unexpected incident, an episode whose incident may be missing."""
    latest, resolve, opens = change
    if latest == known:
        return None if resolve or opens else Plan(report, [], [])
    writes: list[TransactWriteItemTypeDef] = []
    incidents: list[Incident] = []
    if resolve:
        found = stored.get(report.incident_id(resolve))
        if not found or not found.incident or found.incident.version > MAX_CHANGES:
            return None
        if found.incident.status in ACTIVE:
            write, resolved = store.changing(found.incident, _RESOLVE, report.caller)
            writes.append(write)
            incidents.append(resolved)
    if opens:
        latest = latest._replace(recorded=True)
        incident = report.incident(latest.starts, Status.OPEN)
        writes.append(store.adding(incident, report.caller))
        incidents.append(incident)
    writes.append(memory.remembering(report.alert_key, latest, known))
    return Plan(report, writes, incidents)


def transactions(plans: Sequence[Plan]) -> Iterator[list[Plan]]:
    """Split the plans, in order, into transactions of up to `MAX_WRITES` writes."""
    batch: list[Plan] = []
    room = MAX_WRITES
    for each in plans:
        if len(each.writes) > room:
            yield batch
            batch, room = [], MAX_WRITES
        batch.append(each)
        room -= len(each.writes)
    if batch:
        yield batch


def write(plans: Sequence[Plan]) -> tuple[list[list[Incident]], list[Report]]:
    """Execute the plans; return the recorded and resolved incidents of each, and the reports of the refused plans."""
    done = [each for each in plans if not each.writes]
    wanted = [each for each in plans if each.writes]
    written = store.write_together([each.writes for each in wanted])
    done += [each for each, success in zip(wanted, written, strict=True) if success]
    refused = [each.report for each, success in zip(wanted, written, strict=True) if not success]
    return [each.incidents for each in done], refused
