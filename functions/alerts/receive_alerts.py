"""POST /alerts: turn the alerts that Alertmanager and Grafana send into incidents. The rule is in episode.py."""

import cold_start  # noqa: F401 (it acts when it is imported)

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, NamedTuple

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import BaseModel, Field, ValidationError

import store
from alerts import episode, memory
from alerts.alert import Alert, Notification
from alerts.episode import Episode
from api import Api
from incident import (
    ACTIVE,
    Change,
    Incident,
    IncidentNotFound,
    NewIncident,
    Source,
    Status,
    TooManyChanges,
    derived_id,
)
from rfc3339 import parse_instant

MAX_BODY = 1024 * 1024
"""Bytes: some 2,000 alerts."""

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
    "A repeated alert changes nothing, so everything can be sent again. Up to 1 MiB. Available where the stack's parameter "
    "`Alerts` is `enabled`.",
)
def receive_alerts(notification: Annotated[Notification, Body()]) -> Response[Counts]:
    """Store every alert that can be read; then name those that cannot. Raises `Unavailable` unless all are stored."""
    source = app.source or Source.MONITORING
    arrived = parse_instant(datetime.now(UTC).isoformat())
    reports = [Report(each, app.caller, source, arrived) for each in notification.alerts if isinstance(each, Alert)]
    if notification.truncated:
        app.count("AlertsTruncated", notification.truncated)
    known = memory.latest_episodes(report.key for report in reports)
    outcomes, error = store.in_parallel(lambda report: _store(report, known.get(report.key)), reports)
    # Even if the request fails: what it has stored counts as unchanged when it is sent again.
    counts = _count(outcomes, source)
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


class Report(NamedTuple):
    """An alert, who reports it, and when."""

    alert: Alert
    caller: str | None
    source: Source
    arrived: str

    @property
    def key(self) -> str:
        """What the alert is remembered by."""
        return f"alert#{derived_id('alert', self.caller or '', self.alert.fingerprint)}"

    @property
    def told(self) -> episode.Report:
        return episode.Report(self.alert.status == "firing", self.alert.starts, self.alert.ends, self.arrived)

    def incident_id(self, starts: str) -> str:
        """The id of the incident of the alert's episode that starts then."""
        return derived_id("alert", self.caller or "", self.alert.fingerprint, starts)


class Outcome(NamedTuple):
    """What became of one report."""

    created: int = 0
    """How many incidents it recorded."""
    resolved: tuple[Incident, ...] = ()
    """The incidents that it resolved."""


def _count(outcomes: list[Outcome], source: Source) -> Counts:
    created = sum(outcome.created for outcome in outcomes)
    resolved = [incident for outcome in outcomes for incident in outcome.resolved]
    if created:
        app.count("IncidentsCreated", created, source=source)
    if resolved:
        app.count("StatusesSet", len(resolved), status=Status.RESOLVED)
        app.count_times_to_resolve(resolved, source)
    alerts_created = sum(outcome.created > 0 for outcome in outcomes)
    alerts_resolved = sum(not outcome.created and len(outcome.resolved) > 0 for outcome in outcomes)
    unchanged = len(outcomes) - alerts_created - alerts_resolved
    return Counts(created=alerts_created, resolved=alerts_resolved, unchanged=unchanged)


def _store(report: Report, known: Episode | None) -> Outcome:
    """Store what is reported of an alert whose latest episode is known."""
    resolved: tuple[Incident, ...] = ()
    created = 0
    while True:
        latest, first_resolve, then = episode.plan(report.told, known)
        if first_resolve:
            before = _resolve(report, first_resolve)
            created, resolved = created + before.created, resolved + before.resolved
        if latest == known or memory.remember(report.key, latest, known):
            break
        # Another request was faster, or an earlier attempt of this one.
        known = memory.latest_episodes([report.key])[report.key]
    if then is None:
        return Outcome(created, resolved)
    starts, status = then
    if status == Status.RESOLVED:
        after = _resolve(report, starts)
    else:
        after = Outcome(created=_record(report, starts, status))
        if not after.created:
            # Left to the first repetition, so that many alerts that begin at once take a write less each.
            memory.remember(report.key, latest._replace(recorded=True), latest)
    return Outcome(created + after.created, resolved + after.resolved)


def _resolve(report: Report, starts: str) -> Outcome:
    """Resolve the incident of the episode that starts then if it is active; record it as resolved if there is none."""
    while True:
        try:
            resolved = Change(status=Status.RESOLVED)
            incident, before = store.change(report.incident_id(starts), resolved, report.caller, only_from=ACTIVE)
            return Outcome(resolved=(incident,)) if before else Outcome()
        except TooManyChanges:  # a retry would not change that
            return Outcome()
        except IncidentNotFound:
            if _record(report, starts, Status.RESOLVED):
                return Outcome(created=1)
        # Another request has recorded it since, perhaps as open.


def _record(report: Report, starts: str, status: Status) -> bool:
    """Record the incident of the episode that starts then, unless it stands; return whether it did not."""
    new = NewIncident(description=report.alert.describe(), source=report.source, status=status)
    incident = Incident.report(new, id=report.incident_id(starts))
    return store.add(incident, report.caller) == incident
