"""GET /incidents, GET /incidents/{id} and GET /incidents/{id}/history."""

import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from pydantic import JsonValue

from tests.steps import UNKNOWN_IDS, assert_problem, bad_input, follow, report

POSITION = "2025-11-08T10:00:00.123Z#6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"


def encoded(position: str) -> str:
    """A cursor, or what might be taken for one."""
    return urlsafe_b64encode(position.encode()).decode().rstrip("=")


@pytest.mark.parametrize("path", ["/incidents", "/incidents/"])
def test_an_empty_list_is_an_empty_array(api: httpx.Client, path: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.json()) == (200, [])
    assert response.headers["Content-Type"] == "application/json"
    assert "Link" not in response.headers


def test_the_newest_incident_comes_first(api: httpx.Client) -> None:
    incidents = [report(api, f"number {number}") for number in range(5)]
    listed = api.get("/incidents").json()
    assert listed == sorted(incidents, key=lambda incident: (incident["created_at"], incident["id"]), reverse=True)


@pytest.mark.parametrize(
    ("query", "statuses"),
    [
        ("", {"open", "in_progress", "resolved", "closed"}),
        ("?status=open", {"open"}),
        ("?status=open&status=in_progress", {"open", "in_progress"}),
        ("?status=open,in_progress", {"open", "in_progress"}),
        ("?status=open&status=in_progress,closed", {"open", "in_progress", "closed"}),
        ("?status=open%2Cclosed", {"open", "closed"}),
        ("?status=open&status=open", {"open"}),
    ],
)
def test_a_list_can_be_filtered_by_status(api: httpx.Client, query: str, statuses: set[str]) -> None:
    incidents = [report(api, status=status) for status in ("open", "in_progress", "resolved", "closed")]
    listed = api.get(f"/incidents/{query}").json()
    assert {incident["id"] for incident in listed} == {i["id"] for i in incidents if i["status"] in statuses}
    assert len(listed) == len(statuses)


def test_an_incident_is_listed_under_its_new_status_alone(api: httpx.Client) -> None:
    incident = report(api)
    changed = api.patch(f"/incidents/{incident['id']}", json={"status": "resolved"}).json()
    assert api.get("/incidents?status=open").json() == []
    assert api.get("/incidents?status=resolved").json() == [changed]


def test_a_page_has_50_incidents_by_default(api: httpx.Client) -> None:
    for _ in range(51):
        report(api)
    assert [len(page) for page in follow(api, "/incidents")] == [50, 1]
    assert [len(page) for page in follow(api, "/incidents?limit=51")] == [51]


def test_a_link_leads_to_the_rest_of_the_list(api: httpx.Client) -> None:
    incidents = [report(api, status=status) for status in ("open", "in_progress", "resolved", "open", "open")]
    wanted = [incident["id"] for incident in reversed(incidents) if incident["status"] != "resolved"]
    pages = list(follow(api, "/incidents/?status=open,in_progress&limit=3"))
    assert [len(page) for page in pages] == [3, 1]
    assert sorted(incident["id"] for page in pages for incident in page) == sorted(wanted)


@pytest.mark.emulator_gap("aws", reason="the emulator drops the path's trailing slash")
def test_a_link_repeats_the_filter_and_the_limit(api: httpx.Client) -> None:
    for _ in range(3):
        report(api)
    link = api.get("/incidents/?status=open&status=closed&limit=2").links["next"]["url"]
    assert urlsplit(link)._replace(query="").geturl() == f"{api.base_url}/incidents/"
    assert parse_qs(urlsplit(link).query).items() >= {"status": ["open", "closed"], "limit": ["2"]}.items()


def test_a_link_names_each_status_once(api: httpx.Client) -> None:
    for _ in range(2):
        report(api)
    link = api.get(f"/incidents?limit=1&status={','.join(['open', 'closed'] * 450)}").links["next"]["url"]
    assert parse_qs(urlsplit(link).query)["status"] == ["open", "closed"]
    assert len(api.get(link).json()) == 1


def test_an_unknown_parameter_is_called_unknown(api: httpx.Client) -> None:
    problem = assert_problem(api.get("/incidents?source=partner"), 422)
    assert problem["errors"] == [{"loc": ["query", "source"], "msg": "Unknown parameter"}]


