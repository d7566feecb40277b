"""POST /incidents."""

import gzip
import json
import re
from uuid import UUID

import httpx
import pytest

from tests.steps import assert_problem, bad_input, report

GOOD = {"description": "Scooter 4567 is offline", "source": "monitoring"}
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/incidents", "/incidents/"])
def test_a_created_incident_is_answered_whole(api: httpx.Client, path: str) -> None:
    response = api.post(path, json=GOOD)
    incident = response.json()
    assert response.status_code == 201
    assert response.headers["Location"] == f"/incidents/{incident['id']}"
    assert response.headers["ETag"] == '"1"'
    assert response.headers["Content-Type"] == "application/json"
    assert list(incident) == ["id", "description", "source", "status", "created_at", "updated_at", "version"]
    assert incident | GOOD | {"status": "open", "version": 1, "updated_at": incident["created_at"]} == incident
    assert str(UUID(incident["id"])) == incident["id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", incident["created_at"])
    assert api.get(response.headers["Location"]).json() == incident


@pytest.mark.parametrize("status", ["open", "in_progress", "resolved", "closed"])
@pytest.mark.parametrize("source", ["operator", "monitoring", "partner"])
def test_every_status_and_source_can_be_reported(api: httpx.Client, status: str, source: str) -> None:
    incident = report(api, status=status, source=source)
    assert (incident["status"], incident["source"]) == (status, source)


@pytest.mark.parametrize(
    "description", ["x", "я" * 10_000, "Отчёт не выгрузился 🛴", 'a\t"\\\r\n\u2028b', "❤\ufe0f", "и\u0306", "\u200f!"]
)
def test_a_description_comes_back_as_it_was_written(api: httpx.Client, description: str) -> None:
    incident = report(api, description)
    assert incident["description"] == description
    assert api.get(f"/incidents/{incident['id']}").json()["description"] == description


@pytest.mark.parametrize(
    ("written", "description"),
    [
        (" \t\n\u00a0 offline \n", "offline"),
        ("x" * 10_000 + "\n", "x" * 10_000),  # white space at the ends does not count
        (" " * 20_000 + "x", "x"),
    ],
)
def test_a_description_is_trimmed_before_it_is_measured(api: httpx.Client, written: str, description: str) -> None:
    assert report(api, written)["description"] == description


def test_a_description_that_is_too_long_is_told_its_limit(api: httpx.Client) -> None:
    response = api.post("/incidents", json=GOOD | {"description": "x" * 10_001})
    assert [each["msg"] for each in assert_problem(response, 422)["errors"]] == [
        "String should have at most 10000 characters"
    ]


@pytest.mark.parametrize("codes", [range(0x20), range(0x7F, 0x80), range(0x80, 0xA0)], ids=["C0", "DEL", "C1"])
def test_a_control_character_is_refused(api: httpx.Client, codes: range) -> None:
    for character in {chr(code) for code in codes} - {"\t", "\n", "\r"}:
        response = api.post("/incidents", json=GOOD | {"description": f"a{character}b"})
        assert bad_input(response) == [["body", "description"]], repr(character)
        (error,) = response.json()["errors"]
        assert error["msg"] == "String should have no control characters other than tabs and line ends"
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize(
    "character",
    "\u200b\ufeff\u2060\u00ad\u0301\ufe0f\u3164\u2800\u202e\u2065\ufff0\u180f\U0001d159\U00013441\U00013442\U000e0fff",
)
def test_a_description_without_a_visible_character_is_refused(api: httpx.Client, character: str) -> None:
    response = api.post("/incidents", json=GOOD | {"description": f"{character} {character}"})
    assert bad_input(response) == [["body", "description"]]
    (error,) = response.json()["errors"]
    assert error["msg"] == "String should have at least 1 visible character"
    assert api.get("/incidents").json() == []


def test_the_longest_description_fits_however_it_is_escaped(api: httpx.Client) -> None:
    description = "🛴" * 10_000
    escaped = json.dumps(GOOD | {"description": description})
    assert len(escaped) > 120_000
    assert api.post("/incidents", content=escaped, headers=JSON).json()["description"] == description


