"""PATCH /incidents/{id}."""

import json
from datetime import UTC, datetime
from itertools import pairwise

import httpx
import pytest

from tests.steps import UNKNOWN_IDS, assert_problem, bad_input, report

JSON = {"Content-Type": "application/json"}
CLOSED = {"status": "closed"}
SLASH = pytest.param(
    "a%2Fb",
    marks=pytest.mark.emulator_gap(
        "aws",
        "sam-local",
        reason="the gateway decodes the path before it chooses the route, and no PATCH has two segments",
    ),
)


def test_a_change_of_status_changes_nothing_else(api: httpx.Client) -> None:
    incident = report(api)
    while incident["created_at"] >= (before := milliseconds()):
        pass
    response = api.patch(f"/incidents/{incident['id'].upper()}", json={"status": "in_progress"})
    changed = response.json()
    assert response.status_code == 200
    assert response.headers["ETag"] == '"2"'
    assert changed == incident | {"status": "in_progress", "version": 2, "updated_at": changed["updated_at"]}
    assert before <= changed["updated_at"] <= milliseconds()
    assert api.get(f"/incidents/{incident['id']}").json() == changed


def milliseconds() -> str:
    """The time in the format of `updated_at`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def test_any_status_may_follow_any_other(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    statuses = ["open", "in_progress", "resolved", "closed"]
    walk = [
        "open",
        "closed",
        "in_progress",
        "open",
        "resolved",
        "closed",
        "open",
        "in_progress",
        "resolved",
        "in_progress",
    ]
    walk += ["closed", "resolved", "open"]
    assert set(pairwise(walk)) == {(a, b) for a in statuses for b in statuses if a != b}
    for version, status in enumerate(walk[1:], start=2):
        changed = api.patch(path, json={"status": status}).json()
        assert (changed["status"], changed["version"]) == (status, version)


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-Match": '"2"'}, {"If-Match": '"1"'}])
def test_a_change_to_the_present_status_changes_nothing(api: httpx.Client, headers: dict[str, str]) -> None:
    path = f"/incidents/{report(api)['id']}"
    closed = api.patch(path, json=CLOSED)
    again = api.patch(path, json=CLOSED, headers=headers)
    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, closed.json(), '"2"')
    assert api.get(path).json() == closed.json()


@pytest.mark.parametrize("id", [*UNKNOWN_IDS, SLASH])
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}])
def test_an_unknown_id_is_a_404(api: httpx.Client, id: str, headers: dict[str, str]) -> None:
    assert_problem(api.patch(f"/incidents/{id}", json=CLOSED, headers=headers), 404)
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        ({}, [["body", "status"]]),
        ({"status": "lost"}, [["body", "status"]]),
        ({"status": None}, [["body", "status"]]),
        (CLOSED | {"description": "x", "source": "partner"}, [["body", "description"], ["body", "source"]]),
        ([CLOSED], [["body"]]),
        (None, [["body"]]),
    ],
)
def test_bad_fields_are_all_named_and_nothing_is_changed(api: httpx.Client, body: object, bad: list[list[str]]) -> None:
    incident = report(api)
    response = api.patch(f"/incidents/{incident['id']}", content=json.dumps(body), headers=JSON)
    assert bad_input(response) == bad
    assert api.get(f"/incidents/{incident['id']}").json() == incident


def test_an_unknown_parameter_is_a_422(api: httpx.Client) -> None:
    incident = report(api)
    path = f"/incidents/{incident['id']}"
    assert bad_input(api.patch(f"{path}?force=1", json={})) == [["body", "status"], ["query", "force"]]
    assert bad_input(api.patch(f"{path}?force=1", json=CLOSED)) == [["query", "force"]]
    assert api.get(path).json() == incident


def test_a_body_is_held_to_the_rules_of_create(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    assert_problem(api.patch(path, content=b"{", headers=JSON), 400)
    assert_problem(api.patch(path, content=b" " * (128 * 1024 + 1), headers=JSON), 413)
    assert_problem(api.patch(path, content=b"{}", headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize("if_match", ['"1"', "*"])
def test_a_change_of_the_version_at_hand_is_made(api: httpx.Client, if_match: str) -> None:
    path = f"/incidents/{report(api)['id']}"
    response = api.patch(path, json=CLOSED, headers={"If-Match": if_match})
    assert (response.status_code, response.json()["version"]) == (200, 2)


@pytest.mark.parametrize("if_match", ['"1"', '"3"', '"999999999999999999"'])
def test_a_change_of_another_version_is_a_412(api: httpx.Client, if_match: str) -> None:
    path = f"/incidents/{report(api)['id']}"
    changed = api.patch(path, json={"status": "resolved"}).json()
    assert_problem(api.patch(path, json=CLOSED, headers={"If-Match": if_match}), 412)
    assert api.get(path).json() == changed


def test_a_repeated_change_of_a_version_is_answered_as_the_first_was(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    first, again = (api.patch(path, json=CLOSED, headers={"If-Match": '"1"'}) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.headers["ETag"] == first.headers["ETag"] == '"2"'


@pytest.mark.parametrize("if_match", ["", "1", '"0"', '"x"', 'W/"1"', '"1", "2"', '"1e1"', '"1234567890123456789"'])
def test_an_if_match_that_is_no_etag_of_ours_is_a_422(api: httpx.Client, if_match: str) -> None:
    incident = report(api)
    response = api.patch(f"/incidents/{incident['id']}", json=CLOSED, headers={"If-Match": if_match})
    assert bad_input(response) == [["header", "if-match"]]
    (error,) = response.json()["errors"]
    assert error["msg"] == 'Input should be an ETag of the incident, such as "1", or *'
    assert api.get(f"/incidents/{incident['id']}").json() == incident
