"""POST /incidents: create an incident."""

import cold_start  # noqa: F401 (it acts when it is imported)

import re
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header
from pydantic import AfterValidator, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError

import store
from api import Api
from incident import EXAMPLE, IdempotencyKeyReused, Incident, NewIncident, Source, derived_id, new_id

app = Api()
handler = app.resolve

KEY_PATTERN = r'^(?:"([!-~]{1,255})"|([!#-~][!-~]{0,254}))$'


def _unquoted(value: str) -> str:
    match = re.fullmatch(KEY_PATTERN, value)
    if not match:
        raise PydanticCustomError("idempotency_key", "Input should be 1 to 255 visible ASCII characters")
    return match[1] or match[2]


IdempotencyKey = Annotated[str, AfterValidator(_unquoted)]


class Report(NewIncident):
    """A report, as a client sends it. `source` may be omitted if the access key is bound to a source."""

    model_config = ConfigDict(
        json_schema_extra={
            "required": ["description"],
            "examples": [{name: EXAMPLE[name] for name in ("description", "source")}],
        }
    )

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, body: object) -> object:
        return {"source": app.source, **body} if app.source and isinstance(body, dict) else body

    @field_validator("source")
    @classmethod
    def _source_of_the_key(cls, source: Source) -> Source:
        if app.source and source != app.source:
            raise PydanticCustomError(
                "source", "Input should be '{source}', the source of the access key", {"source": app.source}
            )
        return source


@app.post("/incidents/", include_in_schema=False)
@app.post(
    "/incidents",
    summary="Create an incident",
    description="Create an incident. A request with an `Idempotency-Key` can be retried, and creates only one incident.",
)
def create_incident(
    new: Annotated[Report, Body()],
    key: Annotated[
        IdempotencyKey | None,
        Header(
            alias="Idempotency-Key",
            description="Makes the request safe to retry: 1 to 255 visible ASCII characters of the client's choice, quoted or "
            "not. The first request with a key creates an incident; later ones return it.",
            examples=["report-4567"],
            json_schema_extra={"pattern": KEY_PATTERN},
        ),
    ] = None,
) -> Response[Incident]:
    incident = Incident.report(new, id=derived_id("idempotency-key", app.caller or "", key) if key else new_id())
    stored = store.add(incident, app.caller)
    headers = {"Location": app.location(stored)}
    if stored == incident:
        app.line.count("IncidentsCreated", source=stored.source)
    elif stored.reports_the_same_as(incident):
        app.line.count("Replays")
        headers["Idempotent-Replayed"] = "true"
    else:
        raise IdempotencyKeyReused
    return app.incident_response(stored, HTTPStatus.CREATED, headers)
