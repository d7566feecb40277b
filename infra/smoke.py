"""Run "The first ten minutes" of infra/README.md against a deployed stack: `make smoke`.

Each line shows what was run, what is expected and what was seen. The incidents that it creates say so, and are closed in the
end; its access key is revoked. The exit status is 1 if something was not as expected.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from infra.keys import CONFIG, Keys, KeysError, connect, describe
from infra.local import template

if TYPE_CHECKING:
    import boto3

NAME = "make-smoke"
"""The name of its access key."""
DESCRIPTION = "make smoke: a test, to be ignored"
WAIT = 60
"""Seconds in which a log has to show what has happened."""


class Line(NamedTuple):
    """One comparison."""

    run: str
    expected: str
    seen: str


class Client:
    """A client of the API, as curl would be."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(30))

    def call(self, method: str, path: str, key: str = "", body: object = None) -> tuple[int, str]:
        """The status and the body of the response."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        content = None if body is None else json.dumps(body)
        response = self._http.request(method, self._url + path, headers=headers, body=content)
        return response.status, response.data.decode(errors="replace")


def routes(session: "boto3.Session", api: str, parameters: dict[str, str]) -> Iterator[Line]:
    """What the gateway is told, which only AWS knows."""
    found = session.client("apigatewayv2", config=CONFIG).get_routes(ApiId=api, MaxResults="500")["Items"]
    declared = sorted(route.key for route in template.load().routes(**parameters))
    yield Line(
        "aws apigatewayv2 get-routes: RouteKey", ", ".join(declared), ", ".join(sorted(r["RouteKey"] for r in found))
    )
    kinds = sorted({route["AuthorizationType"] for route in found})
    yield Line("aws apigatewayv2 get-routes: AuthorizationType", "CUSTOM", ", ".join(kinds))


def refusals(client: Client) -> Iterator[Line]:
    yield Line("GET /incidents without a key", "401", str(client.call("GET", "/incidents")[0]))
    yield Line("GET /incidents with a wrong key", "403", str(client.call("GET", "/incidents", "x")[0]))


def incidents(client: Client, key: str) -> Iterator[Line]:
    """Create two incidents, find them, and close them."""
    report = {"description": DESCRIPTION, "source": "operator"}
    made: list[str] = []
    for path in ("/incidents", "/incidents/"):
        status, body = client.call("POST", path, key, report)
        yield Line(f"POST {path}", "201", str(status))
        if status == 201:
            made.append(json.loads(body)["id"])
    status, body = client.call("GET", "/incidents/", key)
    listed = {each["id"] for each in json.loads(body)} if status == 200 else set()
    yield Line("GET /incidents/", f"200, with {len(made)} of them", f"{status}, with {len(listed & set(made))} of them")
    for method, path, sent, detail in (
        ("GET", "/incidents/1/2", None, "There is no such route."),
        ("PATCH", "/incidents/9999", {"status": "closed"}, "There is no incident with this id."),
    ):
        status, body = client.call(method, path, key, sent)
        yield Line(f"{method} {path}", f"404 {detail}", f"{status} {detail if detail in body else body}")
    for incident in made:
        status, _ = client.call("PATCH", f"/incidents/{incident}", key, {"status": "closed", "comment": DESCRIPTION})
        yield Line(f"PATCH /incidents/{incident}", "200", str(status))


def logs(session: "boto3.Session", stack: str, since: float) -> Iterator[Line]:
    """Whether the logs have what happened, and no more."""
    client = session.client("logs", config=CONFIG)

    def found(group: str, pattern: str) -> str:
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            asked = {"logGroupName": group, "filterPattern": pattern, "startTime": int(since * 1000)}
            for page in client.get_paginator("filter_log_events").paginate(**asked):
                if page["events"]:
                    return "found"
            time.sleep(2)
        return f"nothing within {WAIT} s"

    functions, access = f"/aws/lambda/{stack}", f"/aws/vendedlogs/{stack}/access"
    yield Line(f'{functions}: "refused"', "found", found(functions, '"no access key"'))
    yield Line(f"{access}: {NAME}", "found", found(access, f'"{NAME}"'))
    asked = {"logGroupName": functions, "filterPattern": f'"{DESCRIPTION}"', "startTime": int(since * 1000)}
    told = any(page["events"] for page in client.get_paginator("filter_log_events").paginate(**asked))
    yield Line(f"{functions}: a description", "nothing", "found" if told else "nothing")


def lines(stack: str, url: str) -> Iterator[Line]:
    """Every comparison, in order. Raises `KeysError`."""
    session = connect()
    found = describe(session, stack)
    parameters = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    yield Line("make deploy", "CREATE_COMPLETE or UPDATE_COMPLETE", found["StackStatus"])
    yield from routes(session, outputs["ApiUrl"].removeprefix("https://").partition(".")[0], parameters)
    client = Client(url or outputs.get("DomainUrl", outputs["ApiUrl"]))
    keys = Keys(session.client("dynamodb", config=CONFIG), outputs["KeysTableName"])
    key = keys.create(NAME, "operator")
    began = time.time()
    try:
        yield from refusals(client)
        yield from incidents(client, key)
        yield from logs(session, stack, began)
    finally:
        for each in keys.all():
            if each["name"] == NAME:
                keys.revoke(each)
    # The gateway repeats an answer for a minute, for each route: this one has not been used.
    yield Line("GET /incidents/9999 with a revoked key", "403", str(client.call("GET", "/incidents/9999", key)[0]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.smoke", description="Compare a deployed stack with what is expected.")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--url", default="", help="where the API answers, if not where the stack says")
    options = parser.parse_args()
    good = True
    try:
        for line in lines(options.stack, options.url):
            same = line.seen == line.expected or line.seen in line.expected.split(" or ")
            good = good and same
            print(
                f"{'ok' if same else 'WRONG':<6} {line.run}\n       expected: {line.expected}\n       seen:     {line.seen}",
                flush=True,
            )
    except (KeysError, BotoCoreError, ClientError, urllib3.exceptions.HTTPError) as error:
        sys.exit(" ".join(str(error).split()))
    sys.exit(not good)


if __name__ == "__main__":
    main()