def test_letters_beyond_ascii_are_not_escaped(api: httpx.Client) -> None:
    response = api.post("/incidents", json=GOOD | {"description": "Самокат 🛴"})
    assert "Самокат 🛴".encode() in response.content


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        ({}, [["body", "description"], ["body", "source"]]),
        (GOOD | {"description": ""}, [["body", "description"]]),
        (GOOD | {"description": " \t\u2003\n"}, [["body", "description"]]),
        (GOOD | {"description": "x" * 10_001}, [["body", "description"]]),
        (GOOD | {"description": 7}, [["body", "description"]]),
        (GOOD | {"description": None}, [["body", "description"]]),
        (GOOD | {"description": "\ud800"}, [["body", "description"]]),
        (GOOD | {"source": "telegram"}, [["body", "source"]]),
        (GOOD | {"status": "lost"}, [["body", "status"]]),
        (GOOD | {"status": None}, [["body", "status"]]),
        (GOOD | {"id": "1", "version": 9}, [["body", "id"], ["body", "version"]]),
        (GOOD | {"\ud800": 1}, [["body", "?"]]),
        (
            {"description": "\udfff", "source": "", "status": [], "colour": "red"},
            [["body", "description"], ["body", "source"], ["body", "status"], ["body", "colour"]],
        ),
        ([GOOD], [["body"]]),
        ([], [["body"]]),
        ("text", [["body"]]),
        (None, [["body"]]),
        (7, [["body"]]),
    ],
)
def test_bad_fields_are_all_named_and_nothing_is_written(api: httpx.Client, body: object, bad: list[list[str]]) -> None:
    response = api.post("/incidents", content=json.dumps(body), headers=JSON)
    assert bad_input(response) == bad
    assert api.get("/incidents").json() == []


def test_an_unknown_parameter_is_named_with_the_other_bad_input(api: httpx.Client) -> None:
    response = api.post("/incidents?dry_run=1&source=partner", json={"description": "x"})
    assert bad_input(response) == [["body", "source"], ["query", "dry_run"], ["query", "source"]]
    assert bad_input(api.post("/incidents?dry_run", json=GOOD)) == [["query", "dry_run"]]
    assert api.get("/incidents").json() == []


NOT_UTF_8 = pytest.mark.emulator_gap(
    "aws", "sam-local", reason="a body that is not UTF-8 does not reach the function as it was sent"
)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'a': 1}",
        b"NaN",
        b'{"description": Infinity}',
        b"[" * 60_000,
        b"9" * 5000,
    ],
)
def test_a_body_that_is_not_json_is_a_400(api: httpx.Client, body: bytes) -> None:
    assert assert_problem(api.post("/incidents", content=body, headers=JSON), 400)["detail"] == "The body is not JSON."
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_empty_body_is_called_so(api: httpx.Client, body: bytes) -> None:
    assert assert_problem(api.post("/incidents", content=body, headers=JSON), 400)["detail"] == "The body is empty."


@NOT_UTF_8
@pytest.mark.parametrize(
    "body", [b'"\xff"', json.dumps(GOOD).encode("utf-16"), gzip.compress(b"{}")], ids=["Latin-1", "UTF-16", "gzip"]
)
def test_a_body_in_another_encoding_is_called_so(api: httpx.Client, body: bytes) -> None:
    assert assert_problem(api.post("/incidents", content=body, headers=JSON), 400)["detail"] == "The body is not UTF-8."


def test_a_byte_order_mark_is_taken(api: httpx.Client) -> None:
    assert api.post("/incidents", content=json.dumps(GOOD).encode("utf-8-sig"), headers=JSON).status_code == 201


@pytest.mark.emulator_gap("sam-local", reason="sam local answers a body that is not UTF-8 with a 500 of its own")
@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_a_compressed_body_is_a_415(api: httpx.Client, coding: str) -> None:
    headers = JSON | {"Content-Encoding": coding}
    problem = assert_problem(api.post("/incidents", content=gzip.compress(b"{}"), headers=headers), 415)
    assert "Content-Encoding" in problem["detail"]


