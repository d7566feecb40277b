"""The functions, given whatever the gateway might hand them."""

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.local.event import http_event
from tests.invoke import Event, answer_of, call

ROUTES = {
    "create_incident": ("POST", ["/incidents", "/incidents/{proxy+}"]),
    "read_incidents": ("GET", ["/incidents", "/incidents/{proxy+}", "/incidents/{id}", "/incidents/{id}/history"]),
    "update_incident": ("PATCH", ["/incidents/{id}"]),
    "alerts.receive_alerts": ("POST", ["/alerts"]),
}
HEADERS = ["content-type", "idempotency-key", "if-match", "if-none-match", "host", "x-forwarded-proto", "x-other"]
CASES: list[Callable[[str], str]] = [str.lower, str.upper, str.title]
PARAMETERS = ["status", "limit", "cursor", "since", "until", "other"]

text = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
statuses = st.sampled_from(["open", "in_progress", "resolved", "closed"])
alerts = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["firing", "resolved"]) | json_values,
        "fingerprint": st.sampled_from(["1", "2"]) | json_values,
        "startsAt": st.datetimes().map(lambda time: f"{time.isoformat()}Z") | json_values,
    },
    optional={"endsAt": json_values, "labels": json_values, "annotations": json_values, "generatorURL": json_values},
)
# Mostly what a client might send, each field now and then anything at all.
objects = st.fixed_dictionaries(
    {},
    optional={
        "description": text | st.text(st.characters(exclude_categories=()), max_size=20) | json_values,
        "source": st.sampled_from(["operator", "monitoring", "partner"]) | json_values,
        "status": statuses | json_values,
        "alerts": st.lists(alerts | json_values, max_size=3) | json_values,
        "truncatedAlerts": json_values,
        "other": json_values,
    },
)
bodies = objects.map(json.dumps) | json_values.map(json.dumps) | text


@st.composite
def events(draw: st.DrawFn, module: str) -> Event:
    """An event in the HTTP API's format 2.0: its shape as AWS documents it, its contents as they come."""
    method, paths = ROUTES[module]
    template = draw(st.sampled_from(paths))
    variables = {
        "id": draw(st.uuids().map(str) | st.text(min_size=1, max_size=50)),
        "proxy": draw(st.just("") | st.text(max_size=50)),
    }
    path = template.replace("{id}", variables["id"]).replace("{proxy+}", variables["proxy"])
    case = draw(st.sampled_from(CASES))
    headers = draw(
        st.dictionaries(st.sampled_from(HEADERS), text | st.sampled_from(["application/json", '"1"', "*"]), max_size=4)
    )
    query = draw(st.dictionaries(st.sampled_from(PARAMETERS), text | statuses | st.integers().map(str), max_size=3))
    event = http_event(
        method,
        path,
        route_key=f"{method} {template}",
        path_parameters=draw(st.just(variables) | st.just({})),
        authorizer=draw(st.sampled_from([None, {"lambda": None}, {"lambda": {"caller": "a", "source": "partner"}}])),
    )
    event["headers"] = {case(name): value for name, value in headers.items()}
    if query:
        event["queryStringParameters"] = query
    if method != "GET" and draw(st.booleans() | st.just(value=True)):
        body = draw(bodies)
        event["body"] = body
        if draw(st.booleans()):
            event["body"] = base64.b64encode(body.encode(errors="surrogatepass")).decode()
            event["isBase64Encoded"] = draw(st.booleans() | st.just(value=True))
    return event


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("module", ROUTES)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_event_is_a_5xx(module: str, data: st.DataObject) -> None:
    """Every error is a problem, and what is recorded can be read back to the byte."""
    status, headers, body = answer_of(module, data.draw(events(module)))
    assert status in {200, 201, 304, 400, 404, 412, 413, 415, 422}
    if status >= 400:
        assert headers["Content-Type"] == "application/problem+json"
        problem = json.loads(body)
        assert problem["status"] == status
        assert problem.keys() - {"errors"} == {"type", "title", "status", "detail"}
    if status == 201:
        status, incident = call("read_incidents", "GET /incidents/{id}", path=headers["Location"])
        assert (status, incident) == (200, json.loads(body))


@pytest.mark.usefixtures("table")
def test_a_parameter_with_a_surrogate_in_its_name_is_named() -> None:
    event = http_event("GET", "/incidents", route_key="GET /incidents") | {"queryStringParameters": {"a\ud800": "1"}}
    status, _, body = answer_of("read_incidents", event)
    assert (status, [error["loc"] for error in json.loads(body)["errors"]]) == (422, [["query", "a?"]])


@pytest.mark.parametrize("body", [{"body": "e30=!", "isBase64Encoded": True}, {"body": '{"a": "\ud800"}'}])
def test_a_body_in_invalid_base64_or_utf_8_is_a_400(body: Event) -> None:
    event = http_event("POST", "/incidents", route_key="POST /incidents") | body
    assert answer_of("create_incident", event)[0] == 400


NEW = {"description": "The report was not exported"}


@pytest.mark.usefixtures("table")
def test_an_idempotency_key_belongs_to_the_callers_name() -> None:
    def create(caller: str | None, key: str) -> object:
        authorizer: Event | None = {"caller": caller, "source": "partner"} if caller else None
        headers = {"Idempotency-Key": key}
        status, incident = call(
            "create_incident", "POST /incidents", NEW | {"source": "partner"}, authorizer, **headers
        )
        assert status == 201
        return incident["id"]

    ids = [create("bot", "11"), create("bot1", "1"), create(None, "bot11"), create(None, "11"), create("bot", "1")]
    assert len(set(ids)) == 5
    assert create("bot", "11") == ids[0]
    # Ids that clients have been given: with others, a retry would record its incident twice.
    assert ids[:3] == [
        "ef3f22c4-bad4-53d3-8cdc-d3dfa89c28d1",
        "6d7c4a2c-3c03-59b9-a6d6-48f8f89db124",
        "db4fcfa3-231c-5af0-ab6d-6864fe02cc0e",
    ]
    assert create(None, "11") == ids[3]


