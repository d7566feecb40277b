"""GET /incidents, GET /incidents/{id} and GET /incidents/{id}/history."""

import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.steps import UNKNOWN_IDS, assert_problem, bad_input, follow, report

POSITION = "2025-11-08T10:00:00.123Z#6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"


def cursor(position: str) -> str:
    return urlsafe_b64encode(position.encode()).decode().rstrip("=")


@pytest.mark.parametrize("path", ["/incidents", "/incidents/"])
def test_an_empty_list_is_an_empty_array(api: httpx.Client, path: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.json()) == (200, [])
    assert response.headers["Content-Type"] == "application/json"
    assert "Link" not in response.headers


@pytest.mark.parametrize(
    ("query", "statuses"),
    [
        ("", ["open", "in_progress", "resolved", "closed"]),
        ("?status=open", ["open"]),
        ("?status=open&status=in_progress", ["open", "in_progress"]),
        ("?status=open,in_progress", ["open", "in_progress"]),
        ("?status=open&status=in_progress,closed", ["open", "in_progress", "closed"]),
        ("?status=open%2Cclosed", ["open", "closed"]),
        ("?status=open&status=open", ["open"]),
    ],
)
def test_a_list_can_be_filtered_by_status(api: httpx.Client, query: str, statuses: list[str]) -> None:
    for status in ("open", "in_progress", "resolved", "closed"):
        report(api, status=status)
    assert sorted(each["status"] for each in api.get(f"/incidents/{query}").json()) == sorted(statuses)


def test_a_page_has_50_incidents_by_default(api: httpx.Client) -> None:
    for _ in range(51):
        report(api)
    assert [len(page) for page in follow(api, "/incidents")] == [50, 1]
    assert [len(page) for page in follow(api, "/incidents?limit=51")] == [51]


def test_links_lead_through_the_list_newest_first(api: httpx.Client) -> None:
    incidents = [report(api, status=status) for status in ("open", "in_progress", "resolved", "open", "open")]
    del incidents[2]
    pages = list(follow(api, "/incidents/?status=open,in_progress&limit=3"))
    assert [len(page) for page in pages] == [3, 1]
    newest_first = sorted(incidents, key=lambda incident: (incident["created_at"], incident["id"]), reverse=True)
    assert [incident for page in pages for incident in page] == newest_first


@pytest.mark.emulator_gap("aws", reason="the emulator drops the path's trailing slash")
def test_a_link_repeats_the_parameters_and_converts_times(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        report(api)
    query = {
        "status": ",".join(["open", "closed"] * 450),
        "limit": "1",
        "since": "2025-11-08T22:00:00+03:00",
        "until": "2999-11-08T22:00:00.5+03:00",
    }
    with monkeypatch.context() as abroad:  # the local time zone must not matter
        abroad.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        link = api.get("/incidents/", params=query).links["next"]["url"]
    time.tzset()
    assert urlsplit(link)._replace(query="").geturl() == f"{api.base_url}/incidents/"
    parameters = parse_qs(urlsplit(link).query)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", parameters.pop("cursor")[0])
    assert parameters == {
        "status": ["open", "closed"],
        "limit": ["1"],
        "since": ["2025-11-08T19:00:00.000Z"],
        "until": ["2999-11-08T19:00:00.500Z"],
    }


TIME = "Input should be a time of RFC 3339, such as 2025-11-08T22:00:00Z or 2025-11-08T22:00:00+03:00"
MESSAGES = {"since": TIME, "until": TIME, "cursor": "Input should be a cursor from a Link header"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("since", value) for value in ("yesterday", "", "2025-11-08", "2025-11-08T22:00:00", "2025-11-08T22:00Z")),
        ("since", "2025-02-30T22:00:00Z"),
        ("since", "2025-11-08T25:00:00Z"),
        ("since", "0000-01-01T00:00:00Z"),
        ("since", "0001-01-01T00:00:00%2B01:00"),
        ("since", "2025-11-08T22:00:00.٣Z"),
        # No leap seconds: RFC 3339, section 5.7
        *(("since", f"2016-12-31T23:{rest}") for rest in ("58:60Z", "59:60-01:00", "59:61Z")),
        ("until", "9999-12-31T23:59:59.9999Z"),
        *(("until", f"2025-11-08T22:00:00{offset}") for offset in ("%2B99:00", "Z%0A")),
        ("until", "%D9%A2025-11-08T22:00:00Z"),
        *(("cursor", value) for value in ("garbage", "", "%D1%8F%00", cursor(POSITION + "0"), cursor(f"{POSITION}\n"))),
        ("cursor", cursor(POSITION.replace("2025", "٢٠٢٥"))),
        *((name, "open") for name in ("source", "Status")),
    ],
)
def test_an_error_says_what_a_parameter_should_be(api: httpx.Client, name: str, value: str) -> None:
    problem = assert_problem(api.get(f"/incidents?{name}={value}"), 422)
    assert problem["errors"] == [{"loc": ["query", name], "msg": MESSAGES.get(name, "Unknown parameter")}]


@pytest.mark.parametrize(
    ("query", "bad"),
    [
        *(
            (f"limit={value}", [["limit"]])
            for value in ("0", "101", "-1", "ten", "5.0", "1_0", "%2B5", "%205", "", "1&limit=2")
        ),
        ("status=nonsense", [["status", 0]]),
        ("status=", [["status", 0]]),
        ("status=open&status=x&status=y", [["status", 1], ["status", 2]]),
        ("statuses=open&page=2", [["page"], ["statuses"]]),
        ("limit=0&%D1%8F=1&=x", [["limit"], [""], ["я"]]),
        ("since=1&until=2", [["since"], ["until"]]),
        ("since=2025-11-08T22:00:00.001Z&until=2025-11-08T22:00:00Z", [["since"]]),
        ("status=x&limit=0&cursor=0", [["status", 0], ["limit"], ["cursor"]]),
    ],
)
def test_every_invalid_parameter_is_named(api: httpx.Client, query: str, bad: list[list[str | int]]) -> None:
    assert bad_input(api.get(f"/incidents?{query}")) == [["query", *location] for location in bad]


