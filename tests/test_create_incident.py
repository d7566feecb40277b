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
def test_a_created_incident_is_returned_and_stored(api: httpx.Client, path: str) -> None:
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
    ("sent", "stored"),
    [
        *((text, text) for text in ("Самокат 🛴", "я" * 10_000, 'a\t"\\\r\n\u2028b', "❤\ufe0f", "и\u0306", "\u200f!")),
        (" \t\n\u00a0 offline \n", "offline"),
        ("x" * 10_000 + "\n", "x" * 10_000),
        (" " * 20_000 + "x", "x"),
    ],
)
def test_a_description_is_trimmed_and_otherwise_kept(api: httpx.Client, sent: str, stored: str) -> None:
    incident = report(api, sent)
    assert incident["description"] == stored
    response = api.get(f"/incidents/{incident['id']}")
    assert response.json() == incident
    assert json.dumps(stored, ensure_ascii=False).encode() in response.content, "escapes in place of UTF-8"


def test_the_longest_description_fits_even_if_fully_escaped(api: httpx.Client) -> None:
    description = "🛴" * 10_000
    escaped = json.dumps(GOOD | {"description": description})
    assert len(escaped) > 120_000
    assert api.post("/incidents", content=escaped, headers=JSON).json()["description"] == description


CONTROL = [*range(9), *range(0xB, 0xD), *range(0xE, 0x20), *range(0x7F, 0xA0)]
INVISIBLE = (
    "\u2003\u200b\ufeff\u2060\u00ad\u0301\ufe0f\u3164\u2800\u202e\u2065\ufff0\u180f"
    "\U0001d159\U00013441\U00013442\U000e0fff"
)


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        (["x" * 10_001], "String should have at most 10000 characters"),
        (
            [f"a{chr(code)}b" for code in CONTROL],
            "String should have no control characters other than tabs and line ends",
        ),
        (["", *(f"{each} {each}\n" for each in INVISIBLE)], "String should have at least 1 visible character"),
    ],
    ids=["too long", "control characters", "nothing visible"],
)
def test_an_invalid_description_is_refused(api: httpx.Client, descriptions: list[str], message: str) -> None:
    for description in descriptions:
        response = api.post("/incidents", json=GOOD | {"description": description})
        (error,) = assert_problem(response, 422)["errors"]
        assert error == {"loc": ["body", "description"], "msg": message}, ascii(description)
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        ({}, [["body", "description"], ["body", "source"]]),
        (GOOD | {"description": 7}, [["body", "description"]]),
        (GOOD | {"description": None}, [["body", "description"]]),
        (GOOD | {"source": "telegram"}, [["body", "source"]]),
        (GOOD | {"status": "lost"}, [["body", "status"]]),
        (GOOD | {"status": None}, [["body", "status"]]),
        (GOOD | {"id": "1", "version": 9}, [["body", "id"], ["body", "version"]]),
        (GOOD | {"\ud800": 1}, [["body", "?"]]),
        (
            {"description": "\udfff", "source": "", "status": [], "colour": "red"},
            [["body", "description"], ["body", "source"], ["body", "status"], ["body", "colour"]],
        ),
        *((body, [["body"]]) for body in ([GOOD], [], "text", None, 7)),
    ],
)
def test_every_invalid_field_is_named_and_nothing_stored(api: httpx.Client, body: object, bad: list[list[str]]) -> None:
    response = api.post("/incidents", content=json.dumps(body), headers=JSON)
    assert bad_input(response) == bad
    assert api.get("/incidents").json() == []


def test_unknown_parameters_are_named_with_invalid_fields(api: httpx.Client) -> None:
    response = api.post("/incidents?dry_run&source=partner", json={"description": "x"})
    assert bad_input(response) == [["body", "source"], ["query", "dry_run"], ["query", "source"]]
    assert bad_input(api.post("/incidents?dry_run=1", json=GOOD)) == [["query", "dry_run"]]
    assert api.get("/incidents").json() == []


NOT_UTF_8 = pytest.mark.emulator_gap("aws", "sam-local", reason="the emulator alters a body that is not UTF-8")