@pytest.mark.usefixtures("table")
def test_a_bound_key_supplies_the_source() -> None:
    partner: Event = {"caller": "partner-x", "source": "partner"}
    for new in (NEW, NEW | {"source": "partner"}):
        status, incident = call("create_incident", "POST /incidents", new, partner)
        assert (status, incident["source"]) == (201, "partner")
    status, problem = call(
        "create_incident", "POST /incidents", {"description": " ", "source": "operator", "more": 1}, partner
    )
    assert isinstance(problem["errors"], list)
    assert [error["loc"] for error in problem["errors"]] == [
        ["body", "description"],
        ["body", "source"],
        ["body", "more"],
    ]
    assert (status, problem["errors"][1]["msg"]) == (
        422,
        "Input should be 'partner', the source of the access key",
    )


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("authorizer", [None, {"caller": "anna"}, {"caller": "anna", "source": ""}])
def test_a_report_needs_a_source_where_the_key_has_none(authorizer: Event | None) -> None:
    status, problem = call("create_incident", "POST /incidents", NEW, authorizer)
    assert (status, problem["errors"]) == (422, [{"loc": ["body", "source"], "msg": "Field required"}])


@pytest.mark.usefixtures("table")
def test_the_history_names_the_callers() -> None:
    _, incident = call("create_incident", "POST /incidents", NEW, {"caller": "grafana", "source": "monitoring"})
    path = f"/incidents/{incident['id']}"
    call("update_incident", "PATCH /incidents/{id}", {"status": "in_progress"}, {"caller": "anna"}, path=path)
    call("update_incident", "PATCH /incidents/{id}", {"status": "resolved"}, path=path)
    _, history = call("read_incidents", "GET /incidents/{id}/history", path=f"{path}/history")
    assert isinstance(history, list)
    assert [(entry["version"], entry["status"], entry["by"]) for entry in history] == [
        (1, "open", "grafana"),
        (2, "in_progress", "anna"),
        (3, "resolved", None),
    ]


@pytest.mark.usefixtures("table")
def test_links_keep_the_path_of_an_api_mapping() -> None:
    """Behind a custom domain with an API mapping, `rawPath` begins with the mapping's path, and `routeKey` does not."""
    headers = {"host": "api.example.com", "x-forwarded-proto": "https, http"}  # the second by a proxy on the way
    for _ in range(2):
        new = http_event(
            "POST",
            "/v1/incidents",
            route_key="POST /incidents",
            headers=headers,
            body=json.dumps(NEW | {"source": "partner"}).encode(),
        )
        status, created, body = answer_of("create_incident", new)
    assert (status, created["Location"]) == (201, f"/v1/incidents/{json.loads(body)['id']}")
    listed = http_event("GET", "/v1/incidents", route_key="GET /incidents", headers=headers, query="limit=1")
    status, page, _ = answer_of("read_incidents", listed)
    assert status == 200
    assert page["Link"].startswith("<https://api.example.com/v1/incidents?")


@pytest.mark.usefixtures("table")
def test_white_space_around_a_header_is_no_part_of_it() -> None:
    new = NEW | {"source": "partner"}
    ids = set()
    for key in ("a", " a\t"):
        headers = {"content-type": "application/json ", "idempotency-key": key}
        event = http_event(
            "POST", "/incidents", route_key="POST /incidents", headers=headers, body=json.dumps(new).encode()
        )
        ids.add(json.loads(answer_of("create_incident", event)[2])["id"])
    assert len(ids) == 1


def test_no_more_than_100_errors_are_listed() -> None:
    query = "&".join(f"p{number}=" for number in range(250))
    _, _, body = answer_of("read_incidents", http_event("GET", "/incidents", route_key="GET /incidents", query=query))
    problem = json.loads(body)
    assert len(problem["errors"]) == 100
    assert problem["detail"] == "The request is invalid; see errors. These are the first 100 of 250."


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("route", ["GET /incidents/{id}", "GET /incidents/{id}/history"])
def test_a_reporter_reads_what_it_reported_and_nothing_else(route: str) -> None:
    ids = [
        call("create_incident", "POST /incidents", NEW, caller)[1]["id"]
        for caller in ({"caller": "partner-x", "source": "partner"}, {"caller": "partner", "source": "partner"})
    ]
    call(
        "update_incident",
        "PATCH /incidents/{id}",
        {"comment": "Ours"},
        {"caller": "partner-x"},
        path=f"/incidents/{ids[1]}",
    )

    def read(id: object, caller: str) -> tuple[int, Event]:
        return call(
            "read_incidents",
            route,
            None,
            {"caller": caller, "reads": "own"},
            path=route.split()[1].replace("{id}", str(id)),
        )

    assert read(ids[0], "partner-x") == call(
        "read_incidents", route, path=route.split()[1].replace("{id}", str(ids[0]))
    )
    unknown = read("00000000-0000-4000-8000-000000000000", "partner-x")
    assert unknown[0] == 404
    assert read(ids[1], "partner-x") == read(ids[0], "partner") == unknown