@pytest.mark.parametrize(
    ("query", "bad"),
    [
        ("status=nonsense", [["query", "status", 0]]),
        ("status=", [["query", "status", 0]]),
        ("status=open&status=x&status=y", [["query", "status", 1], ["query", "status", 2]]),
        ("limit=0", [["query", "limit"]]),
        ("limit=101", [["query", "limit"]]),
        ("limit=-1", [["query", "limit"]]),
        ("limit=ten", [["query", "limit"]]),
        ("limit=5.0", [["query", "limit"]]),
        ("limit=1_0", [["query", "limit"]]),
        ("limit=%2B5", [["query", "limit"]]),
        ("limit=%205", [["query", "limit"]]),
        ("since=2016-12-31T23:58:60Z", [["query", "since"]]),
        ("since=2016-12-31T23:59:60-01:00", [["query", "since"]]),
        ("since=2016-12-31T23:59:61Z", [["query", "since"]]),
        ("limit=", [["query", "limit"]]),
        ("limit=1&limit=2", [["query", "limit"]]),
        ("source=partner", [["query", "source"]]),
        ("Status=open", [["query", "Status"]]),
        ("statuses=open&page=2", [["query", "page"], ["query", "statuses"]]),
        ("limit=0&%D1%8F=1&=x", [["query", "limit"], ["query", ""], ["query", "я"]]),
        ("since=yesterday", [["query", "since"]]),
        ("since=", [["query", "since"]]),
        ("since=2025-11-08", [["query", "since"]]),
        ("since=2025-11-08T22:00:00", [["query", "since"]]),
        ("since=2025-11-08T22:00Z", [["query", "since"]]),
        ("since=2025-02-30T22:00:00Z", [["query", "since"]]),
        ("since=2025-11-08T25:00:00Z", [["query", "since"]]),
        ("since=0000-01-01T00:00:00Z", [["query", "since"]]),
        ("since=2025-11-08T22:00:00.٣Z", [["query", "since"]]),
        ("since=0001-01-01T00:00:00%2B01:00", [["query", "since"]]),
        ("until=9999-12-31T23:59:59.9999Z", [["query", "until"]]),
        ("until=2025-11-08T22:00:00%2B99:00", [["query", "until"]]),
        ("until=%D9%A2025-11-08T22:00:00Z", [["query", "until"]]),
        ("until=2025-11-08T22:00:00Z%0A", [["query", "until"]]),
        ("since=1&until=2", [["query", "since"], ["query", "until"]]),
        ("since=2025-11-08T22:00:00.001Z&until=2025-11-08T22:00:00Z", [["query", "since"]]),
        ("cursor=garbage", [["query", "cursor"]]),
        ("cursor=", [["query", "cursor"]]),
        (f"cursor={encoded(POSITION + '0')}", [["query", "cursor"]]),
        (f"cursor={encoded(POSITION + chr(10))}", [["query", "cursor"]]),
        (f"cursor={encoded(POSITION.replace('2025', '٢٠٢٥'))}", [["query", "cursor"]]),
        ("cursor=%D1%8F%00", [["query", "cursor"]]),
        ("status=x&limit=0&cursor=0", [["query", "status", 0], ["query", "limit"], ["query", "cursor"]]),
    ],
)
def test_bad_parameters_are_all_named(api: httpx.Client, query: str, bad: list[list[str | int]]) -> None:
    response = api.get(f"/incidents?{query}")
    assert bad_input(response) == bad


TIME = "Input should be a time of RFC 3339, such as 2025-11-08T22:00:00Z or 2025-11-08T22:00:00+03:00"


@pytest.mark.parametrize(
    ("query", "says"),
    [("cursor=garbage", "Input should be a cursor from a Link header"), ("until=yesterday", TIME)],
)
def test_what_a_parameter_should_be_is_said(api: httpx.Client, query: str, says: str) -> None:
    (error,) = assert_problem(api.get(f"/incidents?{query}"), 422)["errors"]
    assert error["msg"] == says


def test_a_list_can_be_bounded_in_time(api: httpx.Client) -> None:
    oldest, middle, newest = (created_apart(api) for _ in range(3))

    def listed(**query: str) -> list[str]:
        pages = follow(api, f"/incidents?{urlencode({'limit': 1, 'status': 'open'} | query)}")
        return [incident["id"] for page in pages for incident in page]

    times = [incident["created_at"] for incident in (oldest, middle, newest)]
    assert listed(since=times[1]) == [newest["id"], middle["id"]]
    assert listed(until=times[1]) == [oldest["id"]]
    assert listed(since=times[0], until=times[2]) == [middle["id"], oldest["id"]]
    assert listed(since=times[1], until=times[1]) == []
    assert listed(since=times[0], until=times[2], status="closed") == []
    # A part of a millisecond: the incident of this millisecond is older.
    later = times[1].replace("Z", "9Z")
    assert listed(since=later) == [newest["id"]]
    assert listed(until=later) == [middle["id"], oldest["id"]]
    # No part of one, however many digits it is written with.
    assert listed(since=times[1].replace("Z", "000Z")) == [newest["id"], middle["id"]]


