"""POST /incidents: record an incident."""

import re
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

import store
from api import Api, count, incident_response
from incident import IdempotencyKeyReused, Incident, NewIncident, id_for_key, new_id

app = Api()


def _key(value: str) -> str:
    match = re.fullmatch(r'"([!-~]{1,255})"|([!#-~][!-~]{0,254})', value)
    if not match:
        raise PydanticCustomError("idempotency_key", "Input should be 1 to 255 visible ASCII characters")
    return match[1] or match[2]


IdempotencyKey = Annotated[str, AfterValidator(_key)]


@app.post("/incidents/", include_in_schema=False)
@app.post("/incidents")
def create_incident(
    new: Annotated[NewIncident, Body()],
    key: Annotated[IdempotencyKey | None, Header(alias="Idempotency-Key")] = None,
) -> Response[Incident]:
    """Record an incident; with a key that has been used, answer with the incident that it recorded."""
    incident = Incident.report(new, id=id_for_key(app.caller, key) if key else new_id())
    stored = store.add(incident)
    if not stored.reports_the_same_as(incident):
        raise IdempotencyKeyReused
    headers = {"Location": f"/incidents/{stored.id}"}
    if stored == incident:
        count("IncidentsCreated", source=stored.source)
    else:
        count("Replays")
        headers["Idempotent-Replayed"] = "true"
    return incident_response(stored, HTTPStatus.CREATED, headers)


def handler(event: dict[str, object], context: LambdaContext) -> dict[str, object]:
    return app.resolve(event, context)
