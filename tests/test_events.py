"""The functions, called with events that HTTP requests to the local gateway cannot produce."""

import json
from collections.abc import Mapping

import pytest

from infra.local.event import http_event
from tests.invoke import Event, answer_of, call

NEW = {"description": "The report was not exported"}
PARTNER = {"caller": "partner-x", "source": "partner"}


def create(
    body: Mapping[str, object] = NEW, authorizer: Mapping[str, object] | None = PARTNER, **headers: str
) -> tuple[int, Event]:
    return call("create_incident", "POST /incidents", body, authorizer, **headers)


# ---- unusual events


def test_a_parameter_with_a_surrogate_in_its_name_is_named() -> None:
    event = http_event("GET", "/incidents", route_key="GET /incidents") | {"queryStringParameters": {"a\ud800": "1"}}
    status, _, body = answer_of("read_incidents", event)
    assert (status, [error["loc"] for error in json.loads(body)["errors"]]) == (422, [["query", "a?"]])


@pytest.mark.parametrize("body", [{"body": "e30=!", "isBase64Encoded": True}, {"body": '{"a": "\ud800"}'}])
def test_a_body_that_cannot_be_decoded_is_a_400(body: Event) -> None:
    event = http_event("POST", "/incidents", route_key="POST /incidents") | body
    assert answer_of("create_incident", event)[0] == 400


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("mapping", ["/v1", "/incidents", "/incidents/v1"])
def test_links_keep_the_path_of_an_api_mapping(mapping: str) -> None:
    """Behind a custom domain with an API mapping, `rawPath` begins with the mapping's path; `routeKey` does not."""
    headers = {"host": "api.example.com", "x-forwarded-proto": "https, http"}  # one protocol for each proxy
    body = json.dumps(NEW | {"source": "partner"}).encode()
    new = http_event("POST", f"{mapping}/incidents", route_key="POST /incidents", headers=headers, body=body)
    for _ in range(2):
        status, created, answer = answer_of("create_incident", new)
    assert (status, created["Location"]) == (201, f"{mapping}/incidents/{json.loads(answer)['id']}")
    listed = http_event("GET", f"{mapping}/incidents", route_key="GET /incidents", headers=headers, query="limit=1")
    status, page, _ = answer_of("read_incidents", listed)
    assert status == 200
    assert page["Link"].startswith(f"<https://api.example.com{mapping}/incidents?")


@pytest.mark.usefixtures("table")
def test_white_space_around_a_header_is_ignored() -> None:
    padded = {"Content-Type": "application/json ", "Idempotency-Key": " a\t"}
    ids = [create(NEW, PARTNER, **headers)[1]["id"] for headers in (padded, {"Idempotency-Key": "a"})]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(("sent", "rest"), [(100, ""), (101, " These are the first 100 of 101.")])
def test_at_most_100_errors_are_listed(sent: int, rest: str) -> None:
    query = "&".join(f"p{number}=" for number in range(sent))
    _, _, body = answer_of("read_incidents", http_event("GET", "/incidents", route_key="GET /incidents", query=query))
    problem = json.loads(body)
    assert len(problem["errors"]) == 100
    assert problem["detail"] == f"The request is invalid; see errors.{rest}"


# ---- what the authorizer says about the caller


@pytest.mark.usefixtures("table")
def test_an_idempotency_key_belongs_to_the_callers_name() -> None:
    def reported(caller: str | None, key: str) -> object:
        authorizer = {"caller": caller} if caller else None
        status, incident = create(NEW | {"source": "partner"}, authorizer, **{"Idempotency-Key": key})
        assert status == 201
        return incident["id"]

    callers = [("bot", "11"), ("bot1", "1"), (None, "bot11"), (None, "11"), ("bot", "1")]
    ids = [reported(*each) for each in callers]
    assert len(set(ids)) == 5
    assert [reported(*each) for each in callers] == ids
    # If these ids ever changed, a retry across the deployment would create a second incident.
    assert ids[:3] == [
        "ef3f22c4-bad4-53d3-8cdc-d3dfa89c28d1",
        "6d7c4a2c-3c03-59b9-a6d6-48f8f89db124",
        "db4fcfa3-231c-5af0-ab6d-6864fe02cc0e",
    ]


@pytest.mark.usefixtures("table")
def test_a_key_bound_to_a_source_supplies_it() -> None:
    for new in (NEW, NEW | {"source": "partner"}):
        status, incident = create(new)
        assert (status, incident["source"]) == (201, "partner")
    status, problem = create({"description": " ", "source": "operator", "more": 1})
    assert isinstance(problem["errors"], list)
    assert status == 422
    assert [error["loc"][1] for error in problem["errors"]] == ["description", "source", "more"]
    assert problem["errors"][1]["msg"] == "Input should be 'partner', the source of the access key"


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("authorizer", [None, {"caller": "anna"}, {"caller": "anna", "source": ""}])
def test_a_report_without_any_source_is_a_422(authorizer: Event | None) -> None:
    status, problem = create(NEW, authorizer)
    assert (status, problem["errors"]) == (422, [{"loc": ["body", "source"], "msg": "Field required"}])


@pytest.mark.usefixtures("table")
def test_the_history_names_the_callers() -> None:
    _, incident = create(authorizer={"caller": "grafana", "source": "monitoring"})
    path = f"/incidents/{incident['id']}"
    for caller in ({"caller": "anna"}, {"caller": "boris"}, None):
        call("update_incident", "PATCH /incidents/{id}", {"comment": "Seen"}, caller, path=path)
    _, history = call("read_incidents", "GET /incidents/{id}/history", path=f"{path}/history")
    assert isinstance(history, list)
    assert [(entry["version"], entry["by"]) for entry in history] == [
        (1, "grafana"),
        (2, "anna"),
        (3, "boris"),
        (4, None),
    ]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("route", ["GET /incidents/{id}", "GET /incidents/{id}/history"])
def test_a_reporter_reads_only_what_it_reported(route: str) -> None:
    def read(id: object, authorizer: Mapping[str, object] | None) -> tuple[int, Event]:
        return call("read_incidents", route, None, authorizer, path=route.split()[1].replace("{id}", str(id)))

    own, foreign = ({"caller": caller, "reads": "own"} for caller in ("partner-x", "partner"))
    ids = [create(authorizer=caller | {"source": "partner"})[1]["id"] for caller in (own, foreign)]
    # A comment does not make the incident the caller's own.
    call("update_incident", "PATCH /incidents/{id}", {"comment": "Ours"}, own, path=f"/incidents/{ids[1]}")
    assert read(ids[0], own) == read(ids[0], None)
    unknown = read("00000000-0000-4000-8000-000000000000", own)
    assert unknown[0] == 404
    assert read(ids[1], own) == read(ids[0], foreign) == unknown
