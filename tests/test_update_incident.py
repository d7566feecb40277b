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
        ({}, [["body"]]),
        ({"status": None}, [["body"]]),
        ({"status": "lost", "comment": " "}, [["body", "status"], ["body", "comment"]]),
        ({"comment": "x" * 1_001}, [["body", "comment"]]),
        ({"comment": "a\x07"}, [["body", "comment"]]),
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
    assert bad_input(api.patch(f"{path}?force=1", json={})) == [["body"], ["query", "force"]]
    assert bad_input(api.patch(f"{path}?force=1", json=CLOSED)) == [["query", "force"]]
    assert api.get(path).json() == incident


def test_a_body_is_held_to_the_rules_of_create(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    assert_problem(api.patch(path, content=b"{", headers=JSON), 400)
    assert_problem(api.patch(path, content=b" " * (128 * 1024 + 1), headers=JSON), 413)
    assert_problem(api.patch(path, content=b"{}", headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize("if_match", ['"1"', "*"])
def test_a_change_with_the_current_version_is_made(api: httpx.Client, if_match: str) -> None:
    path = f"/incidents/{report(api)['id']}"
    response = api.patch(path, json=CLOSED, headers={"If-Match": if_match})
    assert (response.status_code, response.json()["version"]) == (200, 2)


@pytest.mark.parametrize("if_match", ['"1"', '"3"', '"999999999999999999"'])
def test_a_change_of_another_version_is_a_412(api: httpx.Client, if_match: str) -> None:
    path = f"/incidents/{report(api)['id']}"
    changed = api.patch(path, json={"status": "resolved"}).json()
    assert_problem(api.patch(path, json=CLOSED, headers={"If-Match": if_match}), 412)
    assert api.get(path).json() == changed


def test_a_repeated_change_gets_the_same_response(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    first, again = (api.patch(path, json=CLOSED, headers={"If-Match": '"1"'}) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.headers["ETag"] == first.headers["ETag"] == '"2"'


@pytest.mark.parametrize("if_match", ["", "1", '"0"', '"x"', 'W/"1"', '"1", "2"', '"1e1"', '"1234567890123456789"'])
def test_an_invalid_if_match_is_a_422(api: httpx.Client, if_match: str) -> None:
    incident = report(api)
    response = api.patch(f"/incidents/{incident['id']}", json=CLOSED, headers={"If-Match": if_match})
    assert bad_input(response) == [["header", "if-match"]]
    (error,) = response.json()["errors"]
    assert error["msg"] == 'Input should be an ETag of the incident, such as "1", or *'
    assert api.get(f"/incidents/{incident['id']}").json() == incident


# ---- comments


def versions(api: httpx.Client, path: str) -> list[tuple[int, str, str | None]]:
    return [(entry["version"], entry["status"], entry["comment"]) for entry in api.get(f"{path}/history").json()]


def test_a_comment_is_a_version_that_keeps_the_status(api: httpx.Client) -> None:
    path = f"/incidents/{report(api, status='in_progress')['id']}"
    commented = api.patch(path, json={"comment": "  Позвонил \n в мастерскую 🛴 \n"})
    assert (commented.status_code, commented.headers["ETag"]) == (200, '"2"')
    assert commented.json() == api.get(path).json()
    assert api.patch(path, json={"status": "resolved", "comment": "x" * 1_000}).json()["version"] == 3
    api.patch(path, json={"comment": "Still fine"})
    assert versions(api, path) == [
        (1, "in_progress", None),
        (2, "in_progress", "Позвонил \n в мастерскую 🛴"),
        (3, "resolved", "x" * 1_000),
        (4, "resolved", "Still fine"),
    ]
    assert api.get("/incidents?status=resolved").json() == [api.get(path).json()]


@pytest.mark.parametrize("if_match", [{}, {"If-Match": '"1"'}, {"If-Match": '"7"'}, {"If-Match": "*"}])
@pytest.mark.parametrize("change", [{"comment": "Called"}, CLOSED | {"comment": "Called"}])
def test_a_repeated_comment_changes_nothing(
    api: httpx.Client, change: dict[str, str], if_match: dict[str, str]
) -> None:
    path = f"/incidents/{report(api)['id']}"
    first = api.patch(path, json=change).json()
    again = api.patch(path, json=change, headers=if_match)
    assert (again.status_code, again.json()) == (200, first)
    assert len(versions(api, path)) == 2


def test_what_differs_from_the_last_version_is_a_change(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    changes = [
        {"comment": "Called"},
        {"comment": "Called again"},
        {"comment": "Called"},  # not the last one any more
        {"status": "closed", "comment": "Called"},
        {"status": "open"},
        {"status": "open", "comment": "Called"},
    ]
    assert [api.patch(path, json=change).json()["version"] for change in changes] == [2, 3, 4, 5, 6, 7]


def test_a_comment_respects_if_match(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    api.patch(path, json={"comment": "Called"})
    assert_problem(api.patch(path, json={"comment": "Fixed"}, headers={"If-Match": '"1"'}), 412)
    assert api.patch(path, json={"comment": "Fixed"}, headers={"If-Match": '"2"'}).json()["version"] == 3


def test_comments_have_100_kb_together(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    for number in range(25):
        last = api.patch(path, json={"comment": f"{number:04}" + "🛴" * 996})
        assert last.status_code == 200
    assert 25 * (4 + 4 * 996) == 99_700
    assert api.patch(path, json={"comment": "x" * 300}).status_code == 200
    problem = assert_problem(api.patch(path, json=CLOSED | {"comment": "y"}), 409)
    assert "comments" in problem["detail"]
    assert api.get(path).json()["version"] == 27
    assert api.patch(path, json={"comment": "x" * 300}).status_code == 200  # a retry
    assert api.patch(path, json=CLOSED).json()["version"] == 28
