"""Run "The first ten minutes" of infra/README.md against a deployed stack: `make smoke`.

It prints what was run, what was expected and what was seen. At the end it closes the incidents that it created, and revokes its
access key. The exit status is 1 if anything differed.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import urllib3

from infra.keys import Keys
from infra.local import template
from infra.stack import CONFIG, Stack, connect, describe, exit_on_error

if TYPE_CHECKING:
    import boto3

KEY_NAME = "make-smoke"
DESCRIPTION = "make smoke: a test, to be ignored"
LOG_DELAY = 60
"""Seconds within which an event has to appear in a log."""


class Line(NamedTuple):
    run: str
    expected: str
    seen: str


def call(method: str, url: str, key: str = "", body: object = None) -> tuple[int, str]:
    """The status and the body of the response to a request, which is not retried."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = urllib3.request(method, url, headers=headers, json=body, retries=False, timeout=30)
    return response.status, response.data.decode(errors="replace")


def routes(session: "boto3.Session", stack: Stack) -> Iterator[Line]:
    """Whether API Gateway has the template's routes, each with the authorizer."""
    api = stack.outputs["ApiUrl"].removeprefix("https://").partition(".")[0]
    found = session.client("apigatewayv2", config=CONFIG).get_routes(ApiId=api, MaxResults="500")["Items"]
    declared = sorted(route.key for route in template.load().routes(**stack.parameters))
    seen = sorted(route["RouteKey"] for route in found)
    authorizers = sorted({route["AuthorizationType"] for route in found})
    yield Line("aws apigatewayv2 get-routes: RouteKey", ", ".join(declared), ", ".join(seen))
    yield Line("aws apigatewayv2 get-routes: AuthorizationType", "CUSTOM", ", ".join(authorizers))


def refusals(url: str) -> Iterator[Line]:
    yield Line("GET /incidents without a key", "401", str(call("GET", f"{url}/incidents")[0]))
    yield Line("GET /incidents with a wrong key", "403", str(call("GET", f"{url}/incidents", "x")[0]))


def incidents(url: str, key: str) -> Iterator[Line]:
    report = {"description": DESCRIPTION, "source": "operator"}
    made: list[str] = []
    for path in ("/incidents", "/incidents/"):
        status, body = call("POST", url + path, key, report)
        yield Line(f"POST {path}", "201", str(status))
        if status == 201:
            made.append(json.loads(body)["id"])
    status, body = call("GET", f"{url}/incidents/", key)
    listed = {each["id"] for each in json.loads(body)} if status == 200 else set()
    yield Line("GET /incidents/", f"200, with {len(made)} of them", f"{status}, with {len(listed & set(made))} of them")
    for method, path, sent, detail in (
        ("GET", "/incidents/1/2", None, "There is no such route."),
        ("PATCH", "/incidents/9999", {"status": "closed"}, "There is no incident with this id."),
    ):
        status, body = call(method, url + path, key, sent)
        yield Line(f"{method} {path}", f"404 {detail}", f"{status} {detail if detail in body else body}")
    for incident in made:
        status, _ = call("PATCH", f"{url}/incidents/{incident}", key, {"status": "closed", "comment": DESCRIPTION})
        yield Line(f"PATCH /incidents/{incident}", "200", str(status))


def logs(session: "boto3.Session", stack: str, since: float) -> Iterator[Line]:
    """Whether the logs have what happened, and no descriptions."""
    pages = session.client("logs", config=CONFIG).get_paginator("filter_log_events")

    def has(group: str, text: str) -> bool:
        asked = {"logGroupName": group, "filterPattern": f'"{text}"', "startTime": int(since * 1000)}
        return any(page["events"] for page in pages.paginate(**asked))

    def found(group: str, text: str) -> str:
        end = time.monotonic() + LOG_DELAY
        while time.monotonic() < end:
            if has(group, text):
                return "found"
            time.sleep(2)
        return f"nothing within {LOG_DELAY} s"

    functions, access = f"/aws/lambda/{stack}", f"/aws/vendedlogs/{stack}/access"
    yield Line(f'{functions}: "refused"', "found", found(functions, "no access key"))
    yield Line(f"{access}: {KEY_NAME}", "found", found(access, KEY_NAME))
    yield Line(f"{functions}: a description", "nothing", "found" if has(functions, DESCRIPTION) else "nothing")


def lines(name: str, url: str) -> Iterator[Line]:
    """Every comparison, in order. Raises `CommandError`."""
    session = connect()
    stack = describe(session, name)
    yield Line("make deploy", "CREATE_COMPLETE or UPDATE_COMPLETE", stack.status)
    yield from routes(session, stack)
    url = url or stack.url
    keys = Keys(session.client("dynamodb", config=CONFIG), stack.outputs["KeysTableName"])
    key = keys.create(KEY_NAME, "operator")
    began = time.time()
    try:
        yield from refusals(url)
        yield from incidents(url, key)
        yield from logs(session, name, began)
    finally:
        for each in keys.all():
            if each["name"] == KEY_NAME:
                keys.revoke(each)
    # API Gateway caches a decision for a minute for each route: on this route, the key has not been used.
    yield Line("GET /incidents/9999 with a revoked key", "403", str(call("GET", f"{url}/incidents/9999", key)[0]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.smoke", description="Compare a deployed stack with what is expected.")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--url", default="", help="where the API answers, if not where the stack says")
    options = parser.parse_args()
    good = True
    with exit_on_error(urllib3.exceptions.HTTPError):
        for line in lines(options.stack, options.url):
            same = line.seen in (line.expected, *line.expected.split(" or "))
            good = good and same
            print(f"{'ok' if same else 'WRONG':<6} {line.run}\n       expected: {line.expected}")
            print(f"       seen:     {line.seen}", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
