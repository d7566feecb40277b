"""`make import`, `make export` and `make erase`, on local data and on a table. tests/e2e runs them against a stack."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest import mock

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from incident import Incident, NewIncident
from infra import transfer
from infra.stack import CommandError
from tests.conftest import CI, LocalRun
from tests.steps import overwrite, report

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

HEADER = "id,description,source,status,created_at\n"
ROW = "1,Самокат #4567 не отвечает,monitoring,open,2025-11-08 10:00:00.123+00\n"
ID_OF_1 = "4fac0aa9-cf2d-5df5-92d9-a7c2a656af29"
"""The id of the old service's number 1, which must never change: other systems may store it."""
Run = Callable[..., LocalRun]


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit status of a command and its standard output and error; its standard input is empty."""
    output, error = StringIO(), StringIO()
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["transfer", *arguments]),
        mock.patch.object(sys, "stdin", StringIO()),
        redirect_stdout(output),
        redirect_stderr(error),
        pytest.raises(SystemExit) as ended,
    ):
        transfer.main()
    if isinstance(ended.value.code, str):  # which Python prints
        return 1, output.getvalue(), f"{error.getvalue()}{ended.value.code}\n"
    return int(ended.value.code or 0), output.getvalue(), error.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def import_file(data: Path, content: str, *options: str) -> tuple[int, str, str]:
    file = data.parent / "incidents"
    file.write_bytes(content.encode())
    return run("import", "--file", str(file), "--data", str(data), *options)


def exported(data: Path, name: str = "out.jsonl", *options: str) -> str:
    file = data.parent / name
    status, _, error = run("export", "--file", str(file), "--data", str(data), *options)
    assert (status, error) == (0, "")
    return file.read_bytes().decode()


def incidents(data: Path, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in exported(data, "out.jsonl", *options).splitlines()]


# ---- import


@pytest.mark.parametrize(
    "content",
    [
        HEADER + ROW,
        "\ufeffcreated_at,status,source,more,id,description\r\n"
        "2025-11-08T13:00:00.123456+03:00,open,monitoring,x,1,  Самокат #4567 не отвечает \r\n",
        HEADER + "1,Самокат #4567 не отвечает,monitoring,open,2025-11-08 10:00:00.123\n",
        '{"description":"Самокат #4567 не отвечает","source":"monitoring","id":1,"status":"open",'
        '"created_at":"2025-11-08T10:00:00.123Z"}\n\n',
        '[{"description":"Самокат #4567 не отвечает","source":"monitoring","id":1,"status":"open",'
        '"created_at":"2025-11-08T10:00:00.123"}]',
        HEADER + ROW.replace("monitoring", "web shop").replace("open", "in line"),
    ],
    ids=["psql", "other columns", "no offset", "JSON Lines", "the old API's list", "mapped words"],
)
def test_data_of_the_old_service_is_imported_once(data: Path, content: str) -> None:
    mapping = ("--map", "source.web shop=monitoring status.in line=open")
    status, output, error = import_file(data, content, *mapping)
    assert (status, output.splitlines()[0], error) == (0, "1 imported, 0 already there, 0 left out.", "")
    assert import_file(data, content, *mapping)[1].startswith("0 imported, 1 already there, 0 left out.")
    time = "2025-11-08T10:00:00.123Z"
    (incident,) = incidents(data)
    assert incident == incident | {
        "id": ID_OF_1,
        "description": "Самокат #4567 не отвечает",
        "source": "monitoring",
        "status": "open",
        "created_at": time,
        "updated_at": time,
        "version": 1,
        "history": [{"version": 1, "status": "open", "at": time, "by": None, "comment": None}],
    }
    assert (data.parent / "incidents.ids.csv").read_text().split() == ["old_id,id", f"1,{ID_OF_1}"]


def test_every_error_of_every_bad_row_is_named(data: Path) -> None:
    rows = (
        ROW,
        '2,"two\nlines",web,new,2025-11-08 10:00:00\n',
        ",\u200b,operator,open,yesterday\n",
        "3,good,operator,closed,2025-11-08 10:00:00\n",
        "1,another,operator,closed,2025-11-08 10:00:00\n",
    )
    status, output, error = import_file(data, HEADER + "".join(rows))
    assert (status, output.splitlines()[0]) == (1, "2 imported, 0 already there, 3 left out.")
    line_3, line_5, line_7 = error.splitlines()
    assert line_3.startswith("line 3: source: Input should be 'operator', ")
    assert ", not 'web' (MAP=" in line_3
    assert "; status: Input should be" in line_3
    assert line_5 == (
        "line 5: id is missing; description: String should have at least 1 visible character; "
        "created_at is not a time: 'yesterday'"
    )
    assert line_7 == f"line 7: another incident, or another state of it, is stored as {ID_OF_1}"
    assert {each["description"] for each in incidents(data)} == {"Самокат #4567 не отвечает", "good"}


HISTORY = [{"version": 1, "status": "open", "at": "2025-11-08T10:00:00.000Z", "by": None, "comment": None}]
EXPORTED = {"version": 1, "updated_at": "2025-11-08T10:00:00.000Z", "history": HISTORY}
COMMENTED = [HISTORY[0] | {"comment": "done"}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"created_at": 0}, "created_at is not a time: 0"),
        ({"created_at": "1731061210123"}, "created_at is not a time: '1731061210123'"),
        ({"created_at": "2025-W45"}, "created_at is not a time: '2025-W45'"),
        ({"id": "\ud83d"}, "id cannot be '\\ud83d'"),
        ({"id": "  "}, "id cannot be ''"),
        ({"source": "\ud83d"}, "source: Input should be"),
        # Damaged exports.
        (EXPORTED | {"version": 7}, "the history does not lead to"),
        (EXPORTED | {"version": -1, "history": [HISTORY[0] | {"version": -1}]}, "the history does not lead to"),
        (EXPORTED | {"version": 3, "history": [*HISTORY, HISTORY[0] | {"version": 3}]}, "the history does not lead to"),
        (EXPORTED | {"history": []}, "the history does not lead to"),
        (EXPORTED | {"updated_at": 5}, "updated_at or a time of the history is not a time"),
        (EXPORTED | {"history": [HISTORY[0] | {"at": "soon"}]}, "updated_at or a time of the history is not a time"),
        (EXPORTED | {"history": [HISTORY[0] | {"comment": "\0"}]}, "comment: "),
        (EXPORTED | {"history": [{"version": 1}]}, "status: "),
        # The incident is already there in another state.
        ({"id": 2, "status": "closed"}, "another incident, or another state of it, is stored as"),
        ({"id": 2, "created_at": "2025-12-24"}, "another incident, or another state of it, is stored as"),
        (EXPORTED | {"id": 2, "history": COMMENTED}, "another incident, or another state of it, is stored as"),
    ],
)
def test_an_unclear_row_is_left_out(data: Path, fields: dict[str, object], message: str) -> None:
    good = {"id": 2, "description": "Brake fails", "source": "partner", "status": "open", "created_at": "2025-11-08"}
    rows = [good, good | {"id": 1} | fields]
    status, output, error = import_file(data, "\n".join(map(json.dumps, rows)))
    assert (status, output.splitlines()[0]) == (1, "1 imported, 0 already there, 1 left out.")
    assert error.startswith(f"line 2: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + ROW.replace("\n", ",more\n"), "more cells than the header"),
        ("id," + HEADER + "7," + ROW, "has the column id more than once"),
        ("description\nx\n", "has no column id, source, status, created_at"),
        ("[" * 100_000, "is not a JSON array"),
    ],
    ids=["cells beyond the header", "repeated column", "missing columns", "endless JSON"],
)
def test_a_malformed_file_is_refused(data: Path, content: str, message: str) -> None:
    status, _, error = import_file(data, content)
    assert (status, error.count("\n")) == (1, 1)
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "--file", "missing.csv"], "No such file"),
        (["import"], "Which file?"),
        (["import", "--file", "LICENSE", "--map", "web=partner"], "MAP cannot be read"),
        (["export", "--file", "x.txt"], "FORMAT must be csv or jsonl."),
        (["export", "--file", "x.csv", "--data", "missing"], "There are no incidents in the folder missing."),
        (["export", "--file", "x.csv", "--since", "yesterday"], "not a time of RFC 3339"),
        (["export", "--file", "x.csv", "--status", "new"], "'new' is not a valid Status"),
        (["erase"], "Which incident?"),
        (["erase", "--id", "1"], "There is no incident 1."),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(data: Path, arguments: list[str], message: str) -> None:
    import_file(data, HEADER + ROW)
    options = [] if "--data" in arguments else ["--data", str(data)]
    status, output, error = run(*arguments, *options)
    assert (status, output, error.count("\n")) == (1, "", 1)
    assert message in error
    assert not list(Path().glob("*.ids.csv")), "a file that cannot be imported has no new ids"


def test_a_local_run_locks_its_data(run_local: Run) -> None:
    running = run_local()
    assert "is in use by another run" in run("export", "--file", "x.csv", "--data", str(running.data))[2]


# ---- export


@pytest.fixture
def changed(run_local: Run) -> Path:
    """The data folder of a local run with changed incidents and an alert."""
    running = run_local("--parameters", "Alerts=enabled")
    api = running.client
    for number in range(3):
        incident_id = report(api, f'=1+{number}\n"Касса", 🛴 \u2028')["id"]
        api.patch(f"/incidents/{incident_id}", json={"status": "resolved", "comment": '=cmd "x", 🛴'})
        api.patch(f"/incidents/{incident_id}", json={"comment": "Once more"})
    api.post("/alerts", json={"alerts": [{"status": "firing", "fingerprint": "1", "startsAt": "2026-11-24T02:17:50Z"}]})
    running.stop(signal.SIGTERM)
    return running.data


def test_an_export_can_be_imported_and_changed_again(changed: Path, tmp_path: Path, run_local: Run) -> None:
    content = exported(changed)
    lines = [json.loads(line) for line in content.splitlines()]
    assert [each["created_at"] for each in lines] == sorted(each["created_at"] for each in lines)
    assert [entry["comment"] for entry in lines[0]["history"]] == [None, '=cmd "x", 🛴', "Once more"]

    changed.rename(tmp_path / "old")
    assert import_file(changed, content)[1].startswith("4 imported, 0 already there, 0 left out.")
    assert exported(changed) == content

    api, path = run_local().client, f"/incidents/{lines[0]['id']}"
    assert api.patch(path, json={"comment": "Once more"}).json()["version"] == 3
    assert api.patch(path, json={"status": "open"}).json()["version"] == 4
    assert len(api.get(f"{path}/history").json()) == 4


def test_a_spreadsheet_gets_no_formula(changed: Path) -> None:
    content = exported(changed, "out.csv")
    assert content.startswith(f"\ufeff{','.join(Incident.model_fields)},history\r\n")
    rows = list(csv.DictReader(content.removeprefix("\ufeff").splitlines(keepends=True)))
    assert {row["description"].split("+")[0] for row in rows[:3]} == {"'=1"}
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())
    assert rows[0]["history"].split("\n")[1].endswith('resolved =cmd "x", 🛴')


@pytest.mark.parametrize(
    ("options", "days"),
    [
        (["--since", "2025-11-02T00:00:00Z"], ["2", "3"]),
        (["--until", "2025-11-02T01:00:00+01:00"], ["1"]),
        (["--status", "open,resolved"], ["1", "3"]),
    ],
)
def test_an_export_can_be_filtered(data: Path, options: list[str], days: list[str]) -> None:
    rows = [f"{day},x,partner,{status},2025-11-0{day}\n" for day, status in enumerate(("open", "closed", "open"), 1)]
    import_file(data, HEADER + "".join(rows))
    assert [str(each["created_at"])[9] for each in incidents(data, *options)] == days


# ---- erase


def test_erasing_overwrites_only_what_people_wrote(data: Path) -> None:
    created, updated = "2025-11-08T10:00:00.123Z", "2025-11-08T11:00:00.000Z"
    first = {"version": 1, "status": "open", "at": created, "by": "telegram:22 Boris", "comment": None}
    second = {"version": 2, "status": "resolved", "at": updated, "by": "bot", "comment": "Anna again"}
    incident_id = "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"
    line: dict[str, object] = {
        "id": incident_id,
        "description": "Anna Petrova, +7 900 000",
        "source": "operator",
        "status": "resolved",
    }
    line |= {"created_at": created, "updated_at": updated, "version": 2, "history": [first, second]}
    import_file(data, json.dumps(line))
    erase = ["erase", "--data", str(data), "--id", incident_id.upper()]
    status, _, error = run(*erase)
    assert (status, "Nothing was erased." in error) == (1, True)
    (before,) = incidents(data)
    assert before == before | line
    assert run(*erase, "--yes")[0] == 0
    history = [first | {"by": "[erased]"}, second | {"comment": "[erased]"}]
    assert incidents(data) == [before | {"description": "[erased]", "history": history}]
    assert "Anna" not in (data / "incidents.sqlite").read_bytes().decode(errors="replace")
    (data / "incidents.jsonl").touch()  # the journal of an earlier release
    assert "delete it first" in run(*erase, "--yes")[2]


# ---- a table in AWS


@pytest.fixture
def deployed(table: str, monkeypatch: pytest.MonkeyPatch) -> transfer.DeployedTable:  # noqa: ARG001 (it uses this table)
    monkeypatch.setattr(store, "client", store.client)  # which DeployedTable replaces
    return transfer.DeployedTable()


def test_a_table_in_aws_is_imported_exported_and_erased(
    api: httpx.Client, deployed: transfer.DeployedTable, dynamodb: DynamoDBClient, tmp_path: Path
) -> None:
    file, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    file.write_text(HEADER + ROW + "2,bad,web,open,2025-11-08\n" + "3,x,partner,open,2025-11-09\n" * 2)
    assert transfer.import_incidents(file, deployed, "") == 1
    assert transfer.import_incidents(file, deployed, "source.web=partner") == 0
    descriptions = ["bad", "Самокат #4567 не отвечает", "x"]
    assert [each["description"] for each in api.get("/incidents").json()] == descriptions[::-1]
    dynamodb.put_item(TableName=store.TABLE, Item={"id": {"S": "damaged"}, "position": {"S": "x"}})
    dynamodb.put_item(TableName=store.TABLE, Item={"id": {"S": "alert#1"}})
    assert transfer.export_incidents(out, deployed, "jsonl", "", "", "") == 1
    assert [json.loads(line)["description"] for line in out.read_text().splitlines()] == descriptions
    assert transfer.erase(ID_OF_1, deployed, asks=False) == 0
    assert api.get(f"/incidents/{ID_OF_1}").json()["description"] == "[erased]"
    overwrite(dynamodb, ID_OF_1, "incident.status", {"S": "paused"})
    assert transfer.import_incidents(file, deployed, "source.web=partner") == 1
    with pytest.raises(CommandError, match="damaged"):
        transfer.erase(ID_OF_1, deployed, asks=False)


def test_an_incident_changed_meanwhile_is_not_erased(
    api: httpx.Client, deployed: transfer.DeployedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = report(api)["id"]
    read = deployed.get

    def read_then_change(incident_id: str) -> object:
        item = read(incident_id)
        api.patch(f"/incidents/{incident_id}", json={"status": "closed"})
        return item

    monkeypatch.setattr(deployed, "get", read_then_change)
    with pytest.raises(CommandError, match="has just been changed"):
        transfer.erase(incident_id, deployed, asks=False)
    assert api.get(f"/incidents/{incident_id}").json()["status"] == "closed"


# ---- any rows


SOURCES = st.sampled_from(["operator", "monitoring", "partner"])
STATUSES = st.sampled_from(["open", "in_progress", "resolved", "closed"])
TIMES = st.datetimes().map(str)
CELLS = st.text("\"'\n\r,;=@ яЁ🛴\u200b\x00\ud7ffx1", max_size=12) | st.text(max_size=12)
IDS = st.uuids().map(str) | st.integers(1, 10**9).map(str)
TEXTS = st.text("\"'\n,;=@ яЁ🛴\t\\", max_size=20).map(lambda text: f"x{text}")
GOOD = st.tuples(IDS, TEXTS, SOURCES, STATUSES, TIMES)
ANY = st.tuples(IDS | CELLS, TEXTS | CELLS, SOURCES | CELLS, STATUSES | CELLS, TIMES | CELLS).filter(any)


@given(good=st.lists(GOOD, max_size=50), rest=st.lists(ANY, max_size=50))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_row_is_imported_unchanged_or_left_out(
    good: list[tuple[str, ...]], rest: list[tuple[str, ...]], tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    with file.open("w", encoding="utf-8", newline="", errors="surrogatepass") as content:
        csv.writer(content).writerows([transfer.COLUMNS, *good, *rest])
    read = [fields for _, fields in transfer.rows(file)]
    assert [tuple(fields.values()) for fields in read] == [*good, *rest]
    for fields in read[: len(good)]:
        incident = transfer.parse(fields, {}).incident
        time = str(fields["created_at"])
        assert incident.created_at == f"{time.replace(' ', 'T')[:19]}.{time[20:23].ljust(3, '0')}Z"
    for fields in read:
        with suppress(transfer.BadRow):
            row = transfer.parse(fields, {})
            new = NewIncident.model_validate({name: fields[name] for name in ("description", "source", "status")})
            assert NewIncident.model_validate(row.incident.model_dump(include=set(NewIncident.model_fields))) == new
            assert row.incident.created_at[:10] <= "9999-12-31"
            assert store.from_item(store.item(row.incident, row.history)) == (row.incident, row.history)


# ---- the old service's database


POSTGRESQL = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
TABLE = """CREATE TABLE incidents (id serial PRIMARY KEY, description text NOT NULL, status varchar(32) NOT NULL,
source varchar(32) NOT NULL, created_at timestamptz NOT NULL DEFAULT now())"""


@contextmanager
def postgresql() -> Iterator[Callable[[str], str]]:
    """Run a temporary PostgreSQL, in another time zone; yield a function that executes SQL there."""
    assert POSTGRESQL
    # It refuses to run as root.
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, "postgres")

        def call(program: str | Path, *arguments: str) -> str:
            return subprocess.run([*user, program, *arguments], check=True, capture_output=True, text=True).stdout

        def psql(sql: str) -> str:
            return call("psql", "-h", folder, "-d", "postgres", "-c", sql)

        call(POSTGRESQL / "initdb", "-D", f"{folder}/db", "-E", "UTF8", "--locale=C.UTF-8")
        server = [str(POSTGRESQL / "pg_ctl"), "-D", f"{folder}/db", "-w", "-l", f"{folder}/log"]
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c timezone=Europe/Moscow"
        call(*server, "-o", options, "start")
        try:
            yield psql
        finally:
            call(*server, "-m", "immediate", "stop")


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL and not CI, reason="postgresql is not installed")
def test_every_row_of_the_old_database_is_imported(data: Path) -> None:
    descriptions = [f"Точка \"{number}\", 🛴\nне отвечает\t\\N ''" for number in range(300)] + ["\\.", " NULL ", "''"]
    rows = [
        {
            "id": number + 1,
            "description": description,
            "source": ("operator", "web", "partner")[number % 3],
            "status": ("open", "in_progress", "done")[number % 3],
            "created_at": f"2025-11-08T10:{number // 60:02}:{number % 60:02}.123456Z",
        }
        for number, description in enumerate(descriptions)
    ]
    with postgresql() as psql:
        quoted = json.dumps(rows).replace("'", "''")
        psql(f"{TABLE}; INSERT INTO incidents SELECT * FROM json_populate_recordset(NULL::incidents, '{quoted}')")  # noqa: S608
        content = psql("\\copy (SELECT * FROM incidents ORDER BY id) TO STDOUT CSV HEADER")
    status, output, error = import_file(data, content, "--map", "source.web=monitoring status.done=resolved")
    assert (status, error) == (0, "")
    assert output.startswith(f"{len(rows)} imported")
    words = {"web": "monitoring", "done": "resolved"}
    for row, incident in zip(rows, incidents(data), strict=True):
        assert incident["description"] == str(row["description"]).strip()
        assert incident["created_at"] == str(row["created_at"]).replace("456Z", "Z")
        for name in ("source", "status"):
            assert incident[name] == words.get(str(row[name]), row[name])
