"""Steps and expectations that several test files share."""

import re
import time
from collections.abc import Callable, Iterator
from typing import NotRequired, TypedDict

import httpx
from types_boto3_dynamodb import DynamoDBClient
from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

from api import PROBLEMS
from infra.local.template import TABLE
from tests.conftest import ROOT

UNKNOWN_IDS = ["9999", "%00", "%0A", "x" * 3000, "%D1%8F", "5f0dce5b-1faa-42e7-b14f-9c7aaacf81a4"]
"""As they are written in a URL; none belongs to an incident."""

PATIENCE = 60
"""Seconds to wait for a condition, enough for a busy machine."""

SENDING = (ROOT / "infra/integrations.md").read_text()


def examples(language: str) -> list[str]:
    """The code blocks of infra/integrations.md in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", SENDING, re.DOTALL | re.MULTILINE)


class BadInput(TypedDict):
    loc: list[str | int]
    msg: str


class Problem(TypedDict):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: NotRequired[list[BadInput]]


INVALID = "The request is invalid; see errors."
TITLES = {(status, detail): title for status, title, detail in PROBLEMS.values()}
"""Errors contain no other text, such as an exception's."""


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} seconds: {what}"
        time.sleep(0.05)


def assert_problem(response: httpx.Response, status: int) -> Problem:
    """Check that the response is a well-formed problem with this status; return it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: Problem = response.json()
    assert list(problem)[:4] == ["type", "title", "status", "detail"]
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert TITLES[status, problem["detail"]] == problem["title"]
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
    """Check that the response is a 422 for invalid input; return the location of each error."""
    return [error["loc"] for error in assert_problem(response, 422)["errors"]]


def follow(api: httpx.Client, url: str) -> Iterator[list[dict[str, str]]]:
    """The pages from this URL on, found through the Link headers alone."""
    for _ in range(100):
        response = api.get(url)
        assert response.status_code == 200, response.text
        yield response.json()
        if "next" not in response.links:
            return
        url = response.links["next"]["url"]
    raise AssertionError("the list has no end")


def overwrite(dynamodb: DynamoDBClient, id: str, path: str, value: AttributeValueTypeDef) -> None:
    """Set an attribute of an item, such as `incident.status`, behind the API's back."""
    names = {f"#{name}": name for name in path.split(".")}
    dynamodb.update_item(
        TableName=TABLE,
        Key={"id": {"S": id}},
        UpdateExpression=f"SET {'.'.join(names)} = :value",
        ExpressionAttributeNames=names,
        ExpressionAttributeValues={":value": value},
    )
