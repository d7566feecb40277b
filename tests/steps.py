"""What the behaviour tests do and expect again and again."""

from collections.abc import Iterator
from typing import NotRequired, TypedDict

import httpx

UNKNOWN_IDS = [
    "1",
    "9999",
    "%00",
    "%0A",
    "x" * 3000,
    "%D1%8F",
    "5f0dce5b-1faa-42e7-b14f-9c7aaacf81a4",
    "5F0DCE5B-1FAA-42E7-B14F-9C7AAACF81A4",
]
"""Ids as they stand in a URL, none of which the service has made."""


class BadInput(TypedDict):
    """A rule that the request breaks, and where."""

    loc: list[str | int]
    msg: str


class Problem(TypedDict):
    """RFC 9457's problem details."""

    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[BadInput]]


INVALID = "The request is invalid; see errors."
DETAILS = {
    "The body is empty.": (400, "Bad Request"),
    "The body is not UTF-8.": (400, "Bad Request"),
    "The body is not JSON.": (400, "Bad Request"),
    "There is no such route.": (404, "Not Found"),
    "There is no incident with this id.": (404, "Not Found"),
    "The incident has had 1000 changes and takes no more.": (409, "Conflict"),
    "The incident's comments have 100000 bytes together, the most that it takes.": (409, "Conflict"),
    "The incident has changed since the version in If-Match.": (412, "Precondition Failed"),
    "The body is longer than this route allows.": (413, "Content Too Large"),
    "The body's Content-Type is not application/json.": (415, "Unsupported Media Type"),
    "The Content-Encoding is not supported: do not compress the body.": (415, "Unsupported Media Type"),
    INVALID: (422, "Unprocessable Content"),
    "The Idempotency-Key was used for another incident.": (422, "Unprocessable Content"),
    "The incidents are temporarily unavailable. Try again.": (503, "Service Unavailable"),
}
"""Every problem: nothing else, such as an exception's text, is told to a client."""


def assert_problem(response: httpx.Response, status: int) -> Problem:
    """Check that the response is a problem of this status, in the shape that every problem has; return it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: Problem = response.json()
    assert list(problem)[:4] == ["type", "title", "status", "detail"]
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert DETAILS[problem["detail"]] == (status, problem["title"])
    assert ("errors" in problem) == (problem["detail"] == INVALID)
    assert all(error.keys() == {"loc", "msg"} and error["msg"] for error in problem.get("errors", []))
    return problem


def report(api: httpx.Client, description: str = "The point does not answer", **fields: str) -> dict[str, str]:
    """Create an incident and return it."""
    response = api.post("/incidents", json={"description": description, "source": "operator", **fields})
    assert response.status_code == 201, response.text
    incident: dict[str, str] = response.json()
    return incident


def bad_input(response: httpx.Response) -> list[list[str | int]]:
    """Check that the response names bad input; return where each piece of it is."""
    return [error["loc"] for error in assert_problem(response, 422)["errors"]]


def follow(api: httpx.Client, url: str) -> Iterator[list[dict[str, str]]]:
    """Each page from this one on, as a client finds it that knows nothing but the Link header."""
    for _ in range(100):
        response = api.get(url)
        assert response.status_code == 200, response.text
        yield response.json()
        if "next" not in response.links:
            return
        url = response.links["next"]["url"]
    raise AssertionError("the list has no end")
