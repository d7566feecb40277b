"""The functions, given whatever the gateway might hand them."""

import base64
import importlib
import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.local.gateway import Context

Event = dict[str, object]
Answer = dict[str, object]
Handler = Callable[[Event, Context], Answer]

ROUTES = {
    "create_incident": ("POST", ["/incidents", "/incidents/{proxy+}"]),
    "read_incidents": ("GET", ["/incidents", "/incidents/{proxy+}", "/incidents/{id}"]),
    "update_incident": ("PATCH", ["/incidents/{id}"]),
}
HEADERS = ["content-type", "idempotency-key", "if-match", "if-none-match", "host", "x-forwarded-proto", "x-other"]
CASES: list[Callable[[str], str]] = [str.lower, str.upper, str.title]
PARAMETERS = ["status", "limit", "cursor", "other"]

text = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
statuses = st.sampled_from(["open", "in_progress", "resolved", "closed"])
# Mostly what a client might send, each field now and then anything at all.
objects = st.fixed_dictionaries(
    {},
    optional={
        "description": text | st.text(st.characters(exclude_categories=()), max_size=20) | json_values,
        "source": st.sampled_from(["operator", "monitoring", "partner"]) | json_values,
        "status": statuses | json_values,
        "other": json_values,
    },
)
bodies = objects.map(json.dumps) | json_values.map(json.dumps) | text


@st.composite
def events(draw: st.DrawFn, module: str) -> Event:
    """An event in the HTTP API's format 2.0: its shape as AWS documents it, its contents as they come."""
    method, paths = ROUTES[module]
    template = draw(st.sampled_from(paths))
    path = template.replace("{id}", draw(st.uuids().map(str) | st.text(min_size=1, max_size=50)))
    path = path.replace("{proxy+}", draw(st.just("") | st.text(max_size=50)))
    case = draw(st.sampled_from(CASES))
    headers = draw(
        st.dictionaries(st.sampled_from(HEADERS), text | st.sampled_from(["application/json", '"1"', "*"]), max_size=4)
    )
    query = draw(st.dictionaries(st.sampled_from(PARAMETERS), text | statuses | st.integers().map(str), max_size=3))
    event: Event = {
        "version": "2.0",
        "routeKey": f"{method} {template}",
        "rawPath": path,
        "rawQueryString": "&".join(f"{name}={value}" for name, value in query.items()),
        "headers": {case(name): value for name, value in headers.items()},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "api",
            "domainName": "api.example.com",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": ""},
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": f"{method} {template}",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "isBase64Encoded": False,
    }
    if query:
        event["queryStringParameters"] = query
    if method != "GET" and draw(st.booleans() | st.just(value=True)):
        body = draw(bodies)
        event["body"] = body
        if draw(st.booleans()):
            event["body"] = base64.b64encode(body.encode(errors="surrogatepass")).decode()
            event["isBase64Encoded"] = draw(st.booleans() | st.just(value=True))
    return event


def answer_of(module: str, event: Event) -> tuple[int, dict[str, str], str]:
    """What the function answers, sent as Lambda sends it."""
    handler: Handler = importlib.import_module(module).handler
    answer = json.loads(json.dumps(handler(event, Context(module)), ensure_ascii=False).encode())
    return answer["statusCode"], answer["headers"], answer["body"]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("module", ROUTES)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_event_is_too_much(module: str, data: st.DataObject) -> None:
    """Never a 5xx, every error a problem, and what is recorded can be read back to the byte."""
    event = data.draw(events(module))
    status, headers, body = answer_of(module, event)
    assert status in {200, 201, 304, 400, 404, 412, 413, 415, 422}
    if status >= 400:
        assert headers["Content-Type"] == "application/problem+json"
        problem = json.loads(body)
        assert problem["status"] == status
        assert problem.keys() - {"errors"} == {"type", "title", "status", "detail"}
    if status == 201:
        path = headers["Location"]
        read = event | {
            "rawPath": path,
            "headers": {},
            "body": "",
            "isBase64Encoded": False,
            "routeKey": "GET /incidents/{id}",
        }
        read["requestContext"] = {"stage": "$default", "requestId": "", "http": {"method": "GET", "path": path}}
        assert answer_of("read_incidents", read) == (200, headers_of(headers), body)


def headers_of(created: dict[str, str]) -> dict[str, str]:
    """Of the headers of an answer to a create, those that the answer to a read has too."""
    return {name: value for name, value in created.items() if name in ("Content-Type", "ETag")}


@pytest.mark.usefixtures("table")
def test_one_key_of_two_callers_is_two_incidents() -> None:
    def create(arn: str | None) -> tuple[int, dict[str, str], str]:
        context: Event = {"stage": "$default", "requestId": "", "http": {"method": "POST", "path": "/incidents"}}
        if arn:
            context["authorizer"] = {"iam": {"userArn": arn, "accountId": "123456789012", "cognitoIdentity": None}}
        return answer_of(
            "create_incident",
            {
                "rawPath": "/incidents",
                "routeKey": "POST /incidents",
                "headers": {"idempotency-key": "1"},
                "requestContext": context,
                "body": '{"description": "The report was not exported", "source": "partner"}',
            },
        )

    bot, bot1 = "arn:aws:iam::123456789012:user/bot", "arn:aws:iam::123456789012:user/bot1"
    first, other, unsigned, again = create(bot), create(bot1), create(None), create(bot)
    assert [answer[0] for answer in (first, other, unsigned, again)] == [201] * 4
    assert len({answer[1]["Location"] for answer in (first, other, unsigned)}) == 3
    assert (again[2], again[1]["Idempotent-Replayed"]) == (first[2], "true")
