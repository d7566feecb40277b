"""infra/openapi.json agrees with the functions, the template and the API's responses."""

import json
from collections.abc import Iterator

import httpx
import pytest

import dynamodb
import store
from infra import openapi
from tests.conftest import TEMPLATE
from tests.document import DOCUMENT, ROUTES, Message, Operation, Shape, assert_valid, documented_path
from tests.steps import report

BODIES = {
    "create_incident": b'{"description": "x", "source": "operator"}',
    "update_incident": b'{"status": "closed"}',
    "receive_alerts": b'{"alerts": [{"status": "firing", "fingerprint": "1", "startsAt": "2026-11-24T02:17:50Z"}]}',
    "receive_telegram": b'{"update_id": 1, "message": {"message_id": 1, "chat": {"id": 4567}, "from": {"id": 1}, "text": "/incidents"}}',
}
"""A valid body for each operation that takes one."""

OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
OF_THE_GATEWAY = {"401", "403", "429", "500", "504"}
ANSWERS = [
    (name, status)
    for name, (*_, operation) in OPERATIONS.items()
    for status in operation["responses"]
    if status not in OF_THE_GATEWAY
]


def test_the_file_is_up_to_date() -> None:
    assert openapi.PATH.read_text() == openapi.text(), "the contract has changed: make openapi"


def test_the_document_has_the_routes_of_the_template() -> None:
    assert {(method, path) for method, path, _ in OPERATIONS.values()} == {
        (route.method, documented_path(route)) for route in ROUTES
    }


def test_every_operation_documents_how_its_key_is_sent() -> None:
    operations = json.loads(openapi.PATH.read_text())["paths"]
    authorizers = {
        (event.Properties["Method"], event.Properties["Path"]): event.Properties.get("Auth")
        for function in TEMPLATE.functions(**openapi.INTEGRATIONS).values()
        for event in function.Events.values()
        if event.Type == "HttpApi"
    }
    for method, path, _ in OPERATIONS.values():
        telegram = authorizers[method, path] == {"Authorizer": "TelegramSecret"}
        security = operations[path][method.lower()]["security"]
        assert security == ([{"telegram": []}] if telegram else [{"bearer": []}, {"basic": []}])


@pytest.mark.parametrize(("name", "status"), ANSWERS)
def test_the_api_gives_every_documented_response(
    api: httpx.Client, name: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, path, _ = OPERATIONS[name]
    body = BODIES.get(name, b"")
    headers = {"Content-Type": "application/json"}
    query, incident_id = "", report(api)["id"]
    match status:
        case "304":
            headers["If-None-Match"] = "*"
        case "400":
            body = b"{"
        case "404":
            incident_id = "9"
        case "409":
            monkeypatch.setattr(store, "MAX_CHANGES", 0)
        case "412":
            headers["If-Match"] = '"7"'
        case "413":
            body = body.ljust(1024 * 1024 + 1)
        case "415":
            headers["Content-Type"] = "text/plain"
        case "422":
            query = "?unknown=1"
        case "503":
            monkeypatch.setattr(store, "client", dynamodb.connect(1, endpoint="http://127.0.0.1:9"))
    response = api.request(method, path.replace("{id}", incident_id) + query, headers=headers, content=body)
    assert str(response.status_code) == status, response.text


def test_every_example_is_valid() -> None:
    shapes = [shape for *_, operation in OPERATIONS.values() for shape in shapes_of(operation)]
    examples = [(value, shape) for shape in shapes for value in examples_of(shape)]
    assert len(examples) > 40
    for value, shape in examples:
        assert_valid("an example", value, shape)


def shapes_of(operation: Operation) -> Iterator[Shape]:
    yield from operation.get("parameters", [])
    for message in [operation.get("requestBody", Message()), *operation["responses"].values()]:
        yield from message.get("headers", {}).values()
        yield from message.get("content", {}).values()


def examples_of(shape: Shape) -> list[object]:
    """The examples beside the schema and in it."""
    beside = [example["value"] for example in shape.get("examples", {}).values()]
    inside = shape["schema"].get("examples", [])
    assert isinstance(inside, list)
    return [*beside, *inside]
