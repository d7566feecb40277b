"""PATCH /incidents/{id}: change an incident's status."""

import cold_start  # noqa: F401 (it acts when it is imported)

import re
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

import store
from api import Api, IncidentId
from incident import Incident, StatusChange

app = Api()
handler = app.resolve

IF_MATCH_PATTERN = r'^(?:"([1-9][0-9]{0,17})"|\*)$'


def _version(if_match: str) -> int | None:
    match = re.fullmatch(IF_MATCH_PATTERN, if_match)
    if not match:
        raise PydanticCustomError("if_match", 'Input should be an ETag of the incident, such as "1", or *')
    return int(match[1]) if match[1] else None


IfMatch = Annotated[int | None, BeforeValidator(_version, json_schema_input_type=str)]
"""The version that the change is meant for; none for any version."""


@app.patch(
    "/incidents/<id>",
    summary="Change an incident's status",
    description="Change the status; any may follow any other. With `If-Match`, only if the incident has not changed since that "
    "version. A change to the status that the incident already has changes nothing, so the request can be retried.",
)
def update_incident(
    id: IncidentId,
    change: Annotated[StatusChange, Body()],
    version: Annotated[
        IfMatch,
        Header(
            alias="If-Match",
            description="The ETag of the version that the change is meant for; `*` means any version, as does no header. An "
            "incident of another version is left unchanged: the answer is 412, or 200 if it already has the wanted status.",
            examples=['"1"'],
            json_schema_extra={"pattern": IF_MATCH_PATTERN},
        ),
    ] = None,
) -> Response[Incident]:
    """Change an incident's status."""
    incident, changed = store.set_status(id, change.status, app.caller, version)
    if changed:
        app.count("StatusesSet", status=incident.status)
    return app.incident_response(incident)
