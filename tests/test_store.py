"""What the store asks of DynamoDB, and how it copes with unusual items."""

import json
from collections.abc import Mapping
from threading import Event
from unittest import mock

import httpx
import pytest
from types_boto3_dynamodb import DynamoDBClient
from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

import store
from incident import MAX_CHANGES, MAX_COMMENT, MAX_COMMENTS, Change, DamagedItem, Status
from infra.local.template import TABLE
from tests.steps import assert_problem, follow, overwrite, report

NEW = {"description": "x", "source": "operator"}
KEY = {"Idempotency-Key": "1"}
CLOSED = {"status": "closed"}


def test_a_request_costs_one_operation_and_a_list_four(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    path = f"/incidents/{report(api)['id']}"
    requests: list[tuple[str, str, dict[str, str] | None, dict[str, str], list[str]]] = [
        ("POST", "/incidents", NEW, {}, ["PutItem"]),
        ("POST", "/incidents", NEW, KEY, ["PutItem"]),
        ("POST", "/incidents", NEW, KEY, ["PutItem"]),
        ("GET", path, None, {}, ["GetItem"]),
        ("PATCH", path, CLOSED, {}, ["UpdateItem"]),
        ("PATCH", path, CLOSED, {"If-Match": '"1"'}, ["UpdateItem"]),
        ("GET", "/incidents", None, {}, ["Query"] * len(Status)),
        ("GET", "/incidents?limit=1", None, {}, ["Query"] * len(Status)),
        ("GET", "/incidents?status=open,closed,open", None, {}, ["Query"] * 2),
    ]
    for method, url, body, headers, expected in requests:
        dynamodb_calls.clear()
        assert api.request(method, url, json=body, headers=headers).is_success
        assert dynamodb_calls == expected, f"{method} {url}"


def test_malformed_ids_are_never_looked_up(api: httpx.Client, dynamodb_calls: list[str]) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    for incident_id in (unknown, "1", f"{unknown}0", f"{unknown}%0A", f"0{unknown}", unknown.replace("0", "g")):
        assert_problem(api.get(f"/incidents/{incident_id}"), 404)
        assert_problem(api.patch(f"/incidents/{incident_id}", json=CLOSED), 404)
    assert dynamodb_calls == ["GetItem", "UpdateItem"]


def test_an_incident_is_read_with_strong_consistency(api: httpx.Client) -> None:
    incident_id = report(api)["id"]
    with mock.patch.object(store, "client", wraps=store.client) as client:  # moto ignores the parameter
        api.get(f"/incidents/{incident_id}")
        api.get(f"/incidents/{incident_id}/history")
        store.get_many([incident_id])
    assert [call.kwargs["ConsistentRead"] for call in client.get_item.call_args_list] == [True, True]
    (batch,) = client.batch_get_item.call_args_list
    assert batch.kwargs["RequestItems"][TABLE]["ConsistentRead"] is True


@pytest.mark.parametrize(
    ("query", "limits"),
    [
        ("status=open&limit=10", [11]),
        ("status=open,closed&limit=50", [29] * 2),
        ("status=open,closed&limit=1", [2] * 2),
    ],
)
def test_a_query_asks_for_its_share_of_the_page(api: httpx.Client, query: str, limits: list[int]) -> None:
    """A Query is charged for what it reads."""
    with mock.patch.object(store, "client", wraps=store.client) as client:
        api.get(f"/incidents?{query}")
    assert [call.kwargs["Limit"] for call in client.query.call_args_list] == limits


@pytest.mark.parametrize(
    "end",
    [
        "until=2025-11-08T22:00:00Z",
        "cursor=MjAyNS0xMS0wOFQxMDowMDowMC4xMjNaIzZhNWNiN2YwLTRjNWUtNGYwYS05ZDUxLTBkMmE1YjFjN2UzOA",
    ],
)
def test_an_empty_range_is_not_queried(api: httpx.Client, dynamodb_calls: list[str], end: str) -> None:
    """DynamoDB rejects a BETWEEN with reversed bounds; moto finds nothing."""
    report(api)
    dynamodb_calls.clear()
    assert api.get(f"/incidents?since=2025-11-08T22:00:00Z&{end}").json() == []
    assert dynamodb_calls == []


def test_incidents_are_spread_over_the_shards_by_id(
    api: httpx.Client, dynamodb: DynamoDBClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SHARDS", 4)
    incidents = [report(api) for _ in range(40)]
    before = shards(dynamodb)
    assert set(before.values()) == {f"open#{shard}" for shard in range(4)}
    for incident in incidents:
        api.patch(f"/incidents/{incident['id']}", json=CLOSED)
    assert shards(dynamodb) == {each: shard.replace("open", "closed") for each, shard in before.items()}


def shards(dynamodb: DynamoDBClient) -> dict[str, str]:
    """Each incident's partition of the index, by id."""
    return {item["id"]["S"]: item["status_shard"]["S"] for item in dynamodb.scan(TableName=TABLE)["Items"]}


def stored(dynamodb: DynamoDBClient, id: str) -> dict[str, AttributeValueTypeDef]:
    return dynamodb.get_item(TableName=TABLE, Key={"id": {"S": id}})["Item"]


def test_a_damaged_item_is_reported_without_its_description(api: httpx.Client, dynamodb: DynamoDBClient) -> None:
    incident = report(api, "a secret")
    overwrite(dynamodb, incident["id"], "incident.status", {"S": "lost"})
    with pytest.raises(DamagedItem) as raised:
        store.get(incident["id"])
    assert "secret" not in f"{raised.value} {raised.value.__cause__}"
    assert api.get(f"/incidents/{incident['id']}").status_code == 500


def test_a_change_is_never_dated_before_the_previous_one(api: httpx.Client, dynamodb: DynamoDBClient) -> None:
    """Another function's clock may be ahead, or this one may have been set back."""
    incident_id = report(api)["id"]
    ahead = "2999-11-08T22:00:00.000Z"
    overwrite(dynamodb, incident_id, "incident.updated_at", {"S": ahead})
    change = CLOSED | {"comment": "Replaced"}
    changed = api.patch(f"/incidents/{incident_id}", json=change, headers={"If-Match": '"1"'}).json()
    assert (changed["version"], changed["updated_at"]) == (2, ahead)
    assert api.get(f"/incidents/{incident_id}/history").json()[-1]["at"] == ahead


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


def test_an_incident_that_changes_during_a_list_is_listed_once(api: httpx.Client) -> None:
    incident_id = report(api)["id"]
    events = store.client.meta.events

    def change(**_: object) -> None:
        """After the first partition's query, move the incident to another one."""
        events.unregister("after-call.dynamodb.Query", change)
        store.change(incident_id, Change(status=Status.RESOLVED), None)

    events.register("after-call.dynamodb.Query", change)
    assert [each["status"] for each in api.get("/incidents").json()] == ["resolved"]


def test_a_damaged_item_is_left_out_of_lists(
    api: httpx.Client, dynamodb: DynamoDBClient, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [report(api)["id"] for _ in range(7)]
    for damaged in (ids[2], ids[6]):
        overwrite(dynamodb, damaged, "incident.status", {"S": "lost"})
    capsys.readouterr()
    pages = list(follow(api, "/incidents?limit=2"))
    assert [each["id"] for page in pages for each in page] == [ids[5], ids[4], ids[3], ids[1], ids[0]]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["incident_id"] for line in lines if "DamagedItems" in line} == {ids[2], ids[6]}


def test_an_item_can_be_rebuilt_from_its_incident_and_history(api: httpx.Client, dynamodb: DynamoDBClient) -> None:
    incident_id = report(api)["id"]
    for change in ({"status": "resolved", "comment": "Fixed"}, {"status": "open"}):
        api.patch(f"/incidents/{incident_id}", json=change)
        item = stored(dynamodb, incident_id)
        assert store.item(*store.from_item(item)) == item


def test_an_incident_takes_1000_changes(api: httpx.Client, dynamodb: DynamoDBClient) -> None:
    incident = report(api)
    path = f"/incidents/{incident['id']}"
    entry: AttributeValueTypeDef = {"M": {"status": {"S": "in_progress"}, "at": {"S": incident["created_at"]}}}
    overwrite(dynamodb, incident["id"], "history", {"L": [entry] * MAX_CHANGES})
    overwrite(dynamodb, incident["id"], "incident.version", {"N": str(MAX_CHANGES)})
    changed = api.patch(path, json=CLOSED).json()
    assert changed["version"] == MAX_CHANGES + 1
    for headers in ({}, {"If-Match": f'"{MAX_CHANGES + 1}"'}):
        assert_problem(api.patch(path, json={"status": "open"}, headers=headers), 409)
    assert_problem(api.patch(path, json={"status": "open"}, headers={"If-Match": '"1"'}), 412)
    assert api.patch(path, json=CLOSED).json() == api.get(path).json() == changed
    assert len(api.get(f"{path}/history").json()) == MAX_CHANGES + 1


def test_the_largest_incident_fits_into_an_item(api: httpx.Client, dynamodb: DynamoDBClient) -> None:
    """DynamoDB's limit is 400 KB, which moto does not enforce."""
    incident = report(api, "🛴" * 10_000)
    api.patch(f"/incidents/{incident['id']}", json={"status": "in_progress", "comment": "🛴" * MAX_COMMENT})
    item = stored(dynamodb, incident["id"])
    # The longest caller's name is one from Telegram: 200 bytes.
    comment = "x" * (MAX_COMMENTS // MAX_CHANGES)
    longest = item["history"]["L"][-1]["M"] | {"by": {"S": "я" * 100}, "comment": {"S": comment}}
    item["history"] = {"L": [{"M": longest}] * (MAX_CHANGES + 1)}
    item["latest_comment"] = {"S": "я" * 100 + item["latest_comment"]["S"]}
    assert 390_000 < item_size(item) < 400 * 1024


def item_size(item: Mapping[str, AttributeValueTypeDef]) -> int:
    """Bytes as DynamoDB counts them: names and values in UTF-8, 3 for a list or map, and 1 for each of its elements.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + value_size(value) for name, value in item.items())


def value_size(value: AttributeValueTypeDef) -> int:
    if "L" in value:
        return 3 + sum(1 + value_size(element) for element in value["L"])
    if "M" in value:
        return 3 + len(value["M"]) + item_size(value["M"])
    return len((value["S"] if "S" in value else value["N"]).encode())
