"""GET /incidents: list incidents. GET /incidents/{id}: read one."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Header, Path, Query
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

import store
from api import Api, etag, incident_response
from incident import POSITION, Incident, Status

app = Api()


def _position(cursor: str) -> str:
    try:
        position = urlsafe_b64decode(cursor + "==").decode()
    except ValueError:
        position = ""
    if not re.fullmatch(POSITION, position, re.ASCII):
        raise PydanticCustomError("cursor", "Input should be a cursor from a Link header")
    return position


def _cursor(position: str) -> str:
    return urlsafe_b64encode(position.encode()).decode().rstrip("=")


Cursor = Annotated[str, AfterValidator(_position)]
"""Opaque to the client; here the position of the last incident of the page before."""


@app.get("/incidents/", include_in_schema=False)
@app.get("/incidents")
def list_incidents(
    status: Annotated[list[Status] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[Cursor | None, Query()] = None,
) -> Response[list[Incident]]:
    """A page of incidents, newest first, with a link to the next page where there is one (RFC 8288)."""
    # One more than the page holds tells whether another page follows.
    found = store.newest(status or list(Status), limit + 1, before=cursor)
    page, more = found[:limit], found[limit:]
    headers = {}
    if more:
        query = {"status": status or [], "limit": limit, "cursor": _cursor(page[-1].position)}
        headers["Link"] = f'<{app.url}?{urlencode(query, doseq=True)}>; rel="next"'
    return Response(HTTPStatus.OK, "application/json", page, headers)


@app.get("/incidents/<id>")
def get_incident(
    id: Annotated[str, Path()],
    if_none_match: Annotated[str, Header(alias="If-None-Match")] = "",
) -> Response[Incident]:
    """One incident, as of the last acknowledged change."""
    incident = store.get(id)
    # RFC 9110, section 13.1.2: a list, compared without regard to weakness.
    known = re.findall(r'"[^"]*"|^\*$', if_none_match)
    if etag(incident) in known or "*" in known:
        return Response(HTTPStatus.NOT_MODIFIED, headers={"ETag": etag(incident)})
    return incident_response(incident)


def handler(event: dict[str, object], context: LambdaContext) -> dict[str, object]:
    return app.resolve(event, context)
