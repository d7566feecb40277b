"""infra/openapi.json says what the functions and the template say, and what the API answers."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
from botocore.config import Config

import store
from alerts import receive_alerts
from api import MAX_BODY
from incident import Incident
from infra import openapi
from telegram import receive_telegram
from tests.conftest import TEMPLATE
from tests.document import DOCUMENT, ROUTES, Operation, Shape, assert_documented, assert_valid, documented_path
from tests.steps import report

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

JSON = {"Content-Type": "application/json"}
NEW = b'{"description": "x", "source": "operator"}'
CLOSED = b'{"status": "closed"}'

OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
OF_THE_GATEWAY = {"401", "403", "429", "500", "504"}

LISTS = b'{"update_id": 1, "message": {"message_id": 1, "chat": {"id": 4567}, "from": {"id": 1}, "text": "/incidents"}}'

ALERTS = b'{"alerts": [{"status": "firing", "fingerprint": "1", "startsAt": "2026-11-24T02:17:50Z"}]}'

CASES: dict[tuple[str, str], tuple[dict[str, str], bytes, str]] = {
    ("create_incident", "201"): (JSON, NEW, ""),
    ("create_incident", "400"): (JSON, b"{", ""),
    ("create_incident", "413"): (JSON, NEW.ljust(MAX_BODY + 1), ""),
    ("create_incident", "415"): ({"Content-Type": "text/plain"}, NEW, ""),
    ("create_incident", "422"): (JSON, b"{}", ""),
    ("create_incident", "503"): (JSON, NEW, ""),
    ("list_incidents", "200"): ({}, b"", ""),
    ("list_incidents", "422"): ({}, b"", "?limit=0"),
    ("list_incidents", "503"): ({}, b"", ""),
    ("get_incident", "200"): ({}, b"", ""),
    ("get_incident", "304"): ({"If-None-Match": '"1"'}, b"", ""),
    ("get_incident", "404"): ({}, b"", "9"),
    ("get_incident", "422"): ({}, b"", "?x=1"),
    ("get_incident", "503"): ({}, b"", ""),
    ("get_history", "200"): ({}, b"", ""),
    ("get_history", "304"): ({"If-None-Match": '"1"'}, b"", ""),
    ("get_history", "404"): ({}, b"", "9"),
    ("get_history", "422"): ({}, b"", "?x=1"),
    ("get_history", "503"): ({}, b"", ""),
    ("receive_alerts", "200"): (JSON, ALERTS, ""),
    ("receive_alerts", "400"): (JSON, b"{", ""),
    ("receive_alerts", "413"): (JSON, ALERTS.ljust(receive_alerts.MAX_BODY + 1), ""),
    ("receive_alerts", "415"): ({"Content-Type": "text/plain"}, ALERTS, ""),
    ("receive_alerts", "422"): (JSON, b"{}", ""),
    ("receive_alerts", "503"): (JSON, ALERTS, ""),
    ("receive_telegram", "200"): (JSON, LISTS, ""),
    ("receive_telegram", "400"): (JSON, b"{", ""),
    ("receive_telegram", "413"): (JSON, LISTS.ljust(receive_telegram.MAX_BODY + 1), ""),
    ("receive_telegram", "415"): ({"Content-Type": "text/plain"}, LISTS, ""),
    ("receive_telegram", "422"): (JSON, b"[]", ""),
    ("receive_telegram", "503"): (JSON, LISTS, ""),
    ("update_incident", "200"): (JSON, CLOSED, ""),
    ("update_incident", "400"): (JSON, b"{", ""),
    ("update_incident", "404"): (JSON, CLOSED, "9"),
    ("update_incident", "409"): (JSON, CLOSED, ""),
    ("update_incident", "412"): (JSON | {"If-Match": '"7"'}, CLOSED, ""),
    ("update_incident", "413"): (JSON, CLOSED.ljust(MAX_BODY + 1), ""),
    ("update_incident", "415"): ({"Content-Type": "text/plain"}, CLOSED, ""),
    ("update_incident", "422"): (JSON, b"{}", ""),
    ("update_incident", "503"): (JSON, CLOSED, ""),
}
"""For each answer in the document, a request that gets it: headers, body, and the query or another id."""


def test_the_file_is_what_the_functions_say_today() -> None:
    assert openapi.PATH.read_text() == openapi.text(), "the contract has changed: make openapi"


def test_the_document_has_the_routes_of_the_template() -> None:
    assert {(method, path) for method, path, _ in OPERATIONS.values()} == {
        (route.method, documented_path(route)) for route in ROUTES
    }


def test_every_operation_needs_an_access_key_in_the_header_that_its_authorizer_reads() -> None:
    operations = json.loads(openapi.PATH.read_text())["paths"]
    authorizers = {
        (event.Properties["Method"], event.Properties["Path"]): event.Properties.get("Auth")
        for function in TEMPLATE.functions(**openapi.INTEGRATIONS).values()
        for event in function.Events.values()
    }
    for method, path, _ in OPERATIONS.values():
        security = operations[path][method.lower()]["security"]
        if authorizers[method, path]:
            assert authorizers[method, path] == {"Authorizer": "TelegramSecret"}
            assert security == [{"telegram": []}]
        else:
            assert security == [{"bearer": []}, {"basic": []}]


def test_there_is_a_case_for_every_answer_of_the_functions() -> None:
    promised = {(name, status) for name, (*_, operation) in OPERATIONS.items() for status in operation["responses"]}
    assert set(CASES) == {(name, status) for name, status in promised if status not in OF_THE_GATEWAY}


@pytest.mark.parametrize(("name", "status"), CASES)
def test_the_api_gives_every_answer_of_the_document(
    api: httpx.Client, name: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, path, _ = OPERATIONS[name]
    headers, body, end = CASES[name, status]
    other_id, _, query = end.partition("?")
    path = path.replace("{id}", other_id or report(api)["id"]) + "?" + query
    if status == "409":
        monkeypatch.setattr(store, "MAX_CHANGES", 0)
    if status == "503":
        monkeypatch.setattr(store, "client", unreachable())
    response = api.request(method, path, headers=headers, content=body)
    assert str(response.status_code) == status, response.text


def unreachable() -> "DynamoDBClient":
    """DynamoDB where nobody listens, asked once."""
    config = Config(connect_timeout=1, retries={"total_max_attempts": 1})
    return boto3.client("dynamodb", endpoint_url="http://127.0.0.1:9", config=config)


def test_every_example_is_of_its_schema() -> None:
    shapes = [shape for *_, operation in OPERATIONS.values() for shape in shapes_of(operation)]
    examples = [(value, shape) for shape in shapes for value in examples_of(shape)]
    assert len(examples) > 40
    for value, shape in examples:
        assert_valid("an example", value, shape)


def shapes_of(operation: Operation) -> Iterator[Shape]:
    yield from operation.get("parameters", [])
    yield from operation.get("requestBody", {"content": {}})["content"].values()
    for answer in operation["responses"].values():
        yield from answer.get("headers", {}).values()
        yield from answer.get("content", {}).values()


def examples_of(shape: Shape) -> list[object]:
    """The examples beside the schema, and those in it."""
    beside = [example["value"] for example in shape.get("examples", {}).values()]
    inside = shape["schema"].get("examples", [])
    assert isinstance(inside, list)
    return [*beside, *inside]


INCIDENT = Incident.model_json_schema()["examples"][0]
PROBLEM = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "x"}


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (202, {"ETag": '"1"'}, INCIDENT),
        (200, {}, INCIDENT),
        (200, {"ETag": "1"}, INCIDENT),
        (200, {"ETag": '"1"', "X-More": "1"}, INCIDENT),
        (200, {"ETag": '"1"', "Content-Type": "text/plain"}, INCIDENT),
        (200, {"ETag": '"1"'}, INCIDENT | {"more": 1}),
        (200, {"ETag": '"1"'}, INCIDENT | {"status": "lost"}),
        (200, {"ETag": '"1"'}, INCIDENT | {"created_at": "2026-11-23T10:00:00Z"}),
        (200, {"ETag": '"1"'}, {"id": INCIDENT["id"]}),
        (200, {"ETag": '"1"'}, [INCIDENT]),
        (304, {"ETag": '"1"'}, INCIDENT),
        (404, {"Content-Type": "application/json"}, PROBLEM),
        (404, {"Content-Type": "application/problem+json"}, PROBLEM | {"trace": "x"}),
    ],
)
def test_another_answer_would_not_pass(status: int, headers: dict[str, str], body: object) -> None:
    request = httpx.Request("GET", "http://localhost/incidents/1")
    with pytest.raises(AssertionError, match=f"get_incident {status}"):
        assert_documented(httpx.Response(status, headers=headers, json=body, request=request))