def created_apart(api: httpx.Client) -> dict[str, str]:
    """An incident that is the only one of its millisecond."""
    incident = report(api)
    while report(api, "to be left out", status="resolved")["created_at"] == incident["created_at"]:
        pass
    return incident


@pytest.mark.parametrize(
    "since",
    [
        "2999-11-08T22:00:00Z",
        "2999-11-08t22:00:00z",
        "2999-11-09T01:00:00+03:00",
        "2999-11-08T16:30:00.000-05:30",
        "2999-11-08 22:00:00.000000000Z",
        "2999-11-08T21:59:59.9999Z",
        # Leap seconds: RFC 3339, section 5.8
        "2998-12-31T23:59:60Z",
        "2998-12-31T15:59:60.5-08:00",
    ],
)
def test_a_time_may_have_any_offset(api: httpx.Client, since: str) -> None:
    report(api)
    assert api.get("/incidents", params={"since": since}).json() == []
    assert len(api.get("/incidents", params={"until": since}).json()) == 1


def test_a_time_does_not_depend_on_where_the_api_runs(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        report(api)
    with monkeypatch.context() as abroad:
        abroad.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        link = api.get("/incidents?since=2025-11-08T22:00:00Z&limit=1").links["next"]["url"]
    time.tzset()
    assert parse_qs(urlsplit(link).query)["since"] == ["2025-11-08T22:00:00.000Z"]


def test_a_plus_that_a_client_forgot_to_encode_is_understood(api: httpx.Client) -> None:
    report(api)
    assert len(api.get("/incidents?since=2025-11-08T22:00:00+03:00&until=2999-11-08T22:00:00+03:00").json()) == 1


def test_a_link_repeats_the_bounds(api: httpx.Client) -> None:
    for _ in range(2):
        report(api)
    query = {"since": "2025-11-08T22:00:00+03:00", "until": "2999-11-08T22:00:00.5+03:00", "limit": "1"}
    link = api.get("/incidents", params=query).links["next"]["url"]
    bounds = {"since": ["2025-11-08T19:00:00.000Z"], "until": ["2999-11-08T19:00:00.500Z"]}
    asked = parse_qs(urlsplit(link).query)
    assert asked.items() >= bounds.items()
    assert re.fullmatch(r"[A-Za-z0-9_-]+", asked["cursor"][0])


def test_a_cursor_need_not_be_an_incidents(api: httpx.Client) -> None:
    report(api)
    assert api.get(f"/incidents?cursor={encoded(POSITION)}").json() == []


def test_a_cursor_does_not_lift_the_bound(api: httpx.Client) -> None:
    report(api)
    cursor = encoded(POSITION.replace("2025", "2999"))
    assert len(api.get(f"/incidents?cursor={cursor}").json()) == 1
    assert api.get(f"/incidents?cursor={cursor}&until=2025-11-08T22:00:00Z").json() == []


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_one_incident_can_be_read(api: httpx.Client, case: Callable[[str], str]) -> None:
    incident = report(api)
    response = api.get(f"/incidents/{case(incident['id'])}")
    assert (response.status_code, response.json()) == (200, incident)
    assert response.headers["ETag"] == '"1"'


@pytest.mark.emulator_gap("aws", reason="the emulator fails on a 304")
@pytest.mark.parametrize("known", ['"1"', 'W/"1"', '"7", "1"', "*"])
def test_an_incident_that_the_client_has_is_not_sent_again(api: httpx.Client, known: str) -> None:
    path = f"/incidents/{report(api)['id']}"
    response = api.get(path, headers={"If-None-Match": known})
    assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", '"1"')
    api.patch(path, json={"status": "closed"})
    if known != "*":
        assert api.get(path, headers={"If-None-Match": known}).json()["status"] == "closed"


@pytest.mark.parametrize("id", [*UNKNOWN_IDS, "a%2Fb"])
def test_an_unknown_id_is_a_404(api: httpx.Client, id: str) -> None:
    assert_problem(api.get(f"/incidents/{id}"), 404)


def test_an_id_with_a_trailing_line_feed_is_unknown(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    assert_problem(api.get(f"{path}%0A"), 404)
    assert_problem(api.patch(f"{path}%0A", json={"status": "closed"}), 404)


@pytest.mark.parametrize("path", ["1/2", "1/2/", "1//"])
def test_a_path_below_an_incident_is_a_404(api: httpx.Client, path: str) -> None:
    assert "route" in assert_problem(api.get(f"/incidents/{path}"), 404)["detail"]


def test_reading_one_incident_takes_no_parameter(api: httpx.Client) -> None:
    incident = report(api)
    assert bad_input(api.get(f"/incidents/{incident['id']}?fields=status")) == [["query", "fields"]]


@pytest.mark.parametrize("character", ["🛴", '"', "\\", "\n", "я"])
def test_a_page_of_the_longest_descriptions_is_within_lambdas_limit(api: httpx.Client, character: str) -> None:
    """By a tenth of one. A character takes at most 4 bytes of UTF-8, or 4 where JSON escapes it twice: in the body, and in Lambda's response."""
    for _ in range(10):
        report(api, f"a{character * 9_998}z")
    body = api.get("/incidents?limit=100").text
    assert len(body) > 10 * 10_000
    response = json.dumps(
        {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": body}, ensure_ascii=False
    )
    # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html, and the bytes that Lambda's error names
    assert 10 * len(response.encode()) < 6_291_556


# ---- GET /incidents/{id}/history


def history(api: httpx.Client, id: str) -> list[dict[str, JsonValue]]:
    """The incident's history, which agrees with the incident."""
    response = api.get(f"/incidents/{id}/history")
    incident = api.get(f"/incidents/{id}")
    assert response.status_code == 200, response.text
    entries: list[dict[str, JsonValue]] = response.json()
    last = {
        name: incident.json()[field]
        for name, field in [("version", "version"), ("status", "status"), ("at", "updated_at")]
    }
    assert {name: entries[-1][name] for name in last} == last
    assert response.headers["ETag"] == incident.headers["ETag"]
    return entries


def test_a_new_incident_has_one_version(api: httpx.Client, caller: str | None) -> None:
    incident = report(api, status="in_progress")
    assert history(api, incident["id"]) == [
        {"version": 1, "status": "in_progress", "at": incident["created_at"], "by": caller, "comment": None}
    ]


def test_every_change_is_a_version_oldest_first(api: httpx.Client, caller: str | None) -> None:
    incident = report(api)
    path = f"/incidents/{incident['id']}"
    changes = [api.patch(path, json={"status": status}).json() for status in ("in_progress", "resolved", "open")]
    assert history(api, incident["id"]) == [
        {"version": each["version"], "status": each["status"], "at": each["updated_at"], "by": caller, "comment": None}
        for each in [incident, *changes]
    ]


def test_what_changes_nothing_adds_no_version(api: httpx.Client) -> None:
    new = {"description": "x", "source": "operator"}
    for _ in range(2):
        incident = api.post("/incidents", json=new, headers={"Idempotency-Key": "1"}).json()
    path = f"/incidents/{incident['id']}"
    for headers in ({}, {"If-Match": '"1"'}, {"If-Match": '"7"'}):
        api.patch(path, json={"status": "open"}, headers=headers)
    api.patch(path, json={"status": "closed"}, headers={"If-Match": '"7"'})
    assert [entry["version"] for entry in history(api, incident["id"])] == [1]


@pytest.mark.parametrize("id", ["1", "00000000-0000-4000-8000-000000000000"])
def test_an_unknown_id_has_no_history(api: httpx.Client, id: str) -> None:
    assert "incident" in assert_problem(api.get(f"/incidents/{id}/history"), 404)["detail"]


@pytest.mark.emulator_gap("aws", reason="the emulator fails on a 304")
def test_a_history_that_the_client_has_is_not_sent_again(api: httpx.Client) -> None:
    path = f"/incidents/{report(api)['id']}"
    response = api.get(f"{path}/history", headers={"If-None-Match": '"1"'})
    assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", '"1"')
    api.patch(path, json={"status": "closed"})
    assert len(api.get(f"{path}/history", headers={"If-None-Match": '"1"'}).json()) == 2


def test_a_history_takes_no_parameter(api: httpx.Client) -> None:
    assert_problem(api.get(f"/incidents/{report(api)['id']}/history?limit=1"), 422)
