"""PATCH /incidents/{id}: change an incident's status."""

import re
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Path
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

import store
from api import Api, count, incident_response
from incident import Incident, StatusChange

app = Api()


def _version(if_match: str) -> int | None:
    match = re.fullmatch(r'"([1-9][0-9]{0,17})"|\*', if_match)
    if not match:
        raise PydanticCustomError("if_match", 'Input should be an ETag of the incident, such as "1", or *')
    return int(match[1]) if match[1] else None


IfMatch = Annotated[int | None, BeforeValidator(_version, json_schema_input_type=str)]
"""The version that the change is meant for; none for any version."""


@app.patch("/incidents/<id>")
def update_incident(
    id: Annotated[str, Path()],
    change: Annotated[StatusChange, Body()],
    version: Annotated[IfMatch, Header(alias="If-Match")] = None,
) -> Response[Incident]:
    """Change an incident's status."""
    incident = store.set_status(id, change.status, version)
    count("StatusesSet", status=incident.status)
    return incident_response(incident)


def handler(event: dict[str, object], context: LambdaContext) -> dict[str, object]:
    return app.resolve(event, context)
