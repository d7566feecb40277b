"""PATCH /incidents/{id}."""

import json
from itertools import permutations

import httpx
import pytest

from rfc3339 import now
from tests.steps import UNKNOWN_IDS, assert_problem, bad_input, report

CLOSED = {"status": "closed"}
SLASH = pytest.param(
    "a%2Fb",
    marks=pytest.mark.emulator_gap(
        "aws",
        "sam-local",
        reason="the gateway decodes the path before it chooses the route, and no PATCH has two segments",
    ),
)


def versions(api: httpx.Client, path: str) -> list[tuple[int, str, str | None]]:
    return [(entry["version"], entry["status"], entry["comment"]) for entry in api.get(f"{path}/history").json()]


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-Match": '"1"'}])
def test_a_change_of_status_changes_nothing_else(api: httpx.Client, headers: dict[str, str]) -> None:
    incident = report(api)
    while incident["created_at"] >= (before := now()):
        pass
    response = api.patch(f"/incidents/{incident['id'].upper()}", json={"status": "in_progress"}, headers=headers)
    changed = response.json()
    assert response.status_code == 200
    assert response.headers["ETag"] == '"2"'
    assert changed == incident | {"status": "in_progress", "version": 2, "updated_at": changed["updated_at"]}
    assert before <= changed["updated_at"] <= now()
    assert api.get(f"/incidents/{incident['id']}").json() == changed


def test_any_status_may_follow_any_other(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    for before, after in permutations(["open", "in_progress", "resolved", "closed"], 2):
        version = api.patch(path, json={"status": before}).json()["version"]
        changed = api.patch(path, json={"status": after}).json()
        assert (changed["status"], changed["version"]) == (after, version + 1)


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-Match": '"1"'}, {"If-Match": '"2"'}])
@pytest.mark.parametrize("change", [CLOSED, {"comment": "Called"}, CLOSED | {"comment": "Called"}])
def test_a_repeated_change_changes_nothing(api: httpx.Client, change: dict[str, str], headers: dict[str, str]) -> None:
    path = f"/incidents/{report(api)['id']}"
    changed = api.patch(path, json=change).json()
    again = api.patch(path, json=change, headers=headers)
    assert (again.status_code, again.json(), again.headers["ETag"]) == (200, changed, '"2"')
    assert api.get(path).json() == changed
    assert len(versions(api, path)) == 2


@pytest.mark.parametrize("id", [*UNKNOWN_IDS, SLASH])
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}])
def test_an_unknown_id_is_a_404(api: httpx.Client, id: str, headers: dict[str, str]) -> None:
    assert_problem(api.patch(f"/incidents/{id}", json=CLOSED, headers=headers), 404)
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        *((body, [["body"]]) for body in ({}, {"status": None}, [CLOSED], None)),
        ({"status": "lost", "comment": " "}, [["body", "status"], ["body", "comment"]]),
        ({"comment": "x" * 1_001}, [["body", "comment"]]),
        ({"comment": "a\x07"}, [["body", "comment"]]),
        (CLOSED | {"description": "x", "source": "partner"}, [["body", "description"], ["body", "source"]]),
    ],
)
def test_every_invalid_field_is_named_and_nothing_changed(
    api: httpx.Client, body: object, bad: list[list[str]]
) -> None:
    incident = report(api)
    path = f"/incidents/{incident['id']}"
    response = api.patch(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert bad_input(response) == bad
    assert api.get(path).json() == incident


@pytest.mark.parametrize("if_match", ['"1"', '"3"', '"999999999999999999"'])
@pytest.mark.parametrize("change", [CLOSED, {"comment": "Fixed"}])
def test_if_match_with_another_version_is_a_412(api: httpx.Client, change: dict[str, str], if_match: str) -> None:
    path = f"/incidents/{report(api)['id']}"
    changed = api.patch(path, json={"status": "resolved", "comment": "Called"}).json()
    assert_problem(api.patch(path, json=change, headers={"If-Match": if_match}), 412)
    assert api.get(path).json() == changed


@pytest.mark.parametrize("if_match", ["", "1", '"0"', '"x"', 'W/"1"', '"1", "2"', '"1e1"', '"1234567890123456789"'])
def test_an_invalid_if_match_is_a_422(api: httpx.Client, if_match: str) -> None:
    incident = report(api)
    path = f"/incidents/{incident['id']}"
    (error,) = assert_problem(api.patch(path, json=CLOSED, headers={"If-Match": if_match}), 422)["errors"]
    assert error["loc"] == ["header", "if-match"]
    assert error["msg"] == 'Input should be an ETag of the incident, such as "1", or *'
    assert api.get(path).json() == incident


# ---- comments


def test_a_comment_alone_keeps_the_status(api: httpx.Client) -> None:
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
    assert api.get("/incidents?status=in_progress").json() == []


def test_what_differs_from_the_last_change_is_stored(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    changes = [
        {"comment": "Called"},
        {"comment": "Called again"},
        {"comment": "Called"},
        {"status": "closed", "comment": "Called"},
        {"status": "open"},
        {"status": "open", "comment": "Called"},
    ]
    assert [api.patch(path, json=change).json()["version"] for change in changes] == [2, 3, 4, 5, 6, 7]


def test_comments_are_limited_to_100_kb_together(api: httpx.Client) -> None:
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
