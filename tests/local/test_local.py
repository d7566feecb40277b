"""The local run: `python -m infra.local`, which `make run` starts, and its counterpart with the SAM CLI."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, LocalRun, http_client
from tests.steps import follow, report, until

RunLocal = Callable[..., LocalRun]


def every_incident(api: httpx.Client) -> list[dict[str, str]]:
    return [incident for page in follow(api, "/incidents?limit=100") for incident in page]


def report_once(api: httpx.Client) -> httpx.Response:
    body = {"description": "x", "source": "partner"}
    return api.post("/incidents", json=body, headers={"Idempotency-Key": "1"})


@pytest.mark.parametrize("end", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL])
def test_a_restart_keeps_everything(run_local: RunLocal, end: int) -> None:
    local = run_local()
    incidents = [report(local.client, f"Самокат {number}") for number in range(3)]
    incidents[1] = local.client.patch(f"/incidents/{incidents[1]['id']}", json={"status": "closed"}).json()
    incidents.append(report_once(local.client).json())
    assert local.stop(end).endswith("Stopped.\n") == (end != signal.SIGKILL)

    local = run_local()
    assert every_incident(local.client) == incidents[::-1]
    assert local.client.get("/incidents?status=closed").json() == [incidents[1]]
    assert report_once(local.client).headers["Idempotent-Replayed"] == "true"


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("enough", [1, 10, 100])
def test_an_end_under_load_loses_no_acknowledged_incident(run_local: RunLocal, end: int, enough: int) -> None:
    local = run_local()
    acknowledged: dict[str, dict[str, str]] = {}

    def create_until_refused(name: int) -> None:
        with http_client(str(local.client.base_url)) as client, suppress(httpx.TransportError):
            for number in count():
                incident = report(client, f"{name}/{number}")
                acknowledged[incident["id"]] = incident

    with ThreadPoolExecutor(8) as clients:
        for name in range(8):
            clients.submit(create_until_refused, name)
        until(lambda: len(acknowledged) >= enough, f"{enough} incidents are created")
        printed = local.stop(end).splitlines()
    kept = {incident["id"]: incident for incident in every_incident(run_local().client)}
    assert kept.items() >= acknowledged.items()
    if end == signal.SIGKILL:  # the one request in progress may be stored unacknowledged
        assert len(kept) <= len(acknowledged) + 1
    else:
        assert len(kept) == len(acknowledged)
        assert (local.process.returncode, printed[-1]) == (0, "Stopped.")
        assert [line for line in printed[2:-1] if " POST /incidents 201 " not in line] == []


def test_an_incomplete_request_does_not_delay_the_end(run_local: RunLocal) -> None:
    local = run_local()
    address = (local.client.base_url.host, local.client.base_url.port or 0)
    with socket.create_connection(address) as silent, socket.create_connection(address) as slow:
        slow.sendall(b"POST /incidents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert local.client.get("/incidents").json() == []
        assert local.stop(signal.SIGTERM).endswith("Stopped.\n")
        assert (silent.recv(1000), slow.recv(1000)) == (b"", b"")
    assert local.process.returncode == 0


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_startup_ends_the_program(tmp_path: Path, end: int) -> None:
    command = [sys.executable, "-m", "infra.local", "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: catches(process.pid, signal.SIGTERM), "the program handles signals")
        process.send_signal(end)
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "Stopped.\n")


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_proxies_and_aws_settings_of_the_shell_are_ignored(
    run_local: RunLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "TABLE_NAME"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    local = run_local()
    incident = report(local.client)
    assert every_incident(local.client) == [incident]


def test_a_full_disk_refuses_writes_and_serves_reads(run_local: RunLocal) -> None:
    local = run_local()
    kept = [report(local.client, "x" * 1000) for _ in range(3)]
    size = (local.data / "incidents.sqlite-wal").stat().st_size
    # No file of the process can grow: the write-ahead log has no room for another incident.
    resource.prlimit(local.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    assert report_once(local.client).status_code == 503
    assert local.client.patch(f"/incidents/{kept[0]['id']}", json={"status": "closed"}).status_code == 503
    assert every_incident(local.client) == kept[::-1]
    resource.prlimit(local.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    kept.append(report(local.client))
    local.stop(signal.SIGKILL)
    with file_size_limit(1):
        local = run_local()
    assert every_incident(local.client) == kept[::-1]
    assert report_once(local.client).status_code == 503
    local.stop(signal.SIGTERM)
    assert every_incident(run_local().client) == kept[::-1]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the files of the programs that are started meanwhile, in bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_requests_are_logged_without_their_bodies(run_local: RunLocal) -> None:
    local = run_local("--parameters", "StatusShards=64 Alerts=enabled")
    incident = report(local.client, "a secret")
    local.client.get(f"/incidents/{incident['id']}?a=b")
    assert local.client.post("/alerts", json={"alerts": []}).status_code == 200
    log = local.stop(signal.SIGTERM)
    assert " POST /incidents 201 " in log
    assert f" GET /incidents/{incident['id']}?a=b 422 " in log
    assert str(local.data) in log
    of_functions = (local.data / "functions.log").read_text()
    assert [json.loads(line)["status_code"] for line in of_functions.splitlines()] == [201, 422, 200]
    assert "a secret" not in log + of_functions


# ---- the journal of earlier releases


Attributes = dict[str, dict[str, object]]


def old_item(number: int, status: str = "open", version: int = 1) -> Attributes:
    """An incident as earlier releases stored it: each field is an attribute."""
    name, time = f"6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e3{number}", f"2025-11-08T10:00:00.00{number}Z"
    fields = {"id": name, "description": f"Самокат {number}", "source": "partner", "status": status}
    fields |= {"created_at": time, "updated_at": time, "status_shard": f"{status}#0", "position": f"{time}#{name}"}
    return {**{name: {"S": value} for name, value in fields.items()}, "version": {"N": str(version)}}


def write_journal(folder: Path, *items: object, end: str = "") -> Path:
    folder.mkdir()
    journal = folder / "incidents.jsonl"
    journal.write_text("".join(json.dumps(item) + "\n" for item in items) + end)
    journal.chmod(0o600)
    return journal


def test_the_journal_of_an_earlier_release_is_imported(run_local: RunLocal, tmp_path: Path) -> None:
    entries = [
        {"M": {"status": {"S": status}, "at": {"S": "2025-11-08T10:00:00.002Z"}}} for status in ("open", "closed")
    ]
    closed = {**old_item(2, "closed", version=2), "history": {"L": entries}}
    deleted = {"id": old_item(3)["id"]}
    episode = {"id": {"S": "alert#1"}, "episode": {"M": {"starts": {"S": "x"}}}}
    items = (old_item(1), old_item(2), old_item(3), episode, closed, deleted)
    journal = write_journal(tmp_path / "data", *items, end='{"id": {"S')
    written = journal.read_bytes()

    local = run_local()
    assert [line.split(" ", 1)[1] for line in local.start_up] == [
        f"The last line of {journal} is incomplete, and left out: its write was interrupted.\n",
        f"{journal} has been imported into the database. The file is kept, but not read again.\n",
    ]
    second, first = every_incident(local.client)
    assert local.client.get(f"/incidents/{deleted['id']['S']}").status_code == 404
    fields = {name: value["S"] for name, value in old_item(1).items() if "S" in value and name in first}
    assert first == first | fields | {"version": 1}
    assert (second["status"], str(second["version"])) == ("closed", "2")
    assert local.client.patch(f"/incidents/{first['id']}", json={"status": "resolved"}).json()["version"] == 2
    for incident, statuses in ((first, ["open", "resolved"]), (second, ["open", "closed"])):
        history = local.client.get(f"/incidents/{incident['id']}/history").json()
        assert [(entry["version"], entry["status"]) for entry in history] == list(enumerate(statuses, 1))
    local.stop(signal.SIGTERM)

    local = run_local()
    assert local.start_up == []
    assert [incident["status"] for incident in every_incident(local.client)] == ["closed", "resolved"]
    assert journal.read_bytes() == written
    assert (local.data / "incidents.sqlite").stat().st_mode & 0o777 == 0o600


# ---- why the program does not start


def start(*arguments: str) -> str:
    """Run the program until it ends by itself; return the only line that it prints, to the standard error."""
    command = [sys.executable, "-m", "infra.local", "--port", "0", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1), ended.stderr
    return ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", ""], "The data folder needs a name"),
        (["--data", "LICENSE/folder"], "The data folder LICENSE/folder cannot be written: Not a directory."),
        (["--parameters", "StatusShards"], "The parameter StatusShards cannot be ''. It must be a number."),
        (["--parameters", "BudgetUSD=5"], "BudgetUSD needs AlarmEmail."),
        (["--parameters", "LogDays='3"], "The parameters cannot be read (No closing quotation): LogDays='3"),
    ],
)
def test_a_wrong_argument_is_reported(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert start("--data", str(tmp_path), *arguments).startswith(message)


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert start("--port", str(port), "--data", str(tmp_path)).startswith(f"Port {port} cannot be used")


def test_a_damaged_database_is_reported_and_left_alone(run_local: RunLocal) -> None:
    local = run_local()
    for _ in range(20):
        report(local.client, "x" * 1000)
    local.stop(signal.SIGTERM)
    path = local.data / "incidents.sqlite"
    whole = path.read_bytes()
    for damaged in (b"not a database" * 100, whole[: len(whole) // 2], whole[:8192] + bytes(4096) + whole[12288:]):
        path.write_bytes(damaged)
        message = start("--data", str(local.data))
        assert message.startswith(f"The database {path} ")
        assert message.endswith(" Restore it from a copy.\n")
        assert path.read_bytes() == damaged


def test_an_unreadable_journal_is_reported_at_every_start(tmp_path: Path) -> None:
    journal = write_journal(tmp_path / "data", old_item(1), "not an incident")
    for _ in range(2):
        message = start("--data", str(tmp_path / "data"))
        assert message.startswith(
            f"Line 2 of {journal} is not an incident. Restore the file from a copy, or delete this"
        )


# ---- make sam-local

DOCKER = """#!/bin/sh
echo '[{"Gateway": "127.0.0.1"}]'
"""
SAM = """#!/bin/sh
[ "$1" = build ] && exit
echo "no_proxy=$no_proxy NO_PROXY=$NO_PROXY profile=$AWS_PROFILE table=$TABLE_NAME"
echo "$@"
exec sleep 60
"""


@pytest.mark.parametrize(
    ("end", "exempt"),
    [
        (signal.SIGINT, {"no_proxy": "example.com", "NO_PROXY": "other.example"}),
        pytest.param(signal.SIGTERM, {"NO_PROXY": "example.com"}, marks=pytest.mark.slow),
    ],
)
def test_the_sam_cli_ignores_the_shells_aws_settings(tmp_path: Path, end: int, exempt: dict[str, str]) -> None:
    for name, text in (("docker", DOCKER), ("sam", SAM)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= {"AWS_PROFILE": "nope", "HTTP_PROXY": "http://127.0.0.1:9", "TABLE_NAME": "Another"}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | exempt
    command = [sys.executable, "-u", "-m", "infra.local.sam", "--database-port", "0", "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("DynamoDB answers on http://127.0.0.1:")
        hosts = "example.com,localhost,127.0.0.1"
        assert process.stdout.readline() == f"no_proxy={hosts} NO_PROXY={hosts} profile= table=\n"
        assert process.stdout.readline().startswith("local start-api --port 8000 --parameter-overrides Architecture=")
        process.send_signal(end)
        assert process.wait(timeout=30) == 0