@pytest.mark.parametrize(
    ("detail", "body"),
    [
        ("The body is empty.", b""),
        ("The body is empty.", b" \n"),
        ("The body is not JSON.", b"{"),
        ("The body is not JSON.", b"{'a': 1}"),
        ("The body is not JSON.", b"NaN"),
        ("The body is not JSON.", b'{"description": Infinity}'),
        ("The body is not JSON.", b"[" * 60_000),
        ("The body is not JSON.", b"9" * 5000),
        pytest.param("The body is not UTF-8.", b'"\xff"', marks=NOT_UTF_8, id="Latin-1"),
        pytest.param("The body is not UTF-8.", json.dumps(GOOD).encode("utf-16"), marks=NOT_UTF_8, id="UTF-16"),
        pytest.param("The body is not UTF-8.", gzip.compress(b"{}"), marks=NOT_UTF_8, id="gzip"),
    ],
)
def test_an_unreadable_body_is_a_400(api: httpx.Client, detail: str, body: bytes) -> None:
    assert assert_problem(api.post("/incidents", content=body, headers=JSON), 400)["detail"] == detail
    assert api.get("/incidents").json() == []


@pytest.mark.emulator_gap("sam-local", reason="sam local itself answers 500 to a body that is not UTF-8")
@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_a_compressed_body_is_a_415(api: httpx.Client, coding: str) -> None:
    headers = JSON | {"Content-Encoding": coding}
    problem = assert_problem(api.post("/incidents", content=gzip.compress(b"{}"), headers=headers), 415)
    assert "Content-Encoding" in problem["detail"]


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "application/jsonp"],
)
def test_a_content_type_other_than_json_is_a_415(api: httpx.Client, media_type: str) -> None:
    response = api.post("/incidents", content=json.dumps(GOOD), headers={"Content-Type": media_type})
    assert_problem(response, 415)
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "Application/JSON ;charset=utf-8"},
        {"Content-Type": "application/vnd.api+json"},
        JSON | {"Content-Encoding": "Identity"},
    ],
)
def test_json_may_be_declared_in_several_ways(api: httpx.Client, headers: dict[str, str]) -> None:
    content = '{"description": "Самокат", "source": "operator"}'.encode()
    response = api.post("/incidents", content=content, headers=headers)
    assert ("Content-Type" in response.request.headers) == ("Content-Type" in headers)
    assert response.json()["description"] == "Самокат"


def test_a_byte_order_mark_is_ignored(api: httpx.Client) -> None:
    assert api.post("/incidents", content=json.dumps(GOOD).encode("utf-8-sig"), headers=JSON).status_code == 201


def test_a_body_over_128_kib_is_a_413(api: httpx.Client) -> None:
    body = json.dumps(GOOD).encode()
    assert api.post("/incidents", content=body.ljust(128 * 1024), headers=JSON).status_code == 201
    assert_problem(api.post("/incidents", content=body.ljust(128 * 1024 + 1), headers=JSON), 413)
    assert len(api.get("/incidents").json()) == 1


def test_a_repeated_key_returns_the_incident_in_its_current_state(api: httpx.Client) -> None:
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
def test_a_key_cannot_be_reused_for_another_incident(api: httpx.Client, change: dict[str, str]) -> None:
    key = {"Idempotency-Key": "report-1"}
    first = api.post("/incidents", json=GOOD, headers=key).json()
    assert_problem(api.post("/incidents", json=GOOD | change, headers=key), 422)
    assert api.get("/incidents").json() == [first]


def test_a_quoted_key_is_the_same_key(api: httpx.Client) -> None:
    keys = ["report,1", '"report,1"']
    ids = {api.post("/incidents", json=GOOD, headers={"Idempotency-Key": key}).json()["id"] for key in keys}
    assert len(ids) == 1


@pytest.mark.parametrize("key", ["", '""', '"open', "two words", "x" * 256, f'"{"x" * 256}"', "клю́ч"])
def test_a_key_is_1_to_255_visible_ascii_characters(api: httpx.Client, key: str) -> None:
    response = api.post("/incidents", json=GOOD, headers={b"Idempotency-Key": key.encode()})
    (error,) = assert_problem(response, 422)["errors"]
    assert error == {"loc": ["header", "idempotency-key"], "msg": "Input should be 1 to 255 visible ASCII characters"}
    assert api.get("/incidents").json() == []


@pytest.mark.parametrize("path", ["/incidents/1", "/incidents/1/2", "/incidents//"])
def test_nothing_is_created_at_another_path(api: httpx.Client, path: str) -> None:
    assert "route" in assert_problem(api.post(path, json=GOOD), 404)["detail"]
    assert api.get("/incidents").json() == []
