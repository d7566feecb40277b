"""The settings for monitoring systems in infra/integrations.md, executed by each system's own program."""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from subprocess import PIPE, STDOUT, run
from typing import TYPE_CHECKING

import httpx
import pytest

from infra.local.gateway import Gateway
from tests.steps import SENDING, examples

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

pytestmark = pytest.mark.slow

LIQUID = "liquidjs@10.26.0"  # the version that Uptime Kuma 2.5 requires


# ---- Zabbix


@pytest.fixture
def with_key(serve: Callable[["WSGIApplication"], str]) -> str:
    """The URL of the API, which accepts only the access key `inc_1`."""
    gateway = Gateway()

    def authorize(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION") == "Bearer inc_1":
            return gateway(environ, start_response)
        start_response("401 Unauthorized", [])
        return [b"no key"]

    return serve(authorize)


@pytest.mark.skipif(not shutil.which("zabbix_js"), reason="zabbix_js is not installed")
def test_zabbix_reports_a_problem_once_and_shows_refusals(api: httpx.Client, with_key: str, tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    (code,) = examples("javascript")
    script.write_text(code)

    def report(message: str, key: str = "inc_1") -> str:
        """What the script returns or throws."""
        parameters = {"url": f"{with_key}/incidents", "key": key, "event": "4567", "message": message}
        command = ["zabbix_js", "--script", str(script), "--param", json.dumps(parameters, ensure_ascii=False)]
        return run(command, stdout=PIPE, stderr=STDOUT, text=True, check=False).stdout.strip()

    problem = 'Problem: Касса "1" \\ 🛴\nне отвечает\x07\x85'
    assert "The Incident API answered 401: no key" in report(problem, key="inc_2")
    assert [report(problem), report(problem)] == ["OK", "OK"]
    assert "The Incident API answered 422: {" in report("Resolved: the same event")
    (incident,) = api.get("/incidents").json()
    assert incident["description"] == 'Problem: Касса "1" \\ 🛴 не отвечает'
    assert (incident["source"], incident["status"]) == ("monitoring", "open")


# ---- Uptime Kuma

NAME = 'Касса "1" 🛴 {{ name }}'


@pytest.mark.skipif(not shutil.which("npx"), reason="npx is not installed")
@pytest.mark.parametrize(
    ("message", "heartbeat", "description", "status"),
    [
        pytest.param(
            f"[{NAME}] [🔴 Down] C:\\\n\t\x07\x7f\x85не отвечает",
            {"status": 0},
            f"[{NAME}] [🔴 Down] C:\\\nне отвечает",
            "open",
            id="down",
        ),
        pytest.param(f"[{NAME}] [✅ Up] 200 - OK", {"status": 1}, f"[{NAME}] [✅ Up] 200 - OK", "resolved", id="up"),
        pytest.param("x" * 10_001, {"status": 0}, "x" * 9_997 + "...", "open", id="too-long"),
        pytest.param(
            f"[{NAME}] The certificate expires", None, f"[{NAME}] The certificate expires", "open", id="certificate"
        ),
    ],
)
def test_the_api_takes_what_uptime_kuma_renders(
    api: httpx.Client,
    message: str,
    heartbeat: dict[str, int] | None,
    description: str,
    status: str,
    tmp_path: Path,
) -> None:
    context = tmp_path / "context.json"
    context.write_text(json.dumps({"msg": message, "heartbeatJSON": heartbeat}))
    command = ["npx", "--yes", "--prefer-offline", LIQUID, "--template", "@-", "--context", f"@{context}"]
    _, _, template, _ = examples("json")
    body = run(command, input=template, capture_output=True, text=True, check=True).stdout
    (headers,) = re.findall(r"^ {4}(\{.*\})$", SENDING, re.MULTILINE)
    response = api.post("/incidents", content=body, headers=json.loads(headers.replace("…", "1")))
    assert response.status_code == 201, response.text
    assert (response.json()["description"], response.json()["status"]) == (description, status)
