"""The parts of Alertmanager's (webhook version 4) and Grafana's requests that are used, and the incidents' descriptions."""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

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

from alerts.episode import Told
from incident import MAX_DESCRIPTION, Incident, NewIncident, Source, Status, derived_id, readable
from rfc3339 import parse_instant

if TYPE_CHECKING:
    from pydantic.config import JsonDict

NOISE = {"prometheus", "prometheus_replica", "replica"}
"""Labels that identify the sender, not the problem, and are not shown; nor are those that begin with two underscores."""


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


def _texts(value: object) -> dict[str, str]:
    return {readable(name): _text(text) for name, text in value.items()} if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


# The contract gives these fields no type, because a value of the wrong type is ignored.
Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=object)]
Texts = Annotated[Mapping[str, str], BeforeValidator(_texts, json_schema_input_type=object)]
OptionalInstant = Annotated[str | None, BeforeValidator(_instant_if_any, json_schema_input_type=object)]
Count = Annotated[int, BeforeValidator(_count, json_schema_input_type=object)]


class Alert(BaseModel):
    """An alert. Labels and annotations may have any form; they are only shown."""

    status: Literal["firing", "resolved"]
    fingerprint: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="What identifies the alert among those of one Alertmanager."
    )
    starts: Annotated[str, AfterValidator(_instant)] = Field(
        alias="startsAt", description="When it started to fire.", json_schema_extra={"format": "date-time"}
    )
    ends: OptionalInstant = Field(None, alias="endsAt", description="When it ended, if it is resolved.")
    labels: Texts = Field({}, description="An object of strings, which are listed in the incident's description.")
    annotations: Texts = Field(
        {},
        description="An object of strings: `summary` is the first line of the incident's description, `description` follows it, then "
        "the others.",
    )
    generator_url: Text = Field("", alias="generatorURL", description="A link to the graph, shown in the description.")
    dashboard_url: Text = Field("", alias="dashboardURL", description="Grafana's link to the dashboard, likewise.")
    panel_url: Text = Field("", alias="panelURL", description="Grafana's link to the panel, likewise.")
    silence_url: Text = Field("", alias="silenceURL", description="Grafana's link to silence the alert, likewise.")

    def describe(self) -> str:
        """The incident's description, the most important lines first."""
        title = self.annotations.get("summary") or self.labels.get("alertname")
        title = title or f"Alert {readable(self.fingerprint)}".strip()
        annotations = {name: text for name, text in self.annotations.items() if name not in ("summary", "description")}
        labels = {name: text for name, text in self.labels.items() if name not in NOISE and text != title}
        links = {"dashboard": self.dashboard_url, "panel": self.panel_url, "silence": self.silence_url}
        named = [
            f"{name}: {text}"
            for each in (annotations, labels, links)
            for name, text in each.items()
            if name and text and not name.startswith("__")
        ]
        lines = [title, self.annotations.get("description", ""), *named, self.generator_url]
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


class Report(NamedTuple):
    """An alert with its reporter and its time of arrival."""

    alert: Alert
    caller: str | None
    source: Source
    arrived: str

    @property
    def alert_key(self) -> str:
        """The key of the alert's item in the table."""
        return f"alert#{derived_id('alert', self.caller or '', self.alert.fingerprint)}"

    @property
    def told(self) -> Told:
        return Told(self.alert.status == "firing", self.alert.starts, self.alert.ends, self.arrived)

    def incident(self, starts: str, status: Status) -> Incident:
        """A new incident for the episode with this start."""
        new = NewIncident(description=self.alert.describe(), source=self.source, status=status)
        return Incident.report(new, id=self.incident_id(starts))

    def incident_id(self, starts: str) -> str:
        """The incident's id for the episode with this start."""
        return derived_id("alert", self.caller or "", self.alert.fingerprint, starts)
