"""Requests and events at random: whatever comes, the responses are those of the contract."""

import base64
import json
from typing import cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

import authorize
from incident import Source, Status
from infra.local import docs
from infra.local.event import http_event
from infra.openapi import INTEGRATIONS
from tests.conftest import TEMPLATE
from tests.invoke import Event, answer_of, call

# As the local run serves it: no signature is asked for.
contract = schemathesis.openapi.from_dict(json.loads(docs._document()))

# A body that breaks the contract may be refused for its length before it is read.
rejection = contract.config.checks.negative_data_rejection
rejection.expected_statuses = [*rejection.expected_statuses, "413"]
EXCLUDED = [
    # Some rules are beyond a schema: a cursor has to come from a Link, a description is more than white space.
    positive_data_acceptance,
    # The gateway answers 404 for a method that a path does not have.
    unsupported_method,
]


@pytest.mark.usefixtures("table")
@contract.parametrize()
def test_the_api_keeps_its_contract(case: Case, address: str) -> None:  # type: ignore[type-arg]  # they are its own affair
    """No request gets a 5xx, a response beyond the contract, or a 2xx where it breaks the contract."""
    case.call_and_validate(base_url=address, excluded_checks=EXCLUDED)


# ---- events that no client of the local gateway can cause

text = st.text(max_size=40)
surrogates = st.text(st.characters(exclude_categories=()), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
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
        "description": text | surrogates | json_values,
        "source": st.sampled_from(Source) | json_values,
        "status": st.sampled_from(Status) | json_values,
        "comment": text | json_values,
        "alerts": st.lists(alerts | json_values, max_size=3) | json_values,
        "truncatedAlerts": json_values,
        "message": json_values,
        "other": json_values,
    },
)
reports = st.fixed_dictionaries({"description": text.map("x{}".format), "source": st.sampled_from(Source)})
bodies = (reports.map(json.dumps) | objects.map(json.dumps) | json_values.map(json.dumps) | text | surrogates).map(
    lambda body: body.encode(errors="surrogatepass")
) | st.binary(max_size=40)
HEADERS = ["content-type", "content-encoding", "idempotency-key", "if-match", "if-none-match", "host"]
PARAMETERS = ["status", "limit", "cursor", "since", "until"]
headers = st.dictionaries(
    st.sampled_from([*HEADERS, *map(str.title, HEADERS)]) | text,
    text | surrogates | st.sampled_from(["application/json", "identity", '"1"', "*"]),
    max_size=3,
)
queries = st.dictionaries(
    st.sampled_from(PARAMETERS) | text, text | st.sampled_from(Status) | st.integers().map(str), max_size=3
)
# The authorizer's own context, which has strings only, or none, as from another kind of authorizer.
contexts = st.fixed_dictionaries(
    {},
    optional={
        "caller": text,
        "source": st.sampled_from(["", *Source]),
        "reads": st.sampled_from(["own"]) | text,
        "other": text,
    },
)
authorizers: st.SearchStrategy[Event | None] = st.one_of(
    st.none(), st.fixed_dictionaries({"lambda": st.none() | contexts}), st.just({"jwt": {"claims": {}}})
)


rarely = st.integers(0, 9).map(lambda number: number == 9)


@st.composite
def events(draw: st.DrawFn) -> tuple[str, Event]:
    """The module of a function, and an event in HTTP API's format 2.0 with any contents."""
    route = draw(st.sampled_from(TEMPLATE.routes(**INTEGRATIONS)))
    variables = {"id": draw(st.uuids().map(str) | text), "proxy": draw(st.just("") | text)}
    path = route.path.replace("{id}", variables["id"]).replace("{proxy+}", variables["proxy"])
    event = http_event(route.method, path, route_key=route.key, path_parameters=variables, authorizer=draw(authorizers))
    event |= {"headers": draw(headers)}
    if route.method == "GET" or draw(rarely):
        event["queryStringParameters"] = draw(queries)
    if route.method != "GET":
        body = draw(bodies)
        encoded = draw(st.booleans())
        event["isBase64Encoded"] = encoded ^ draw(rarely)
        event["body"] = base64.b64encode(body).decode() if encoded else body.decode(errors="surrogateescape")
    return route.handler.removesuffix(".handler"), event


@pytest.mark.usefixtures("table")
@given(sent=events())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_event_is_a_5xx(sent: tuple[str, Event]) -> None:
    """Every error is a problem, and a created incident can be read back to the byte."""
    status, answered, body = answer_of(*sent)
    assert status in {200, 201, 304, 400, 404, 409, 412, 413, 415, 422}
    if status >= 400:
        assert answered["Content-Type"] == "application/problem+json"
        problem = json.loads(body)
        assert problem["status"] == status
        assert problem.keys() - {"errors"} == {"type", "title", "status", "detail"}
    if status == 201:
        path = f"/incidents/{json.loads(body)['id']}"
        assert call("read_incidents", "GET /incidents/{id}", path=path) == (200, json.loads(body))


@given(sent=headers, value=text | surrogates | st.binary().map(lambda key: f"Basic {base64.b64encode(key).decode()}"))
def test_no_header_makes_the_authorizer_fail(sent: dict[str, str], value: str) -> None:
    event = http_event("GET", "/incidents", route_key="GET /incidents") | {"headers": sent | {"authorization": value}}
    assert not authorize.handler(cast("authorize._Event", event), None)["isAuthorized"]
