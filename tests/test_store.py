"""What the store asks of DynamoDB, and what it makes of DynamoDB's failures."""

import httpx

from tests.steps import report


def test_each_operation_is_one_request_and_a_list_one_for_each_status(api: httpx.Client, requests: list[str]) -> None:
    def asked_by(
        method: str, path: str, json: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> list[str]:
        requests.clear()
        assert api.request(method, path, json=json, headers=headers).is_success
        return list(requests)

    new = {"description": "x", "source": "operator"}
    key = {"Idempotency-Key": "1"}
    path = f"/incidents/{report(api)['id']}"
    assert asked_by("POST", "/incidents", json=new) == ["PutItem"]
    assert asked_by("POST", "/incidents", json=new, headers=key) == ["PutItem"]
    assert asked_by("POST", "/incidents", json=new, headers=key) == ["PutItem"]
    assert asked_by("GET", path) == ["GetItem"]
    assert asked_by("PATCH", path, json={"status": "closed"}) == ["UpdateItem"]
    assert asked_by("PATCH", path, json={"status": "closed"}, headers={"If-Match": '"1"'}) == ["UpdateItem"]
    assert asked_by("GET", "/incidents") == ["Query"] * 4
    assert asked_by("GET", "/incidents?limit=1") == ["Query"] * 4
    assert asked_by("GET", "/incidents?status=open") == ["Query"]
    assert asked_by("GET", "/incidents?status=open,closed,open") == ["Query"] * 2


def test_an_unknown_id_is_asked_for_once_and_a_malformed_one_never(api: httpx.Client, requests: list[str]) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    api.get(f"/incidents/{unknown}")
    api.patch(f"/incidents/{unknown}", json={"status": "closed"})
    assert requests == ["GetItem", "UpdateItem"]
    api.get("/incidents/1")
    api.patch("/incidents/1", json={"status": "closed"})
    assert requests == ["GetItem", "UpdateItem"]
