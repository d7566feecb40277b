"""PATCH /incidents/{id}: change an incident's status, comment on it, or both."""

import cold_start  # noqa: F401 (it acts when it is imported)

import re
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

import store
from api import Api, IncidentId
from incident import Change, Incident

app = Api()
handler = app.resolve

IF_MATCH_PATTERN = r'^(?:"([1-9][0-9]{0,17})"|\*)$'


def _version(if_match: str) -> int | None:
    match = re.fullmatch(IF_MATCH_PATTERN, if_match)
    if not match:
        raise PydanticCustomError("if_match", 'Input should be an ETag of the incident, such as "1", or *')
    return int(match[1]) if match[1] else None


IfMatch = Annotated[int | None, BeforeValidator(_version, json_schema_input_type=str)]
"""The version that the change is meant for; None for any version."""


@app.patch(
    "/incidents/<id>",
    summary="Change an incident",
    description="Set the status, add a comment, or both; any status may follow any other. With `If-Match`, only if the incident has "
    "not changed since that version. A request that repeats the last change changes nothing, so it can be retried.",
)
def update_incident(
    id: IncidentId,
    change: Annotated[Change, Body()],
    version: Annotated[
        IfMatch,
        Header(
            alias="If-Match",
            description="The ETag of the version that the change is meant for; `*` means any version, as does no header. If "
            "the incident has another version, it is left unchanged: the response is a 412, or a 200 if the incident is already "
            "as requested.",
            examples=['"1"'],
            json_schema_extra={"pattern": IF_MATCH_PATTERN},
        ),
    ] = None,
) -> Response[Incident]:
    incident, before = store.change(id, change, app.caller, version)
    if before:
        app.count_change(before, incident)
    return app.incident_response(incident)
