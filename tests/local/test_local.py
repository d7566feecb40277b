"""The local run: `python -m infra.local`, which is all that `make run` starts."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, LocalRun, http_client
from tests.steps import follow, report

RunLocal = Callable[..., LocalRun]
OLD = "incidents.jsonl"
"""The file in which earlier releases kept the incidents."""


def every_incident(api: httpx.Client) -> list[dict[str, str]]:
    return [incident for page in follow(api, "/incidents?limit=100") for incident in page]


def report_once(api: httpx.Client) -> httpx.Response:
    body = {"description": "x", "source": "partner"}
    return api.post("/incidents", json=body, headers={"Idempotency-Key": "1"})


def create_until_refused(
    local: LocalRun, enough: int, streams: int = 8
) -> tuple[list[dict[str, str]], threading.Event]:
    """Create incidents from several clients until the program ends; what it acknowledges, and whether that is `enough`."""
    acknowledged: list[dict[str, str]] = []
    reached = threading.Event()

    def create(name: int) -> None:
        with http_client(str(local.client.base_url)) as client:
            for number in range(100_000):
                try:
                    acknowledged.append(report(client, f"{name}/{number}"))
                except httpx.TransportError:
                    return
                if len(acknowledged) >= enough:
                    reached.set()

    pool = ThreadPoolExecutor(streams)
    for name in range(streams):
        pool.submit(create, name)
    pool.shutdown(wait=False)
    return acknowledged, reached


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL])
def test_everything_is_there_after_a_restart(run_local: RunLocal, how: int) -> None:
    local = run_local()
    incidents = [report(local.client, f"Самокат {number}") for number in range(3)]
    incidents[1] = local.client.patch(f"/incidents/{incidents[1]['id']}", json={"status": "closed"}).json()
    incidents.append(report_once(local.client).json())
    assert local.stop(how).endswith("Stopped.\n") == (how != signal.SIGKILL)
    assert ((local.data / "incidents.sqlite-wal").exists()) == (how == signal.SIGKILL)

    local = run_local()
    assert sorted(every_incident(local.client), key=lambda incident: incident["created_at"]) == incidents
    assert local.client.get("/incidents?status=closed").json() == [incidents[1]]
    assert report_once(local.client).headers["Idempotent-Replayed"] == "true"


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("enough", [1, 10, 100])
def test_an_end_among_requests_loses_and_doubles_nothing(run_local: RunLocal, how: int, enough: int) -> None:
    local = run_local()
    acknowledged, reached = create_until_refused(local, enough)
    assert reached.wait(timeout=60)
    printed = local.stop(how).splitlines()
    kept = every_incident(run_local().client)
    assert {incident["id"]: incident for incident in kept}.items() >= {i["id"]: i for i in acknowledged}.items()
    assert len({incident["description"] for incident in kept}) == len(kept)
    if how == signal.SIGKILL:  # one request at a time may have been stored and not yet acknowledged
        assert len(kept) <= len(acknowledged) + 1
    else:
        assert len(kept) == len(acknowledged)
        assert (local.process.returncode, printed[-1]) == (0, "Stopped.")
        assert [line for line in printed[2:-1] if " POST /incidents 201 " not in line] == []


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_nobody_waits_for_a_request_that_does_not_arrive(run_local: RunLocal, how: int) -> None:
    local = run_local()
    address = (local.client.base_url.host, local.client.base_url.port or 0)
    with socket.create_connection(address) as silent, socket.create_connection(address) as slow:
        slow.sendall(b"POST /incidents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert local.client.get("/incidents").json() == []
        assert local.stop(how).endswith("Stopped.\n")
        assert (silent.recv(1000), slow.recv(1000)) == (b"", b"")
    assert local.process.returncode == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_program_starts_ends_it(tmp_path: Path, how: int) -> None:
    command = [sys.executable, "-m", "infra.local", "--port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
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


def test_what_the_shell_has_set_for_other_programs_is_ignored(
    run_local: RunLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = "http://127.0.0.1:9"
    for name in ("HTTP_PROXY", "http_proxy", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "TABLE_NAME"):
        monkeypatch.setenv(name, elsewhere)
    local = run_local()
    incident = report(local.client)
    assert every_incident(local.client) == [incident]


def test_a_full_disk_refuses_writes_and_serves_reads(run_local: RunLocal) -> None:
    local = run_local()
    kept = [report(local.client, "x" * 1000) for _ in range(3)]
    size = (local.data / "incidents.sqlite-wal").stat().st_size
    # From here on, no file of the process can grow: the write-ahead log has no room for another incident.
    resource.prlimit(local.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for method, path in [("POST", "/incidents"), ("PATCH", f"/incidents/{kept[0]['id']}")]:
        body = {"status": "closed"} if method == "PATCH" else {"description": "x", "source": "operator"}
        assert local.client.request(method, path, json=body).status_code == 503
    assert every_incident(local.client) == kept[::-1]
    resource.prlimit(local.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    kept.append(report(local.client))
    local.stop(signal.SIGKILL)
    with no_file_longer_than(1):
        local = run_local()
    assert every_incident(local.client) == kept[::-1]
    assert report_once(local.client).status_code == 503
    local.stop(signal.SIGTERM)
    assert every_incident(run_local().client) == kept[::-1]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The programs that are started meanwhile can make no file longer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# ---- what earlier releases have kept


Attributes = dict[str, dict[str, object]]


def old_item(number: int, status: str = "open", version: int = 1) -> Attributes:
    """An incident as earlier releases stored it, its fields beside the index's keys."""
    name, time = f"6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e3{number}", f"2025-11-08T10:00:00.00{number}Z"
    fields = {"id": name, "description": f"Самокат {number}", "source": "partner", "status": status}
    fields |= {"created_at": time, "updated_at": time, "status_shard": f"{status}#0", "position": f"{time}#{name}"}
    return {**{name: {"S": value} for name, value in fields.items()}, "version": {"N": str(version)}}


