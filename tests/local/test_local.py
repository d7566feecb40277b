"""The local run: `python -m infra.local`, which is all that `make run` starts."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from infra.local import gateway, template
from tests.conftest import ROOT, TEMPLATE, LocalRun, http_client
from tests.steps import follow, report

RunLocal = Callable[..., LocalRun]


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end, which it has to come to by itself."""
    command = [sys.executable, "-m", "infra.local", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def every_incident(api: httpx.Client) -> list[dict[str, str]]:
    return [incident for page in follow(api, "/incidents?limit=100") for incident in page]


@pytest.mark.parametrize(
    "how",
    [pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGINT, signal.SIGTERM)]
    + [pytest.param(signal.SIGKILL)],
)
def test_everything_is_there_after_a_restart(run_local: RunLocal, how: int) -> None:
    local = run_local()
    incidents = [report(local.client, f"Самокат {number}") for number in range(3)]
    incidents[1] = local.client.patch(f"/incidents/{incidents[1]['id']}", json={"status": "closed"}).json()
    again = local.client.post(
        "/incidents", json={"description": "x", "source": "partner"}, headers={"Idempotency-Key": "1"}
    )
    assert local.stop(how).endswith("Stopped.\n") == (how != signal.SIGKILL)

    local = run_local()
    assert sorted(every_incident(local.client), key=lambda incident: incident["created_at"]) == [
        *incidents,
        again.json(),
    ]
    assert local.client.get("/incidents?status=closed").json() == [incidents[1]]
    repeated = local.client.post(
        "/incidents", json={"description": "x", "source": "partner"}, headers={"Idempotency-Key": "1"}
    )
    assert repeated.headers["Idempotent-Replayed"] == "true"


@pytest.mark.slow
def test_a_kill_in_a_stream_of_creates_loses_and_doubles_nothing(run_local: RunLocal) -> None:
    local = run_local()
    acknowledged: list[dict[str, str]] = []
    enough = threading.Event()

    def create_until_the_end(name: int) -> None:
        with http_client(str(local.client.base_url)) as client:
            for number in range(100_000):
                try:
                    acknowledged.append(report(client, f"{name}/{number}"))
                except httpx.TransportError:
                    return
                if len(acknowledged) >= 100:
                    enough.set()

    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(create_until_the_end, name) for name in range(4)]
        assert enough.wait(timeout=60)
        local.stop(signal.SIGKILL)
    assert [stream.result() for stream in streams] == [None] * 4

    kept = every_incident(run_local().client)
    assert {incident["id"]: incident for incident in kept}.items() >= {i["id"]: i for i in acknowledged}.items()
    assert len({incident["description"] for incident in kept}) == len(kept)
    # At most the four that were under way were written and not acknowledged.
    assert len(acknowledged) <= len(kept) <= len(acknowledged) + 4


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("enough", [1, 10, 50])
def test_a_signal_among_concurrent_requests_cuts_none_of_them_off(run_local: RunLocal, how: int, enough: int) -> None:
    local = run_local()
    acknowledged: list[dict[str, str]] = []
    reached = threading.Event()

    def create_until_refused() -> None:
        with http_client(str(local.client.base_url)) as client:
            while True:
                try:
                    acknowledged.append(report(client))
                except httpx.TransportError:
                    return
                if len(acknowledged) >= enough:
                    reached.set()

    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(create_until_refused) for _ in range(8)]
        assert reached.wait(timeout=60)
        printed = local.stop(how).splitlines()
    assert [stream.result() for stream in streams] == [None] * 8
    assert (local.process.returncode, printed[-1]) == (0, "Stopped.")
    assert [line for line in printed[2:-1] if " POST /incidents 201 " not in line] == []
    # Every client has its answer: as many incidents are recorded as were acknowledged, no more and no fewer.
    assert sorted(recorded(local.data)) == sorted(incident["id"] for incident in acknowledged)