def test_an_identity_encoding_is_taken(api: httpx.Client) -> None:
    assert api.post("/incidents", json=GOOD, headers={"Content-Encoding": "Identity"}).status_code == 201


def test_a_body_over_128_kib_is_a_413(api: httpx.Client) -> None:
    body = b'{"description": "x", "source": "operator"}'
    assert api.post("/incidents", content=body.ljust(128 * 1024), headers=JSON).status_code == 201
    assert_problem(api.post("/incidents", content=body.ljust(128 * 1024 + 1), headers=JSON), 413)
    assert len(api.get("/incidents").json()) == 1


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "application/jsonp"],
)
def test_another_content_type_than_json_is_a_415(api: httpx.Client, media_type: str) -> None:
    content = b'{"description": "x", "source": "operator"}'
    assert_problem(api.post("/incidents", content=content, headers={"Content-Type": media_type}), 415)
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json; charset=utf-8",
        "application/json ;charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
    ],
)
def test_every_content_type_of_json_is_taken(api: httpx.Client, media_type: str) -> None:
    content = '{"description": "Самокат", "source": "operator"}'.encode()
    response = api.post("/incidents", content=content, headers={"Content-Type": media_type})
    assert response.json()["description"] == "Самокат"


def test_a_repeated_key_answers_with_the_incident_as_it_stands(api: httpx.Client) -> None:
    key = {"Idempotency-Key": "report-1"}
    first = api.post("/incidents", json=GOOD, headers=key)
    assert "Idempotent-Replayed" not in first.headers
    changed = api.patch(first.headers["Location"], json={"status": "resolved"}).json()
    again = api.post("/incidents/", json=GOOD, headers=key)
    assert again.status_code == 201
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["ETag"] == '"2"'
    assert again.json() == changed
    assert api.get("/incidents").json() == [changed]


@pytest.mark.parametrize("change", [{"description": "Another"}, {"source": "partner"}])
def test_a_key_cannot_be_used_for_another_incident(api: httpx.Client, change: dict[str, str]) -> None:
    key = {"Idempotency-Key": "report-1"}
    first = api.post("/incidents", json=GOOD, headers=key).json()
    assert_problem(api.post("/incidents", json=GOOD | change, headers=key), 422)
    assert api.get("/incidents").json() == [first]


def test_a_quoted_key_is_the_same_key(api: httpx.Client) -> None:
    keys = ["report,1", '"report,1"']
    ids = {api.post("/incidents", json=GOOD, headers={"Idempotency-Key": key}).json()["id"] for key in keys}
    assert len(ids) == 1


@pytest.mark.parametrize("key", ["", '""', '"open', "two words", "x" * 256, f'"{"x" * 256}"', "клю́ч".encode()])
def test_a_key_is_1_to_255_visible_ascii_characters(api: httpx.Client, key: str | bytes) -> None:
    response = api.post(
        "/incidents", json=GOOD, headers={b"Idempotency-Key": key.encode() if isinstance(key, str) else key}
    )
    assert bad_input(response) == [["header", "idempotency-key"]]
    (error,) = response.json()["errors"]
    assert error["msg"] == "Input should be 1 to 255 visible ASCII characters"
    assert api.get("/incidents").json() == []


def test_a_body_without_a_content_type_is_taken_for_json(api: httpx.Client) -> None:
    response = api.post("/incidents", content=json.dumps(GOOD))
    assert "Content-Type" not in response.request.headers
    assert response.status_code == 201


@pytest.mark.parametrize("path", ["/incidents/1", "/incidents/1/2", "/incidents//"])
def test_nothing_is_created_under_another_path(api: httpx.Client, path: str) -> None:
    assert "route" in assert_problem(api.post(path, json=GOOD), 404)["detail"]
    assert api.get("/incidents").json() == []