def write_old(folder: Path, *lines: object, end: str = "") -> Path:
    folder.mkdir()
    (folder / OLD).write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder / OLD


def test_the_journal_of_an_earlier_release_is_taken_over(run_local: RunLocal, tmp_path: Path) -> None:
    entries = [
        {"M": {"status": {"S": status}, "at": {"S": "2025-11-08T10:00:00.002Z"}}} for status in ("open", "closed")
    ]
    closed = {**old_item(2, "closed", version=2), "history": {"L": entries}}
    gone = {"id": old_item(3)["id"]}
    episode = {"id": {"S": "alert#1"}, "episode": {"M": {"starts": {"S": "x"}}}}
    journal = write_old(
        tmp_path / "data", old_item(1), old_item(2), old_item(3), episode, closed, gone, end='{"id": {"S'
    )
    journal.chmod(0o600)
    written = journal.read_bytes()

    local = run_local()
    assert [line.split(" ", 1)[1] for line in local.start_up] == [
        f"The last line of {journal} is incomplete, and left out: its write was interrupted.\n",
        f"{journal} has been taken over into a database. It is kept, and not read again.\n",
    ]
    second, first = every_incident(local.client)
    assert first == {name: value["S"] for name, value in old_item(1).items() if "S" in value and name in first} | {
        "version": 1
    }
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
    """Run the program to its end, which it has to come to by itself; return the only line that it prints, and on stderr."""
    command = [sys.executable, "-m", "infra.local", "--port", "0", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1), ended.stderr
    return ended.stderr


def test_a_data_folder_that_cannot_be_used_is_told(run_local: RunLocal, tmp_path: Path) -> None:
    assert start("--data", "").startswith("The data folder needs a name")
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    assert start("--data", str(folder)) == f"The data folder {folder} cannot be written: Not a directory.\n"
    local = run_local()
    assert start("--data", str(local.data)) == f"The data folder {local.data} is in use by another run.\n"


def test_a_damaged_database_is_told_and_left_alone(run_local: RunLocal) -> None:
    local = run_local()
    for _ in range(20):
        report(local.client, "x" * 1000)
    local.stop(signal.SIGTERM)
    path = local.data / "incidents.sqlite"
    whole = path.read_bytes()
    for damaged in (b"not a database" * 100, whole[: len(whole) // 2], whole[:8192] + bytes(4096) + whole[12288:]):
        path.write_bytes(damaged)
        told = start("--data", str(local.data))
        assert told.startswith(f"The database {path} ")
        assert told.endswith(" Restore it from a copy.\n")
        assert path.read_bytes() == damaged
    path.write_bytes(whole)
    assert len(every_incident(run_local().client)) == 20


def test_an_unreadable_journal_is_reported_at_every_start(tmp_path: Path) -> None:
    journal = write_old(tmp_path / "data", old_item(1), "not an incident")
    for _ in range(2):
        told = start("--data", str(tmp_path / "data"))
        assert told.startswith(f"Line 2 of {journal} is not an incident. Restore the file from a copy, or delete this")


def test_a_busy_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert start("--port", str(port), "--data", str(tmp_path)).startswith(f"Port {port} cannot be used")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("StatusShards", "The parameter StatusShards cannot be ''. It is a number.\n"),
        ("BudgetUSD=5", "BudgetUSD needs AlarmEmail.\n"),
        ("LogDays='3", "The parameters cannot be read (No closing quotation): LogDays='3\n"),
    ],
)
def test_a_parameter_that_the_stack_refuses_is_told(tmp_path: Path, parameters: str, message: str) -> None:
    assert start("--data", str(tmp_path), "--parameters", parameters).startswith(message)


# ---- the log


def test_every_request_is_logged_without_its_body(run_local: RunLocal) -> None:
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


# ---- make sam-local


def executable(path: Path, text: str) -> None:
    """A program of this text."""
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_sam_cli_ignores_the_shells_aws_settings(tmp_path: Path, how: int) -> None:
    executable(tmp_path / "docker", """#!/bin/sh\necho '[{"Gateway": "127.0.0.1"}]'\n""")
    # A SAM CLI that builds at once, says what it was started with, and serves until it is told to end.
    executable(
        tmp_path / "sam",
        '#!/bin/sh\n[ "$1" = build ] && exit\n'
        'echo "no_proxy=$no_proxy NO_PROXY=$NO_PROXY profile=$AWS_PROFILE table=$TABLE_NAME"\necho "$@"\nexec sleep 60\n',
    )
    set_elsewhere = {"AWS_PROFILE": "nope", "HTTP_PROXY": "http://127.0.0.1:9", "TABLE_NAME": "Another"}
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= set_elsewhere | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NO_PROXY": "example.com"}
    command = [sys.executable, "-u", "-m", "infra.local.sam", "--database-port", "0", "--data", str(tmp_path / "data")]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("DynamoDB answers on http://127.0.0.1:")
        exempt = "example.com,localhost,127.0.0.1"
        assert process.stdout.readline() == f"no_proxy={exempt} NO_PROXY={exempt} profile= table=\n"
        assert process.stdout.readline().startswith("local start-api --port 8000 --parameter-overrides Architecture=")
        process.send_signal(how)
        assert process.wait(timeout=30) == 0