def recorded(data: Path) -> list[str]:
    """The ids in the journal, one for each line."""
    return [json.loads(line)["id"]["S"] for line in (data / "incidents.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_neither_others_nor_a_signal_wait_for_a_request_that_does_not_arrive(run_local: RunLocal, how: int) -> None:
    local = run_local()
    address = (local.client.base_url.host, local.client.base_url.port or 0)
    with socket.create_connection(address) as silent, socket.create_connection(address) as slow:
        slow.sendall(b"POST /incidents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert local.client.get("/incidents").status_code == 200
        assert local.stop(how).endswith("Stopped.\n")
        assert silent.recv(1000) == b""
        assert slow.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert local.process.returncode == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_program_starts_ends_it(tmp_path: Path, how: int) -> None:
    command = [sys.executable, "-m", "infra.local", "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not catches(process.pid, signal.SIGTERM):  # then it begins with its imports
            assert process.poll() is None
        process.send_signal(how)
        assert process.wait(timeout=30) == 0
        assert process.stdout
        assert process.stdout.read().endswith("Stopped.\n")


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(
            dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "AWS_ENDPOINT_URL"), "http://127.0.0.1:9")
            | {"AWS_PROFILE": "nope"},
            id="one shell",
        ),
        pytest.param(
            {"http_proxy": "http://127.0.0.1:9", "no_proxy": "example.com", "AWS_CONFIG_FILE": "{file}"}
            | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            id="another shell",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_the_shell_has_set_for_other_programs_does_not_matter(
    run_local: RunLocal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    (tmp_path / "file").write_text("[profile\n")
    for name in [name for name in os.environ if name.lower() == "no_proxy" or name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(file=tmp_path / "file"))
    local = run_local()
    incident = report(local.client)
    assert every_incident(local.client) == [incident]


def test_a_line_cut_short_is_dropped(run_local: RunLocal, tmp_path: Path) -> None:
    local = run_local()
    incidents = [report(local.client), report(local.client)]
    local.stop(signal.SIGKILL)
    journal = tmp_path / "data" / "incidents.jsonl"
    journal.write_bytes(journal.read_bytes()[:-10])

    local = run_local()
    assert len(local.start_up) == 1
    assert f"The last line of {journal} is incomplete" in local.start_up[0]
    assert every_incident(local.client) == incidents[:1]
    third = report(local.client)
    local.stop(signal.SIGKILL)
    assert recorded(local.data) == [incidents[0]["id"], third["id"]]


def test_a_journal_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    journal = tmp_path / "incidents.jsonl"
    journal.write_text("not an incident\n")
    ended = start("--port", "0", "--data", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(
        f"Line 1 of {journal} is not an incident. Restore the file from a copy, or delete this"
    )
    assert ended.stderr.count("\n") == 1
    assert journal.read_text() == "not an incident\n"


def test_a_write_that_cannot_be_kept_is_not_acknowledged(run_local: RunLocal) -> None:
    local = run_local()
    first = report(local.client)
    # From here on the journal can grow by 100 bytes only, less than an incident takes.
    size = (local.data / "incidents.jsonl").stat().st_size
    resource.prlimit(local.process.pid, resource.RLIMIT_FSIZE, (size + 100, size + 100))
    with pytest.raises(httpx.TransportError):
        local.client.post("/incidents", json={"description": "lost", "source": "operator"})
    assert local.process.wait(timeout=30) == 1
    assert "cannot be written: File too large. Stopped." in local.stop(signal.SIGKILL)
    assert every_incident(run_local().client) == [first]


def test_a_busy_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start("--port", str(port), "--data", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"Port {port} cannot be used")
    assert ended.stderr.count("\n") == 1


def test_a_data_folder_that_cannot_be_used_is_told_in_one_line(run_local: RunLocal, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = start("--port", "0", "--data", str(tmp_path / "file" / "folder"))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"The data folder {tmp_path}/file/folder cannot be written: Not a directory.\n"

    local = run_local()
    ended = start("--port", "0", "--data", str(local.data))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"The data folder {local.data} is in use by another run.\n"


def test_the_stack_s_parameters_can_be_given(run_local: RunLocal) -> None:
    local = run_local("--parameters", "StatusShards=64 LogDays=7")
    for _ in range(5):
        report(local.client)
    local.stop(signal.SIGTERM)
    lines = (local.data / "incidents.jsonl").read_text().splitlines()
    assert {json.loads(line)["status_shard"]["S"] for line in lines} != {"open#0"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("StatusShards", "The parameter StatusShards cannot be ''. It is a number.\n"),
        ("LogDays='3", "The parameters cannot be read (No closing quotation): LogDays='3\n"),
    ],
)
def test_a_parameter_that_the_stack_does_not_take_is_told_in_one_line(
    tmp_path: Path, parameters: str, message: str
) -> None:
    ended = start("--port", "0", "--data", str(tmp_path), "--parameters", parameters)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1


def test_every_request_is_logged_without_its_body(run_local: RunLocal) -> None:
    local = run_local()
    incident = report(local.client, "a secret")
    local.client.get(f"/incidents/{incident['id']}?a=b")
    log = local.stop(signal.SIGTERM)
    assert " POST /incidents 201 " in log
    assert f" GET /incidents/{incident['id']}?a=b 422 " in log
    assert str(local.data) in log
    assert "a secret" not in log
    of_functions = (local.data / "functions.log").read_text()
    assert [json.loads(line)["status_code"] for line in of_functions.splitlines()] == [201, 422]
    assert "a secret" not in of_functions


def test_other_routes_are_not_found(api: httpx.Client) -> None:
    for method, path in [
        ("POST", "/"),
        ("PUT", "/incidents"),
        ("DELETE", "/incidents/1"),
        ("PATCH", "/incidents/"),
        ("PATCH", "/incidents/1/"),
        ("GET", "/nothing/incidents"),
    ]:
        response = api.request(method, path)
        assert (response.status_code, response.json()) == (404, {"message": "Not Found"})


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/incidents", "GET /incidents"),
        ("/incidents/1", "GET /incidents/{id}"),
        ("/incidents/", "GET /incidents/{proxy+}"),
        ("/incidents/1/", "GET /incidents/{proxy+}"),
        ("/incidents/1/2", "GET /incidents/{proxy+}"),
    ],
)
def test_the_most_specific_route_is_chosen(path: str, key: str) -> None:
    chosen = next(route for route in TEMPLATE.routes() if route.match("GET", path) is not None)
    assert chosen.key == key


def test_a_payload_over_10_mb_does_not_reach_a_function(api: httpx.Client) -> None:
    response = api.post("/incidents", content=bytes(10 * 1024 * 1024 + 1))
    assert (response.status_code, response.json()) == (413, {"message": "Request Entity Too Large"})


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A function of one's own behind the gateway: the file, to be written."""
    declared = {
        "Globals": {"Function": {"Timeout": 1, "Environment": {"Variables": {}}}},
        "Parameters": {},
        "Resources": {
            "EchoFunction": {
                "Type": "AWS::Serverless::Function",
                "Properties": {
                    "Handler": "echo.handler",
                    "Events": {"Any": {"Type": "HttpApi", "Properties": {"Method": "POST", "Path": "/echo/{id}"}}},
                },
            }
        },
    }
    path = tmp_path / "template.yaml"
    path.write_text(json.dumps(declared))
    monkeypatch.setattr(template, "PATH", path)
    monkeypatch.setattr(gateway, "FUNCTIONS", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "echo", raising=False)
    return tmp_path / "echo.py"


def test_a_changed_file_is_taken_up_by_the_next_request(echo: Path, serve: Callable[[gateway.Gateway], str]) -> None:
    address = serve(gateway.Gateway())
    for number, body in enumerate(["first", "second"]):
        echo.write_text(
            f"def handler(event, context): return dict(statusCode=200, body='{body}', headers={{}}, isBase64Encoded=False)"
        )
        os.utime(echo, ns=(number, number))
        assert httpx.post(f"{address}/echo/1").text == body
    echo.write_text("def handler(event, context):")
    assert httpx.post(f"{address}/echo/1").status_code == 500
    echo.write_text("def handler(event, context): raise ValueError")
    response = httpx.post(f"{address}/echo/1")
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


def test_a_function_is_given_the_event_that_aws_documents(echo: Path, serve: Callable[[gateway.Gateway], str]) -> None:
    echo.write_text(
        "import json\n"
        "def handler(event, context):\n"
        "    return dict(statusCode=200, body=json.dumps(event), headers={}, isBase64Encoded=False)\n"
    )
    address = serve(gateway.Gateway())
    headers = [("Cookie", "a=1; b=2"), ("X-Many", "1"), ("X-Many", "2"), ("Content-Type", "application/json")]
    event = httpx.post(f"{address}/echo/%D1%8F%20z?q=1&q=2&r=a%2Cb&s", content="{}", headers=headers).json()
    assert event["version"] == "2.0"
    assert event["routeKey"] == event["requestContext"]["routeKey"] == "POST /echo/{id}"
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/echo/я z"
    assert event["rawQueryString"] == "q=1&q=2&r=a%2Cb&s"
    assert event["queryStringParameters"] == {"q": "1,2", "r": "a,b", "s": ""}
    assert event["pathParameters"] == {"id": "я z"}
    assert event["cookies"] == ["a=1", "b=2"]
    assert event["headers"]["x-many"] == "1,2"
    assert "cookie" not in event["headers"]
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["requestContext"]["stage"] == "$default"
    assert (event["body"], event["isBase64Encoded"]) == ("{}", False)

    form = {"Content-Type": "application/x-www-form-urlencoded"}
    event = httpx.post(f"{address}/echo/1", content="a=1", headers=form).json()
    assert (event["body"], event["isBase64Encoded"]) == ("YT0x", True)
    assert "queryStringParameters" not in event
    assert "body" not in httpx.post(f"{address}/echo/1").json()


def test_a_head_over_10240_bytes_does_not_reach_a_function(echo: Path, serve: Callable[[gateway.Gateway], str]) -> None:
    echo.write_text(
        "def handler(event, context): return dict(statusCode=200, body='', headers={}, isBase64Encoded=False)"
    )
    with httpx.Client(base_url=serve(gateway.Gateway())) as client:
        request = client.build_request("POST", "/echo/1?q=1", headers={"X-Pad": ""})
        head = len("POST /echo/1?q=1 HTTP/1.1") + sum(len(value) for value in request.headers.values())
        pad = "x" * (10_240 - head)
        assert client.post("/echo/1?q=1", headers={"X-Pad": pad}).status_code == 200
        for response in (
            client.post("/echo/1?q=1", headers={"X-Pad": pad + "x"}),
            client.post("/echo/1?q=12", headers={"X-Pad": pad}),
        ):
            assert (response.status_code, response.json()) == (431, {"message": "Request Header Fields Too Large"})


@pytest.mark.parametrize("over", [0, 1])
def test_a_response_over_lambda_s_limit_is_a_500(
    echo: Path, serve: Callable[[gateway.Gateway], str], caplog: pytest.LogCaptureFixture, over: int
) -> None:
    around = len(json.dumps({"statusCode": 200, "headers": {}, "isBase64Encoded": False, "body": ""}))
    body = 6_291_556 - around + over - 2
    echo.write_text(
        f"def handler(event, context):\n"
        f"    return dict(statusCode=200, headers={{}}, isBase64Encoded=False, body='Я' + {body} * 'x')\n"
    )
    response = httpx.post(f"{serve(gateway.Gateway())}/echo/1")
    if over:
        assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})
        assert "EchoFunction returned 6291557 bytes; Lambda's limit is 6291556." in caplog.text
    else:
        assert (response.status_code, len(response.text)) == (200, body + 1)


def test_a_response_after_the_function_s_timeout_is_a_500(
    echo: Path, serve: Callable[[gateway.Gateway], str], caplog: pytest.LogCaptureFixture
) -> None:
    echo.write_text(
        "import time\n"
        "def handler(event, context):\n"
        "    time.sleep(1.1)\n"
        "    return dict(statusCode=200, headers={}, isBase64Encoded=False, body='')\n"
    )
    response = httpx.post(f"{serve(gateway.Gateway())}/echo/1")
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})
    assert "EchoFunction ran for 1.1 s; Lambda ends it after 1 s." in caplog.text


