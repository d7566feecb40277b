"""POST /alerts: turn Alertmanager's and Grafana's alerts into incidents. episode.py has the rule."""

import cold_start  # noqa: F401 (it acts when it is imported)

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain
from typing import Annotated, TypeVar

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import BaseModel, Field, ValidationError

import store
from alerts import episode, memory
from alerts.alert import Alert, Notification, Report
from alerts.episode import Episode
from alerts.together import plan, transactions, write
from api import Api
from dynamodb import Unavailable
from incident import ACTIVE, Change, Incident, IncidentNotFound, Source, Status, TooManyChanges
from rfc3339 import parse_instant

MAX_BODY = 1024 * 1024
"""Bytes: some 2,000 alerts."""

TOGETHER = 10
"""A request with at least this many alerts writes in transactions: an eighth of the CPU time, twice the write units."""

LEAST_TIME = 8
"""Seconds that must remain before the function's timeout to begin another write."""

T = TypeVar("T")
R = TypeVar("R")

app = Api(MAX_BODY)
handler = app.resolve


class Counts(BaseModel):
    """What became of the alerts."""

    created: int = Field(description="Alerts that became a new incident.", json_schema_extra={"minimum": 0})
    resolved: int = Field(
        description="Alerts whose incident is resolved by this request.", json_schema_extra={"minimum": 0}
    )
    unchanged: int = Field(description="Alerts that changed nothing.", json_schema_extra={"minimum": 0})


@app.post(
    "/alerts",
    summary="Receive alerts",
    description="The webhook of Alertmanager and Grafana. A firing alert becomes an incident, which is resolved when the alert is. "
    "A repeated alert changes nothing, so everything can be sent again. A body may have up to 1 MiB. Available where the stack's "
    "parameter `Alerts` is `enabled`.",
)
def receive_alerts(notification: Annotated[Notification, Body()]) -> Response[Counts]:
    """Store all valid alerts, then report the invalid ones. Raises `Unavailable` if not all valid ones could be stored."""
    if notification.truncated:
        app.line.count("AlertsTruncated", notification.truncated)
    arrived = parse_instant(datetime.now(UTC).isoformat())
    source = app.source or Source.MONITORING
    reports = [Report(each, app.caller, source, arrived) for each in notification.alerts if isinstance(each, Alert)]
    known = memory.latest_episodes(report.alert_key for report in reports)
    written, error = _write(reports, known)
    # Even if the request fails, because its retry counts the stored alerts as unchanged.
    counts = _count(written, source)
    if error:
        raise error
    errors = [
        {"loc": ("body", "alerts", place, *error["loc"]), "msg": error["msg"]}
        for place, each in enumerate(notification.alerts)
        if isinstance(each, ValidationError)
        for error in each.errors()
    ]
    if errors:
        raise RequestValidationError(errors)
    return Response(HTTPStatus.OK, "application/json", counts)


def _write(reports: list[Report], known: dict[str, Episode]) -> tuple[list[list[Incident]], BaseException | None]:
    """Apply the reports; return each one's recorded and resolved incidents, and the first error."""
    together, rest = plan(reports, known) if len(reports) >= TOGETHER else ([], reports)
    results, error = store.in_parallel(_in_time(write), transactions(together))
    written = [incidents for done, _ in results for incidents in done]
    if error:
        return written, error
    rest = [report for _, refused in results for report in refused] + rest

    def apply(report: Report) -> list[Incident]:
        return _apply(report, known.get(report.alert_key))

    singly, error = store.in_parallel(_in_time(apply), rest)
    return written + singly, error


def _in_time(work: Callable[[T], R]) -> Callable[[T], R]:
    """Make the work raise `Unavailable` when the time runs out; a retry continues from what is stored."""

    def begin(item: T) -> R:
        if app.lambda_context.get_remaining_time_in_millis() < 1000 * LEAST_TIME:
            raise Unavailable
        return work(item)

    return begin


def _count(written: list[list[Incident]], source: Source) -> Counts:
    """Count the alerts and metrics, given each report's recorded and resolved incidents."""
    created = [incident for incident in chain(*written) if incident.version == 1]
    resolved = [incident for incident in chain(*written) if incident.version > 1]
    if created:
        app.line.count("IncidentsCreated", len(created), source=source)
    if resolved:
        app.line.count("StatusesSet", len(resolved), status=Status.RESOLVED)
        app.count_times_to_resolve(resolved, source)
    alerts_created = sum(any(incident.version == 1 for incident in each) for each in written)
    unchanged = written.count([])
    return Counts(created=alerts_created, resolved=len(written) - alerts_created - unchanged, unchanged=unchanged)


def _apply(report: Report, known: Episode | None) -> list[Incident]:
    """Apply a report, given the alert's latest known episode; return the recorded and resolved incidents.

    The order of the writes matters: after a failure or a concurrent request, the next report puts everything right.
    """
    written: list[Incident | None] = []
    while True:
        latest, resolve, opens = episode.after(known, report.told)
        if resolve:
            written.append(_resolve(report, resolve))
        if latest == known or memory.remember(report.alert_key, latest, known):
            break
        # Another request, or an earlier attempt of this one, has changed it.
        known = memory.latest_episodes([report.alert_key])[report.alert_key]
    if opens:
        written.append(opened := _record(report, latest.starts, Status.OPEN))
        if not opened:
            # Only when the alert repeats, which saves a write for each of many alerts that begin at once.
            memory.remember(report.alert_key, latest._replace(recorded=True), latest)
    return [incident for incident in written if incident]


def _resolve(report: Report, starts: str) -> Incident | None:
    """Resolve the episode's incident if it is active, or record it as resolved if there is none."""
    resolve = Change(status=Status.RESOLVED)
    while True:
        try:
            incident, before = store.change(report.incident_id(starts), resolve, report.caller, only_from=ACTIVE)
            return incident if before else None
        except TooManyChanges:  # a retry would not help
            return None
        except IncidentNotFound:
            if recorded := _record(report, starts, Status.RESOLVED):
                return recorded
        # Another request has recorded it in the meantime, perhaps as open.


def _record(report: Report, starts: str, status: Status) -> Incident | None:
    """Record the episode's incident and return it, or None if it is already stored."""
    incident = report.incident(starts, status)
    return incident if store.add(incident, report.caller) == incident else None
