"""POST /alerts: turn the alerts that Alertmanager and Grafana send into incidents.

An alert is a fingerprint, as one caller reports it. It fires in episodes that do not overlap, and each episode is an incident.
Which episode a report belongs to is decided by its times:

- A firing alert that started after everything known of it begins an episode. Any other repeats what is known, or is late, and
  changes nothing. Its start may be earlier than the known one: two replicas of Prometheus report an alert at different times,
  and Alertmanager first names the start that it heard of first, then the earlier one.
- A resolved alert has a start and an end. It resolves the incident of its start or, if there is none, that of the latest episode
  if the two times overlap: the other replica reported it. If there is neither, the alert was never reported as firing, and is
  recorded as resolved.

Reports may therefore be repeated, late or out of order. `memory.Episode` is what is remembered of an alert.
"""

import cold_start  # noqa: F401 (it acts when it is imported)

from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError

import store
from alerts import memory
from alerts.memory import Episode
from api import Api
from incident import (
    ACTIVE,
    MAX_DESCRIPTION,
    Change,
    Incident,
    IncidentNotFound,
    NewIncident,
    Source,
    Status,
    TooManyChanges,
    derived_id,
    readable,
)
from rfc3339 import parse_instant

if TYPE_CHECKING:
    from pydantic.config import JsonDict

MAX_BODY = 1024 * 1024
"""Bytes: some 2,000 alerts."""

app = Api(MAX_BODY)
handler = app.resolve

NOISE = {"prometheus", "prometheus_replica", "replica"}
"""Labels that say who noticed, not what happened. So do those that begin with two underscores."""

Outcome = Literal["created", "resolved", "unchanged"]


def _instant(text: str) -> str:
    try:
        return parse_instant(text)
    except ValueError:
        raise PydanticCustomError(
            "time", "Input should be a time of RFC 3339, such as 2025-11-08T22:00:00.123456789+03:00"
        ) from None


def _instant_if_any(value: object) -> str | None:
    with suppress(ValueError):
        return parse_instant(str(value))
    return None


def _text(value: object) -> str:
    return readable(str(value)) if isinstance(value, str | int | float) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _texts(value: object) -> dict[str, str]:
    return {readable(name): _text(text) for name, text in value.items()} if isinstance(value, dict) else {}


# The contract gives these no type, as a value of any other is ignored.
Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=object)]
Texts = Annotated[Mapping[str, str], BeforeValidator(_texts, json_schema_input_type=object)]
OptionalInstant = Annotated[str | None, BeforeValidator(_instant_if_any, json_schema_input_type=object)]
Count = Annotated[int, BeforeValidator(_count, json_schema_input_type=object)]


class Alert(BaseModel):
    """An alert, as far as it is used. Labels and annotations may have any form; they are only shown."""

    status: Literal["firing", "resolved"]
    fingerprint: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="What identifies the alert among those of one Alertmanager."
    )
    starts: Annotated[str, AfterValidator(_instant)] = Field(
        alias="startsAt", description="When it started to fire.", json_schema_extra={"format": "date-time"}
    )
    ends: OptionalInstant = Field(
        None,
        alias="endsAt",
        description="If it is resolved, when it ended; this tells two resolved episodes of one alert apart.",
    )
    labels: Texts = Field({}, description="An object of strings, which are listed in the incident's description.")
    annotations: Texts = Field(
        {},
        description="An object of strings: `summary` is the first line of the incident's description, and `description` follows it.",
    )
    generator_url: Text = Field(
        "", alias="generatorURL", description="The last line of the incident's description: a link to the graph."
    )

    @property
    def end(self) -> str | None:
        """When it ended. Go's zero time, and any other that is not after the start, stands for none."""
        return self.ends if self.ends and self.ends > self.starts else None

    def overlaps(self, episode: Episode) -> bool:
        """Whether a resolved alert and an episode overlap, neither with its end. An end that is not known is after any start."""
        return (self.end is None or episode.starts < self.end) and (episode.ends is None or self.starts < episode.ends)

    def describe(self) -> str:
        """The description of the incident: what a person has to know, the most important first."""
        title = self.annotations.get("summary") or self.labels.get("alertname")
        title = title or f"Alert {readable(self.fingerprint)}".strip()
        labels = [
            f"{name}: {value}"
            for name, value in self.labels.items()
            if name and value not in ("", title) and name not in NOISE and not name.startswith("__")
        ]
        lines = [title, self.annotations.get("description", ""), *labels, self.generator_url]
        text = "\n".join(dict.fromkeys(filter(None, lines)))
        return text if len(text) <= MAX_DESCRIPTION else text[: MAX_DESCRIPTION - 1] + "…"