def executable(path: Path, text: str) -> None:
    """A program of this text."""
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_sam_cli_is_started_without_what_the_shell_has_set_for_other_programs(tmp_path: Path, how: int) -> None:
    executable(tmp_path / "docker", """#!/bin/sh\necho '[{"Gateway": "127.0.0.1"}]'\n""")
    # A SAM CLI that builds at once, says what it was started with, and serves until it is told to end.
    executable(
        tmp_path / "sam",
        '#!/bin/sh\n[ "$1" = build ] && exit\n'
        'echo "no_proxy=$no_proxy NO_PROXY=$NO_PROXY profile=$AWS_PROFILE table=$TABLE_NAME"\necho "$@"\nexec sleep 60\n',
    )
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"} | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "AWS_PROFILE": "nope",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "example.com",
        "TABLE_NAME": "Another",
    }
    command = [sys.executable, "-u", "-m", "infra.local.sam", "--database-port", "0", "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("DynamoDB answers on http://127.0.0.1:")
        exempt = "example.com,localhost,127.0.0.1"
        assert process.stdout.readline() == f"no_proxy={exempt} NO_PROXY={exempt} profile= table=\n"
        assert process.stdout.readline().startswith("local start-api --port 8000 --parameter-overrides Architecture=")
        process.send_signal(how)
        assert process.wait(timeout=30) == 0
