"""The authorizer, with events as an HTTP API sends them, on moto's DynamoDB."""

import json
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from moto.moto_server.werkzeug_app import create_backend_app

import authorize
import get_item
from infra.keys import Keys
from infra.local.event import http_event
from infra.openapi import INTEGRATIONS
from tests.conftest import TEMPLATE
from tests.faults import LASTING, PASSING, Fault, Proxy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from types_boto3_dynamodb import DynamoDBClient

    from authorize import _Answer

ROUTES = sorted(set().union(*authorize.ROLES.values()))
UNLISTED = ["DELETE /incidents/{id}", "GET /keys", "ANY /{proxy+}", "$default", ""]
ROUTE = "GET /incidents"


@pytest.fixture(scope="module")
def listening(serve: Callable[["WSGIApplication"], str]) -> Iterator[Proxy]:
    """A proxy in front of moto's server, which has the same tables as `dynamodb`."""
    with Proxy(serve(create_backend_app("dynamodb"))).listening() as proxy:
        yield proxy


@pytest.fixture
def proxy(listening: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """What the authorizer reaches DynamoDB through. It does not wait between its attempts."""
    listening.script, listening.asked = iter(()), 0
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setattr(get_item, "LONGEST_WAIT", 0)
    monkeypatch.setattr(authorize, "client", get_item.Client(listening.url))
    return listening


@pytest.fixture
def keys(stored_keys: Keys, proxy: Proxy) -> Keys:  # noqa: ARG001 (the authorizer uses it)
    return stored_keys


def ask(route: str, headers: dict[str, str]) -> "_Answer":
    """The authorizer's response to a request for this route.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html
    """
    method, _, path = route.partition(" ")
    event = http_event(method, path, route_key=route, headers=headers)
    del event["isBase64Encoded"]
    event |= {
        "type": "REQUEST",
        "routeArn": f"arn:aws:execute-api:eu-central-1:123456789012:local/$default/{method}{path}",
        "identitySource": [*headers.values(), route],
    }
    # Through JSON, as on Lambda.
    answer: _Answer = json.loads(json.dumps(authorize.handler(json.loads(json.dumps(event)), None)))
    return answer


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def presented(route: str, key: str) -> dict[str, str]:
    """The header in which clients of this route send their key."""
    return {"X-Telegram-Bot-Api-Secret-Token": key} if route == "POST /telegram" else bearer(key)


def refused(reason: str, **caller: str) -> dict[str, object]:
    return {"isAuthorized": False, "context": {"reason": reason, **caller}}


# ---- which role may use which route


CREATE = {"POST /incidents", "POST /incidents/{proxy+}"}
READ_ONE = {"GET /incidents/{id}", "GET /incidents/{id}/history"}
READ = {"GET /incidents", "GET /incidents/{proxy+}", *READ_ONE}
ALLOWED = {
    "reporter": {*CREATE, "POST /alerts", *READ_ONE},
    "observer": READ,
    "operator": {*CREATE, *READ, "PATCH /incidents/{id}"},
    "telegram": {"POST /telegram"},
    "unknown": set(),
}


@pytest.mark.parametrize("role", [*authorize.ROLES, "unknown"])
@pytest.mark.parametrize("route", ROUTES + UNLISTED)
def test_a_role_may_use_its_own_routes_and_no_others(keys: Keys, role: str, route: str) -> None:
    answer = ask(route, presented(route, keys.create("someone", role)))
    if route in ALLOWED[role]:
        own = {"reads": "own"} if role == "reporter" and route in READ_ONE else {}
        assert answer == {"isAuthorized": True, "context": {"caller": "someone", **own}}
    else:
        assert answer == refused("role may not use route", caller="someone")


def test_the_roles_cover_exactly_the_templates_routes() -> None:
    declared = {route.key for route in TEMPLATE.routes(**INTEGRATIONS)}
    assert declared <= set(ROUTES), "functions/authorize.py: no role may use a route of the template"
    assert set(ROUTES) <= declared, "functions/authorize.py: a role may use a route that does not exist"


def test_the_source_of_a_key_reaches_the_functions(keys: Keys) -> None:
    key = keys.create("partner-x", "reporter", "partner")
    assert ask("POST /incidents", bearer(key)) == {
        "isAuthorized": True,
        "context": {"caller": "partner-x", "source": "partner"},
    }


# ---- how a key is sent


def test_the_scheme_is_bearer_or_basic_in_any_case(keys: Keys) -> None:
    key = keys.create("someone", "observer")
    (of_basic,) = basic("", key).values()
    accepted = [
        bearer(key),
        {"authorization": f"bearer {key}"},
        {"AUTHORIZATION": f"BEARER {key}"},
        basic("", key),
        basic("incident-api", key),
        basic("кто-то", key),
        {"Authorization": of_basic.replace("Basic", "basic")},
        {"Authorization": f" Bearer   {key} \t"},
        {"Authorization": of_basic.replace(" ", "  ")},
    ]
    for headers in accepted:
        assert ask(ROUTE, headers)["isAuthorized"], headers


def test_a_header_without_a_key_is_refused_without_a_lookup(keys: Keys, proxy: Proxy) -> None:
    key = keys.create("someone", "observer")
    encoded = b64encode(f":{key}".encode()).decode()
    not_base64 = [key, encoded[:-1], f"{encoded[:4]}!{encoded[4:]}", "🔑"]
    no_password = [b64encode(user).decode() for user in (key.encode(), f"{key}:".encode(), b":\xff")]
    no_key = ["", "🔑", encoded, f"{key}é", f"{key[:-1]}\N{FULLWIDTH DIGIT ONE}", f"\udcff{key}", f"{key}\n", key * 200]
    two_headers = [f"{key},Bearer {key}", f"{key}, Basic {encoded}"]
    values = [
        *("", " ", "bearer", "Basic", "Basic ", key, f"Bearer\t{key}", f"Token {key}"),
        *(f"Basic {credentials}" for credentials in not_base64 + no_password),
        *(f"Bearer {credentials}" for credentials in no_key + two_headers),
    ]
    others: list[dict[str, str]] = [{}, {"X-Api-Key": key}, {"X-Telegram-Bot-Api-Secret-Token": key}]
    for each in [*others, *({"Authorization": value} for value in values)]:
        assert ask(ROUTE, each) == refused("no access key"), each
    assert proxy.asked == 0


def test_telegrams_header_counts_only_for_its_route(keys: Keys) -> None:
    telegram, operator = keys.create("chat", "telegram"), keys.create("someone", "operator")
    header = "X-Telegram-Bot-Api-Secret-Token"
    assert ask("POST /telegram", {header: telegram})["isAuthorized"]
    assert not ask("POST /telegram", bearer(telegram))["isAuthorized"]
    # The gateway caches a response by the identity source alone: no other header may decide.
    assert not ask(ROUTE, {header: operator, "Authorization": "Bearer anything"})["isAuthorized"]
    assert not ask("POST /telegram", {header: "anything"} | bearer(telegram))["isAuthorized"]


# ---- only a stored key


def test_no_variation_or_hash_of_a_key_is_accepted(keys: Keys) -> None:
    key = keys.create("someone", "operator")
    guesses = {key[:length] for length in range(len(key))} | {key[start:] for start in range(1, len(key))}
    # The last character has four significant bits, so others would decode to the same bytes.
    guesses |= {key[:-1] + last for last in "AEIMQUYcgkosw048abcdef" if last != key[-1]}
    guesses |= {key.upper(), key.swapcase(), f"{key}x", f"{key}=", f"inc_{key}"}
    hashed = sha256(key.encode()).hexdigest()
    guesses |= {hashed, f"inc_{hashed[:43]}"}
    assert ask(ROUTE, bearer(key))["isAuthorized"]
    for guess in guesses:
        for headers in (bearer(guess), basic("", guess)):
            assert not ask(ROUTE, headers)["isAuthorized"], guess


def test_the_table_does_not_contain_the_keys(keys: Keys, dynamodb: "DynamoDBClient") -> None:
    made = [keys.create("someone", "operator") for _ in range(3)]
    dump = json.dumps(dynamodb.scan(TableName="KeysTable")["Items"])
    assert dump.count("someone") == 3
    for key in made:
        assert key not in dump
        assert key.removeprefix("inc_") not in dump


def test_two_keys_with_one_name_work_until_revoked(keys: Keys) -> None:
    old, new = (keys.create("someone", "observer") for _ in range(2))
    assert ask(ROUTE, bearer(old)) == ask(ROUTE, bearer(new))
    keys.revoke({"key_hash": sha256(old.encode()).hexdigest()})  # both may have been made in one millisecond
    assert ask(ROUTE, bearer(old)) == refused("unknown access key")
    assert ask(ROUTE, bearer(new))["isAuthorized"]


@pytest.mark.parametrize(("days", "refusal"), [(1 / 24, None), (0, "expired access key"), (-400, "expired access key")])
def test_a_key_is_refused_from_the_moment_it_expires(keys: Keys, days: float, refusal: str | None) -> None:
    answer = ask(ROUTE, bearer(keys.create("someone", "observer", days=days)))
    allowed = {"isAuthorized": True, "context": {"caller": "someone"}}
    assert answer == (refused(refusal, caller="someone") if refusal else allowed)


# ---- what is logged


def test_only_refusals_are_logged_without_the_key(keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    reporter, unknown = keys.create("someone", "reporter"), f"inc_{secrets.token_urlsafe(32)}"
    expired = keys.create("partner-x", "observer", days=0)
    observer = keys.create("someone", "observer")
    for key in ("a-secret", unknown, reporter, expired, observer):
        ask(ROUTE, bearer(key))
    output = capsys.readouterr().out
    for secret in ("a-secret", unknown, reporter):
        assert secret not in output
        assert secret.removeprefix("inc_") not in output
    lines = [json.loads(line) for line in output.splitlines()]
    assert [(line["refused"], line.get("caller")) for line in lines] == [
        ("no access key", None),
        ("unknown access key", None),
        ("role may not use route", "someone"),
        ("expired access key", "partner-x"),
    ]
    for line in lines:
        assert line["route"] == ROUTE
        assert line["request_id"]
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert (directive["Metrics"][0]["Name"], directive["Dimensions"], line["Refusals"]) == ("Refusals", [[]], 1)


# ---- when DynamoDB fails


@pytest.mark.parametrize("fault", [*PASSING, *LASTING], ids=repr)
def test_a_failure_of_dynamodb_raises_instead_of_refusing(
    keys: Keys, proxy: Proxy, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = bearer(keys.create("someone", "observer"))
    proxy.script = iter([fault, fault])
    monkeypatch.setattr(get_item, "READ_TIMEOUT", 0.3 if fault.stalls else 2)
    with pytest.raises(get_item.Failed):
        ask(ROUTE, headers)
    assert proxy.asked == 1 or fault not in LASTING


def test_a_transient_failure_is_overcome_by_a_second_attempt(keys: Keys, proxy: Proxy) -> None:
    headers = bearer(keys.create("someone", "observer"))
    repeated = {"", "InternalServerError", *get_item.THROTTLED}
    for fault in (each for each in PASSING if each.code in repeated and not each.stalls):
        proxy.script = iter([fault])
        assert ask(ROUTE, headers)["isAuthorized"], fault


def test_all_attempts_together_end_within_the_gateways_timeout() -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html."""
    longest = 2 * (get_item.CONNECT_TIMEOUT + get_item.READ_TIMEOUT) + get_item.LONGEST_WAIT
    assert longest < TEMPLATE.functions()["AuthorizeFunction"].Timeout < 10