def _read(value: object) -> Alert | ValidationError:
    try:
        return Alert.model_validate(value)
    except ValidationError as error:
        return error


_EXAMPLE: "JsonDict" = {
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "ScooterOffline", "instance": "scooter-4567:9100", "severity": "critical"},
            "annotations": {"summary": "Самокат #4567 не отвечает", "description": "Нет телеметрии 5 минут"},
            "startsAt": "2026-11-24T02:17:50.912104Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus.example/graph?g0.expr=up%3D%3D0",
            "fingerprint": "9fcdbf62e3b8eed9",
        }
    ],
    "truncatedAlerts": 0,
}


class Notification(BaseModel):
    """What Alertmanager (webhook version 4) and Grafana send. Other fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    alerts: list[Annotated[Alert | ValidationError, PlainValidator(_read, json_schema_input_type=Alert)]]
    truncated: Count = Field(0, alias="truncatedAlerts", description="How many alerts the sender has left out.")


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
    """Store every alert that can be read; then name those that cannot. Raises `StoreUnavailable` unless all are stored."""
    source = app.source or Source.MONITORING
    reports = [Report(alert, app.caller, source) for alert in notification.alerts if isinstance(alert, Alert)]
    outcomes: list[Outcome] = []
    if notification.truncated:
        app.count("AlertsTruncated", notification.truncated)
    try:
        known = memory.latest_episodes(report.key for report in reports)
        store.in_parallel(lambda report: outcomes.append(_store(report, known.get(report.key))), reports)
    finally:
        # Even if the request fails: what it has stored counts as unchanged when it is sent again.
        counts = Counts.model_validate({outcome: outcomes.count(outcome) for outcome in get_args(Outcome)})
        if counts.created:
            app.count("IncidentsCreated", counts.created, source=source)
        if counts.resolved:
            app.count("StatusesSet", counts.resolved, status=Status.RESOLVED)
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
    """An alert, and who reports it."""

    alert: Alert
    caller: str | None
    source: Source

    @property
    def key(self) -> str:
        """What the store remembers the alert by."""
        return f"alert#{derived_id('alert', self.caller or '', self.alert.fingerprint)}"

    def incident_id(self, starts: str) -> str:
        """The id of the incident of the alert's episode that starts then."""
        return derived_id("alert", self.caller or "", self.alert.fingerprint, starts)


def latest_after(alert: Alert, known: Episode | None) -> Episode:
    """The latest episode of an alert, given this report and the latest one known before it, by the rule of this module."""
    if alert.status == "firing":
        if known and (alert.starts <= known.starts or alert.starts < (known.ends or "")):
            return known
        return Episode(alert.starts)
    if known and alert.overlaps(known):
        return known if known.ends else known._replace(ends=alert.end or max(alert.starts, known.starts))
    if known is None or alert.starts > known.starts:
        return Episode(alert.starts, alert.end or alert.starts)
    return known


def _store(report: Report, known: Episode | None) -> Outcome:
    """Store what is reported of an alert whose latest episode is known."""
    while True:
        latest = latest_after(report.alert, known)
        if latest == known or memory.set_latest_episode(report.key, latest, known):
            break
        # Another request was faster, or an earlier attempt of this one.
        known = memory.latest_episodes([report.key])[report.key]
    if report.alert.status == "resolved":
        return _resolve(report, latest)
    if latest.recorded:
        return "unchanged"
    if _record(report, latest.starts, Status.RESOLVED if latest.ends else Status.OPEN):
        return "created"
    # Left to the first repetition, so that many alerts that begin at once take a write less each.
    memory.set_latest_episode(report.key, latest._replace(recorded=True), latest)
    return "unchanged"


def _resolve(report: Report, latest: Episode) -> Outcome:
    alert = report.alert
    starts = latest.starts if alert.overlaps(latest) else alert.starts
    while True:
        for incident_id in dict.fromkeys([report.incident_id(alert.starts), report.incident_id(starts)]):
            try:
                _, before = store.change(incident_id, Change(status=Status.RESOLVED), report.caller, only_from=ACTIVE)
            except IncidentNotFound:
                continue
            except TooManyChanges:  # a retry would not change that
                return "unchanged"
            return "resolved" if before else "unchanged"
        if _record(report, starts, Status.RESOLVED):
            return "created"
        # Another request has recorded it since, perhaps as open.


def _record(report: Report, starts: str, status: Status) -> bool:
    """Record the incident of the alert's episode that starts then, unless it is stored; return whether it was not."""
    new = NewIncident(description=report.alert.describe(), source=report.source, status=status)
    incident = Incident.report(new, id=report.incident_id(starts))
    return store.add(incident, report.caller) == incident
