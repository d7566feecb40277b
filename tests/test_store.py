"""What the store asks of DynamoDB, and what it makes of DynamoDB's failures."""

import json
from collections.abc import Iterator, Mapping
from threading import Event

import httpx
import pytest
from pydantic import JsonValue, ValidationError
from types_boto3_dynamodb import DynamoDBClient
from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

import store
from incident import MAX_CHANGES, MAX_COMMENT, MAX_COMMENTS, Status
from tests.steps import assert_problem, follow, report


def test_an_operation_is_one_request_and_a_list_one_per_status(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    def asked_by(
        method: str, path: str, json: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> list[str]:
        dynamodb_calls.clear()
        assert api.request(method, path, json=json, headers=headers).is_success
        return list(dynamodb_calls)

    new = {"description": "x", "source": "operator"}
    key = {"Idempotency-Key": "1"}
    path = f"/incidents/{report(api)['id']}"
    assert asked_by("POST", "/incidents", json=new) == ["PutItem"]
    assert asked_by("POST", "/incidents", json=new, headers=key) == ["PutItem"]
    assert asked_by("POST", "/incidents", json=new, headers=key) == ["PutItem"]
    assert asked_by("GET", path) == ["GetItem"]
    assert asked_by("PATCH", path, json={"status": "closed"}) == ["UpdateItem"]
    assert asked_by("PATCH", path, json={"status": "closed"}, headers={"If-Match": '"1"'}) == ["UpdateItem"]
    assert asked_by("GET", "/incidents") == ["Query"] * len(Status)
    assert asked_by("GET", "/incidents?limit=1") == ["Query"] * len(Status)
    assert asked_by("GET", "/incidents?status=open") == ["Query"]
    assert asked_by("GET", "/incidents?status=open,closed,open") == ["Query"] * 2


def test_malformed_ids_are_never_looked_up(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    api.get(f"/incidents/{unknown}")
    api.patch(f"/incidents/{unknown}", json={"status": "closed"})
    assert dynamodb_calls == ["GetItem", "UpdateItem"]
    for malformed in ("1", f"{unknown}0", f"{unknown}%0A", f"0{unknown}", unknown.replace("0", "g")):
        api.get(f"/incidents/{malformed}")
        api.patch(f"/incidents/{malformed}", json={"status": "closed"})
    assert dynamodb_calls == ["GetItem", "UpdateItem"]


@pytest.fixture
def sent() -> Iterator[list[dict[str, JsonValue]]]:
    """The parameters of every request to DynamoDB, for what moto does not look at."""
    parameters: list[dict[str, JsonValue]] = []

    def note(params: dict[str, JsonValue], **_: object) -> None:
        parameters.append(dict(params))

    events = store.client.meta.events
    events.register("before-parameter-build.dynamodb", note)
    yield parameters
    events.unregister("before-parameter-build.dynamodb", note)


def test_one_incident_is_read_with_strong_consistency(api: httpx.Client, sent: list[dict[str, JsonValue]]) -> None:
    path = f"/incidents/{report(api)['id']}"
    sent.clear()
    api.get(path)
    api.get(f"{path}/history")
    assert [each["ConsistentRead"] for each in sent] == [True, True]


def test_botocore_has_nothing_left_to_parse(api: httpx.Client) -> None:
    """Its own way takes almost twice a list's CPU time."""
    bodies: list[bytes] = []

    def note(response_dict: dict[str, bytes], **_: object) -> None:
        bodies.append(response_dict["body"])

    report(api)
    events = store.client.meta.events
    events.register_last("before-parse.dynamodb", note)
    assert len(api.get("/incidents?status=open").json()) == 1
    events.unregister("before-parse.dynamodb", note)
    assert bodies == [b"{}"]


@pytest.mark.parametrize(
    ("query", "limits"),
    [
        ("status=open&limit=10", [11]),
        ("status=open,closed&limit=50", [29] * 2),
        ("status=open,closed&limit=1", [2] * 2),
    ],
)
def test_a_query_asks_for_its_share_of_the_page(
    api: httpx.Client, sent: list[dict[str, JsonValue]], query: str, limits: list[int]
) -> None:
    """A Query is charged for what it reads."""
    api.get(f"/incidents?{query}")
    assert [each["Limit"] for each in sent] == limits


@pytest.mark.parametrize(
    "query",
    [
        "since=2025-11-08T22:00:00Z&until=2025-11-08T22:00:00Z",
        "since=2025-11-08T22:00:00Z&cursor=MjAyNS0xMS0wOFQxMDowMDowMC4xMjNaIzZhNWNiN2YwLTRjNWUtNGYwYS05ZDUxLTBkMmE1YjFjN2UzOA",
    ],
)
def test_an_empty_range_is_not_asked_for(api: httpx.Client, dynamodb_calls: list[str], query: str) -> None:
    """DynamoDB answers a BETWEEN whose bounds are the wrong way round with a ValidationException; moto finds nothing."""
    report(api)
    dynamodb_calls.clear()
    assert api.get(f"/incidents?{query}").json() == []
    assert dynamodb_calls == []


def test_incidents_are_spread_over_the_shards_by_id(
    api: httpx.Client, dynamodb: DynamoDBClient, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SHARDS", 4)
    incidents = [report(api) for _ in range(40)]
    before = shards(dynamodb, table)
    assert set(before.values()) == {f"open#{shard}" for shard in range(4)}
    for incident in incidents:
        api.patch(f"/incidents/{incident['id']}", json={"status": "closed"})
    assert shards(dynamodb, table) == {each: shard.replace("open", "closed") for each, shard in before.items()}


def shards(dynamodb: DynamoDBClient, table: str) -> dict[str, str]:
    """The partition of the index that each incident is in."""
    return {item["id"]["S"]: item["status_shard"]["S"] for item in dynamodb.scan(TableName=table)["Items"]}


def overwrite(dynamodb: DynamoDBClient, table: str, id: str, update: str, **values: AttributeValueTypeDef) -> None:
    """Change an incident's item behind the API's back."""
    dynamodb.update_item(
        TableName=table,
        Key={"id": {"S": id}},
        UpdateExpression=update,
        ExpressionAttributeNames={f"#{name}": name for name in values},
        ExpressionAttributeValues={f":{name}": value for name, value in values.items()},
    )


def test_a_damaged_item_is_reported_without_its_description(
    api: httpx.Client, dynamodb: DynamoDBClient, table: str
) -> None:
    incident = report(api, "a secret")
    overwrite(dynamodb, table, incident["id"], "SET incident.#status = :status", status={"S": "lost"})
    with pytest.raises(ValidationError) as raised:
        store.get(incident["id"])
    assert "secret" not in str(raised.value)
    assert api.get(f"/incidents/{incident['id']}").status_code == 500


def test_a_change_is_never_before_the_previous_one(api: httpx.Client, dynamodb: DynamoDBClient, table: str) -> None:
    """Whatever this clock says: another one may be ahead, or this one may have been set back."""
    incident = report(api)
    path = f"/incidents/{incident['id']}"
    ahead = "2999-11-08T22:00:00.000Z"
    overwrite(dynamodb, table, incident["id"], "SET incident.#updated_at = :updated_at", updated_at={"S": ahead})
    changed = api.patch(path, json={"status": "closed"}, headers={"If-Match": '"1"'}).json()
    assert (changed["version"], changed["updated_at"]) == (2, ahead)
    assert api.get(f"{path}/history").json()[-1]["at"] == ahead


def test_a_failure_waits_for_the_other_threads() -> None:
    """Lambda freezes a thread that is left behind, in the middle of a write."""
    begun, failing, done = Event(), Event(), Event()

    def work(name: str) -> None:
        if name == "fails":
            begun.wait(timeout=10)
            failing.set()
            raise LookupError
        begun.set()
        failing.wait(timeout=10)
        done.wait(timeout=0.1)  # a write that outlasts the failure
        done.set()

    results, error = store.in_parallel(work, ["fails", "is at work"])
    assert (results, type(error), done.is_set()) == ([], LookupError, True)


def test_a_damaged_item_is_left_out_of_lists(
    api: httpx.Client, dynamodb: DynamoDBClient, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [report(api)["id"] for _ in range(7)]
    for damaged in (ids[2], ids[6]):
        overwrite(dynamodb, table, damaged, "SET incident.#status = :status", status={"S": "lost"})
    capsys.readouterr()
    pages = list(follow(api, "/incidents?limit=2"))
    assert [each["id"] for page in pages for each in page] == [ids[5], ids[4], ids[3], ids[1], ids[0]]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["incident_id"] for line in lines if "DamagedItems" in line} == {ids[2], ids[6]}


def test_an_item_can_be_made_again_from_what_it_says(api: httpx.Client, dynamodb: DynamoDBClient, table: str) -> None:
    incident_id = report(api)["id"]
    stored = []
    for change in ({"status": "resolved", "comment": "Fixed"}, {"status": "open"}):
        api.patch(f"/incidents/{incident_id}", json=change)
        stored.append(dynamodb.get_item(TableName=table, Key={"id": {"S": incident_id}})["Item"])
    assert [store.item(*store.from_item(each)) for each in stored] == stored


def test_an_incident_takes_1000_changes(api: httpx.Client, dynamodb: DynamoDBClient, table: str) -> None:
    incident = report(api, "🛴" * 10_000)
    path = f"/incidents/{incident['id']}"
    entry: AttributeValueTypeDef = {
        "M": {"status": {"S": "in_progress"}, "at": {"S": incident["created_at"]}, "by": {"S": "x" * 64}}
    }
    overwrite(
        dynamodb,
        table,
        incident["id"],
        "SET #history = :history, incident.#version = :version",
        history={"L": [entry] * MAX_CHANGES},
        version={"N": str(MAX_CHANGES)},
    )
    changed = api.patch(path, json={"status": "closed"}).json()
    assert changed["version"] == MAX_CHANGES + 1
    for headers in ({}, {"If-Match": f'"{MAX_CHANGES + 1}"'}):
        assert_problem(api.patch(path, json={"status": "open"}, headers=headers), 409)
    assert_problem(api.patch(path, json={"status": "open"}, headers={"If-Match": '"1"'}), 412)
    assert api.patch(path, json={"status": "closed"}).json() == api.get(path).json() == changed
    assert len(api.get(f"{path}/history").json()) == MAX_CHANGES + 1


def test_an_incident_with_everything_fits_into_an_item(api: httpx.Client, dynamodb: DynamoDBClient, table: str) -> None:
    """DynamoDB's limit is 400 KB, which moto does not know."""
    incident = report(api, "🛴" * 10_000)
    api.patch(f"/incidents/{incident['id']}", json={"status": "in_progress", "comment": "🛴" * MAX_COMMENT})
    item = stored(dynamodb, table, incident["id"])
    # The longest name of a caller is one from Telegram: 200 bytes.
    longest = item["history"]["L"][-1]["M"] | {
        "by": {"S": "я" * 100},
        "comment": {"S": "x" * (MAX_COMMENTS // MAX_CHANGES)},
    }
    item["history"] = {"L": [{"M": longest}] * (MAX_CHANGES + 1)}
    item["latest_comment"] = {"S": "я" * 100 + item["latest_comment"]["S"]}
    assert 390_000 < item_size(item) < 400 * 1024


def stored(dynamodb: DynamoDBClient, table: str, id: str) -> dict[str, AttributeValueTypeDef]:
    return dynamodb.get_item(TableName=table, Key={"id": {"S": id}})["Item"]


def item_size(item: Mapping[str, AttributeValueTypeDef]) -> int:
    """Bytes, as DynamoDB counts an item: names and values in UTF-8, 3 for a list or a map, 1 for each element of one.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + value_size(value) for name, value in item.items())


def value_size(value: AttributeValueTypeDef) -> int:
    if "L" in value:
        return 3 + sum(1 + value_size(element) for element in value["L"])
    if "M" in value:
        return 3 + len(value["M"]) + item_size(value["M"])
    return len((value["S"] if "S" in value else value["N"]).encode())