def test_a_list_can_be_bounded_in_time(api: httpx.Client) -> None:
    incidents = [created_apart(api) for _ in range(3)]
    first, second, third = (incident["created_at"] for incident in incidents)

    def listed(**query: str) -> list[int]:
        found = api.get("/incidents", params={"status": "open"} | query).json()
        return [incidents.index(incident) for incident in found]

    assert listed(since=second) == [2, 1]
    assert listed(until=second) == [0]
    assert listed(since=first, until=third) == [1, 0]
    assert listed(since=second, until=second) == []
    # Part of a millisecond is rounded up.
    later = second.replace("Z", "9Z")
    assert (listed(since=later), listed(until=later)) == ([2], [1, 0])
    assert listed(since=second.replace("Z", "000Z")) == [2, 1]


def created_apart(api: httpx.Client) -> dict[str, str]:
    """An open incident that is the only one of its millisecond."""
    incident = report(api)
    while report(api, status="resolved")["created_at"] == incident["created_at"]:
        pass
    return incident


@pytest.mark.parametrize(
    "instant",
    [
        "2999-11-08T22:00:00Z",
        "2999-11-08t22:00:00z",
        "2999-11-09T01:00:00%2B03:00",
        "2999-11-09T01:00:00+03:00",  # the plus means a space
        "2999-11-08T16:30:00.000-05:30",
        "2999-11-08 22:00:00.000000000Z",
        "2999-11-08T21:59:59.9999Z",
        # Leap seconds: RFC 3339, section 5.8
        "2998-12-31T23:59:60Z",
        "2998-12-31T15:59:60.5-08:00",
    ],
)
def test_a_time_may_have_any_form_of_rfc_3339(api: httpx.Client, instant: str) -> None:
    report(api)
    assert api.get(f"/incidents?since={instant}").json() == []
    assert len(api.get(f"/incidents?until={instant}").json()) == 1


@pytest.mark.parametrize(
    ("year", "query", "found"), [("2025", "", 0), ("2999", "", 1), ("2999", "&until=2025-11-08T22:00:00Z", 0)]
)
def test_a_cursor_may_be_any_position(api: httpx.Client, year: str, query: str, found: int) -> None:
    report(api)
    position = POSITION.replace("2025", year)
    assert len(api.get(f"/incidents?cursor={cursor(position)}{query}").json()) == found


@pytest.mark.parametrize("character", ["🛴", '"'])
def test_a_page_of_the_longest_descriptions_fits_into_a_response(api: httpx.Client, character: str) -> None:
    """Each character has 4 bytes: in UTF-8, or escaped once in the body and once more in the function's response."""
    for _ in range(10):
        report(api, f"a{character * 9_998}z")
    response = {"statusCode": 200, "headers": {}, "body": api.get("/incidents").text}
    size = len(json.dumps(response, ensure_ascii=False).encode())
    # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html; the exact number is in Lambda's error.
    assert 400_000 < size < 6_291_556 / 10


# ---- GET /incidents/{id} and GET /incidents/{id}/history

EACH = pytest.mark.parametrize("suffix", ["", "/history"], ids=["incident", "history"])


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_an_incident_can_be_read_by_its_id(api: httpx.Client, case: Callable[[str], str]) -> None:
    incident = report(api)
    response = api.get(f"/incidents/{case(incident['id'])}")
    assert (response.status_code, response.json()) == (200, incident)
    assert response.headers["ETag"] == '"1"'


@pytest.mark.emulator_gap("aws", reason="the emulator fails on a 304")
@pytest.mark.parametrize("known", ['"1"', 'W/"1"', '"7", "1"', "*"])
@EACH
def test_what_the_client_already_has_is_a_304(api: httpx.Client, known: str, suffix: str) -> None:
    path = f"/incidents/{report(api)['id']}"
    response = api.get(path + suffix, headers={"If-None-Match": known})
    assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", '"1"')
    api.patch(path, json={"status": "closed"})
    assert api.get(path + suffix, headers={"If-None-Match": known}).status_code == (304 if known == "*" else 200)


@pytest.mark.parametrize("id", [*UNKNOWN_IDS, "a%2Fb"])
@EACH
def test_an_unknown_id_is_a_404(api: httpx.Client, id: str, suffix: str) -> None:
    assert_problem(api.get(f"/incidents/{id}{suffix}"), 404)


@pytest.mark.parametrize("path", ["1/2", "1/2/", "1//"])
def test_another_path_below_an_incident_is_a_404(api: httpx.Client, path: str) -> None:
    assert "route" in assert_problem(api.get(f"/incidents/{path}"), 404)["detail"]


def test_the_history_has_every_version_oldest_first(api: httpx.Client, caller: str | None) -> None:
    versions = [report(api, status="in_progress")]
    path = f"/incidents/{versions[0]['id']}"
    for status in ("resolved", "open", "closed"):
        versions.append(api.patch(path, json={"status": status}).json())
        response = api.get(f"{path}/history")
        assert response.headers["ETag"] == f'"{len(versions)}"'
        assert response.json() == [
            {"version": number, "status": each["status"], "at": each["updated_at"], "by": caller, "comment": None}
            for number, each in enumerate(versions, 1)
        ]
