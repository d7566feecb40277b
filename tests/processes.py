"""The functions in separate processes, like Lambda's execution environments. It imports little, because each of them imports it."""

from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

from pydantic import JsonValue
from werkzeug.test import Client

from tests import anew

# The tests' client retries, and a slow machine must not fail a test.
PATIENT = {"read_timeout": 20, "retries": {"mode": "standard", "total_max_attempts": 1}}

_process = ExitStack()
_function: Client


def running(number: int, database: str) -> ProcessPoolExecutor:
    """Processes that can run `ask` and `change_until_answered`."""
    return ProcessPoolExecutor(number, get_context("spawn"), _start, (database,))


def _start(database: str) -> None:
    global _function
    _function = Client(_process.enter_context(anew.gateway(PATIENT, DynamoDBEndpoint=database)))


def ask(method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, JsonValue]]:
    """The status and body of the response of the functions in this process."""
    response = _function.open(path, method=method, json=body, headers=headers)
    return response.status_code, response.get_json()


def change_until_answered(change: tuple[str, str, bool]) -> tuple[str, int]:
    """Set the status at a path, retrying as a client does; if guarded, with the version just read in `If-Match`."""
    path, status, guarded = change
    for _ in range(100):
        code, incident = ask("GET", path)
        if code == 200:
            headers = {"If-Match": f'"{incident["version"]}"'} if guarded else {}
            code, changed = ask("PATCH", path, {"status": status}, **headers)
            if code == 200:
                return status, int(str(changed["version"]))
        assert code in (412, 503)
    raise AssertionError("100 attempts were not enough")
