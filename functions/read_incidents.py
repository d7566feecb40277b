"""GET /incidents: list incidents. GET /incidents/{id}: read one. GET /incidents/{id}/history: read its versions."""

import cold_start  # noqa: F401 (it acts when it is imported)

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from http import HTTPStatus
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Header, Query
from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError, PydanticKnownError

import store
from api import Api, IncidentId, etag
from incident import POSITION_PATTERN, HistoryEntry, Incident, IncidentNotFound, Status
from rfc3339 import parse_time

app = Api()
handler = app.resolve


def _position(cursor: str) -> str:
    try:
        position = urlsafe_b64decode(cursor + "==").decode()
    except ValueError:
        position = ""
    if not re.fullmatch(POSITION_PATTERN, position, re.ASCII):
        raise PydanticCustomError("cursor", "Input should be a cursor from a Link header")
    return position


def _cursor(position: str) -> str:
    return urlsafe_b64encode(position.encode()).decode().rstrip("=")


Cursor = Annotated[str, AfterValidator(_position)]
"""Opaque to the client: the position of the previous page's last incident."""


def _time(text: str) -> str:
    try:
        # A "+" that the client did not encode arrives as a space. Before an offset, a space cannot mean anything else.
        return parse_time(re.sub(r" (?=\d\d:\d\d$)", "+", text))
    except ValueError:
        raise PydanticCustomError(
            "time", "Input should be a time of RFC 3339, such as 2025-11-08T22:00:00Z or 2025-11-08T22:00:00+03:00"
        ) from None


Time = Annotated[str, AfterValidator(_time)]


def _integer(value: object) -> object:
    # pydantic would also accept 5.0, 1_0 and +5.
    if isinstance(value, str) and not re.fullmatch(r"-?\d+", value, re.ASCII):
        raise PydanticKnownError("int_parsing")
    return value


@app.get("/incidents/", include_in_schema=False)
@app.get(
    "/incidents",
    summary="List incidents",
    description="A page of incidents, newest first. When there are more, the `Link` header has the URL of the next page: follow "
    "it unchanged. An incident that does not change while the pages are read is listed once. A change appears in lists "
    "within moments.",
)
def list_incidents(
    status: Annotated[
        list[Status] | None,
        Query(
            description="Only incidents with one of these statuses: repeated (`?status=open&status=in_progress`) or separated by "
            "commas (`?status=open,in_progress`). Without it, incidents of every status.",
        ),
    ] = None,
    limit: Annotated[
        int, BeforeValidator(_integer), Query(ge=1, le=100, description="The maximum number of incidents per page.")
    ] = 50,
    since: Annotated[
        Time | None,
        Query(
            description="Only incidents created at this time or later: RFC 3339, with any offset.",
            examples=["2025-11-08T22:00:00+03:00"],
            json_schema_extra={"format": "date-time"},
        ),
    ] = None,
    until: Annotated[
        Time | None,
        Query(
            description="Only incidents created before this time. Not before `since`.",
            examples=["2025-11-09T06:00:00+03:00"],
            json_schema_extra={"format": "date-time"},
        ),
    ] = None,
    cursor: Annotated[
        Cursor | None,
        Query(
            description="Where the page begins: opaque, part of the URL in a `Link` header.",
            examples=["MjAyNi0xMS0yM1QxMDowMDowMC4xMjNaIzZhNWNiN2YwLTRjNWUtNGYwYS05ZDUxLTBkMmE1YjFjN2UzOA"],
        ),
    ] = None,
) -> Response[list[Incident]]:
    if since and until and since > until:
        raise RequestValidationError([{"loc": ("query", "since"), "msg": "Input should not be after until"}])
    before = min(filter(None, (cursor, until)), default="")
    # Fetch one extra to learn whether another page follows.
    found = store.newest(status or list(Status), limit + 1, before=before, since=since or "")
    page, more = found[:limit], found[limit:]
    headers = {}
    if more:
        query = {
            "status": list(dict.fromkeys(status or ())),
            "limit": limit,
            "since": since,
            "until": until,
            "cursor": _cursor(page[-1].position),
        }
        given = {name: value for name, value in query.items() if value}
        headers["Link"] = f'<{app.url}?{urlencode(given, doseq=True)}>; rel="next"'
    return Response(HTTPStatus.OK, "application/json", page, headers)


IfNoneMatch = Annotated[
    str,
    Header(
        alias="If-None-Match",
        description="The ETags that the client has, or `*`. If one matches, the response is a 304 without a body.",
        examples=['"1"'],
    ),
]


@app.get("/incidents/<id>", summary="Read an incident", description="One incident, as of the last acknowledged change.")
def get_incident(id: IncidentId, if_none_match: IfNoneMatch = "") -> Response[Incident]:
    incident = store.get(id, app.own_reporter)
    app.line.add(incident_id=id)
    return _unless_known(if_none_match, incident, incident.version)


@app.get(
    "/incidents/<id>/history",
    summary="Read an incident's history",
    description="Every version of the incident, oldest first: who set which status or wrote which comment, and when. "
    "The last entry has the incident's current status.",
)
def get_history(id: IncidentId, if_none_match: IfNoneMatch = "") -> Response[list[HistoryEntry]]:
    _, entries = store.get_with_history(id)
    if app.own_reporter not in (None, entries[0].by):
        raise IncidentNotFound
    app.line.add(incident_id=id)
    return _unless_known(if_none_match, entries, entries[-1].version)


Body = TypeVar("Body")


def _unless_known(if_none_match: str, body: Body, version: int) -> Response[Body]:
    """The body with its ETag, or a 304 if the client already has this version (RFC 9110, section 13.1.2)."""
    headers = {"ETag": etag(version)}
    known = re.findall(r'"[^"]*"|^\*$', if_none_match)  # a list, with weak comparison
    if etag(version) in known or "*" in known:
        return Response(HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(HTTPStatus.OK, "application/json", body, headers)
