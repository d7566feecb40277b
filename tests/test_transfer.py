"""`make import`, `make export` and `make erase`, on the local run's data and on a table. tests/e2e runs them against a stack."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast
from unittest import mock

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from incident import NewIncident
from infra import transfer
from infra.stack import CommandError
from tests.conftest import CI, LocalRun
from tests.steps import report

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

HEADER = "id,description,source,status,created_at\n"
ROW = "1,Самокат #4567 не отвечает,monitoring,open,2025-11-08 10:00:00.123+00\n"
ID_OF_1 = "4fac0aa9-cf2d-5df5-92d9-a7c2a656af29"
"""Other systems may have noted it: the number 1 of the old service has this id for good."""
Run = Callable[..., LocalRun]


def run(*arguments: str) -> tuple[int, str, str]:
    """The exit status of a command, and what it prints to the standard output and error; nobody answers it."""
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
        HEADER.replace(",", ",") + ROW.replace("monitoring", "web").replace("open", "new"),
    ],
    ids=["psql", "any order", "no offset", "JSON Lines", "the old API's list", "other words"],
)
def test_what_the_old_service_prints_is_taken(data: Path, content: str) -> None:
    status, output, error = import_file(data, content, "--map", "source.web=monitoring status.new=open")
    assert (status, output.splitlines()[0], error) == (0, "1 imported, 0 already there, 0 left out.", "")
    time = "2025-11-08T10:00:00.123Z"
    assert incidents(data) == [
        {
            "id": ID_OF_1,
            "description": "Самокат #4567 не отвечает",
            "source": "monitoring",
            "status": "open",
            "created_at": time,
            "updated_at": time,
            "version": 1,
            "history": [{"version": 1, "status": "open", "at": time, "by": None, "comment": None}],
        }
    ]
    assert (data.parent / "incidents.ids.csv").read_text().split() == ["old_id,id", f"1,{ID_OF_1}"]


def test_a_second_run_imports_nothing_and_says_so(data: Path) -> None:
    first = import_file(data, HEADER + ROW)
    before = exported(data)
    assert import_file(data, HEADER + ROW)[:2] == (0, first[1].replace("1 imported, 0", "0 imported, 1"))
    assert exported(data) == before


def test_every_bad_row_is_named_with_all_its_faults(data: Path) -> None:
    rows = (
        ROW,
        '2,"two\nlines",web,new,2025-11-08 10:00:00\n',
        ",\u200b,operator,open,yesterday\n",
        "3,good,operator,closed,2025-11-08 10:00:00\n",
        "1,another,operator,closed,2025-11-08 10:00:00\n",
    )
    status, output, error = import_file(data, HEADER + "".join(rows))
    assert (status, output.splitlines()[0]) == (1, "2 imported, 0 already there, 3 left out.")
    two, five, seven = error.splitlines()
    assert two.startswith("line 3: source: Input should be 'operator', 'monitoring' or 'partner', not 'web' (MAP=")
    assert "; status: Input should be" in two
    assert five == (
        "line 5: id is missing; description: String should have at least 1 visible character; "
        "created_at is no time: 'yesterday'"
    )
    assert seven == f"line 7: another incident, or another state of it, is stored as {ID_OF_1}"
    assert {each["description"] for each in incidents(data)} == {"Самокат #4567 не отвечает", "good"}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"created_at": 0}, "created_at is no time: 0"),
        ({"created_at": "1731061210123"}, "created_at is no time: '1731061210123'"),
        ({"created_at": "2025-W45"}, "created_at is no time: '2025-W45'"),
        ({"id": "\ud83d"}, "id cannot be '\\ud83d'"),
        ({"id": "  "}, "id cannot be ''"),
        ({"source": "\ud83d"}, "source: Input should be"),
        ({transfer.EXTRA: ["rider hurt"]}, "it has more cells than the header"),
    ],
)
def test_nothing_is_guessed(data: Path, row: dict[str, object], fault: str) -> None:
    good = {"id": 1, "description": "Brake fails", "source": "partner", "status": "open", "created_at": "2025-11-08"}
    status, output, error = import_file(data, json.dumps(good | row) + "\n" + json.dumps(good | {"id": 2}))
    assert (status, output.splitlines()[0]) == (1, "1 imported, 0 already there, 1 left out.")
    assert error.startswith(f"line 1: {fault}")


def test_cells_beyond_the_header_and_repeated_columns_are_named(data: Path) -> None:
    assert "more cells than the header" in import_file(data, HEADER + ROW.replace("\n", ",more\n"))[2]
    assert "has the column id more than once" in import_file(data, "id," + HEADER + "7," + ROW)[2]
    assert import_file(data, "[" * 100_000)[0] == 1


@pytest.mark.parametrize("column", [3, 4], ids=["status", "created_at"])
def test_another_state_of_what_is_there_is_named(data: Path, column: int) -> None:
    cells = ROW.strip().split(",")
    other = [*cells[:column], ("closed", "2025-12-24")[column - 3], *cells[column + 1 :]]
    status, output, error = import_file(data, HEADER + ROW + ",".join(other) + "\n")
    assert (status, output.splitlines()[0]) == (1, "1 imported, 0 already there, 1 left out.")
    assert error.startswith("line 3: another incident, or another state of it, is stored as")


def test_a_newer_export_of_what_is_there_is_named(data: Path) -> None:
    import_file(data, HEADER + ROW)
    (line,) = incidents(data)
    entry = {"version": 2, "status": "closed", "at": "2025-11-09T10:00:00.000Z", "by": None, "comment": "done"}
    newer = line | {"status": "closed", "version": 2, "updated_at": entry["at"]}
    newer["history"] = [*cast("list[object]", line["history"]), entry]
    assert import_file(data, json.dumps(newer))[0] == 1


def test_a_word_of_the_old_service_may_have_spaces(data: Path) -> None:
    words = "status.in progress=in_progress source.web shop=partner"
    row = ROW.replace("monitoring", "web shop").replace("open", "in progress")
    assert import_file(data, HEADER + row, "--map", words)[0] == 0
    assert (incidents(data)[0]["source"], incidents(data)[0]["status"]) == ("partner", "in_progress")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "--file", "missing.csv"], "No such file"),
        (["import"], "Which file?"),
        (["import", "--file", "LICENSE"], "has no column id, description, source, status, created_at"),
        (["import", "--file", "LICENSE", "--map", "web=partner"], "MAP is not understood"),
        (["export", "--file", "x.txt"], "FORMAT is csv or jsonl."),
        (["export", "--file", "x.csv", "--data", "missing"], "There are no incidents in the folder missing."),
        (["export", "--file", "x.csv", "--since", "yesterday"], "not a time of RFC 3339"),
        (["export", "--file", "x.csv", "--status", "new"], "'new' is not a valid Status"),
        (["erase"], "Which incident?"),
        (["erase", "--id", "1"], "There is no incident 1."),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data: Path, arguments: list[str], says: str) -> None:
    import_file(data, HEADER + ROW)
    options = [] if "--data" in arguments else ["--data", str(data)]
    status, output, error = run(*arguments, *options)
    assert (status, output, error.count("\n")) == (1, "", 1)
    assert says in error
    assert not list(Path().glob("*.ids.csv")), "a file that cannot be imported has no new ids"


def test_a_run_keeps_its_data_for_itself(run_local: Run) -> None:
    running = run_local()
    assert "is in use by another run" in run("export", "--file", "x.csv", "--data", str(running.data))[2]


# ---- export


@pytest.fixture
def changed(run_local: Run) -> Path:
    """The data of a run in which people have worked."""
    running = run_local("--parameters", "Alerts=enabled")
    api = running.client
    for number in range(3):
        incident_id = report(api, f'=1+{number}\n"Касса", 🛴 \u2028')["id"]
        api.patch(f"/incidents/{incident_id}", json={"status": "resolved", "comment": '=cmd "x", 🛴'})
        api.patch(f"/incidents/{incident_id}", json={"comment": "Once more"})
    api.post("/alerts", json={"alerts": [{"status": "firing", "fingerprint": "1", "startsAt": "2026-11-24T02:17:50Z"}]})
    running.stop(signal.SIGTERM)
    return running.data


def test_an_export_comes_back_without_loss(changed: Path, tmp_path: Path) -> None:
    content, copy = exported(changed), tmp_path / "copy" / "data"
    copy.parent.mkdir()
    assert import_file(copy, content)[1].startswith("4 imported, 0 already there, 0 left out.")
    assert exported(copy) == content
    lines = [json.loads(line) for line in content.splitlines()]
    assert [each["created_at"] for each in lines] == sorted(each["created_at"] for each in lines)
    assert [entry["comment"] for entry in lines[0]["history"]] == [None, '=cmd "x", 🛴', "Once more"]


def test_what_came_back_can_be_changed_further(changed: Path, tmp_path: Path, run_local: Run) -> None:
    content = exported(changed)
    (tmp_path / "data").rename(tmp_path / "old")
    import_file(tmp_path / "data", content)
    api = run_local().client
    incident_id = json.loads(content.splitlines()[0])["id"]
    repeated = api.patch(f"/incidents/{incident_id}", json={"comment": "Once more"}).json()
    assert repeated["version"] == 3
    assert api.patch(f"/incidents/{incident_id}", json={"status": "open"}).json()["version"] == 4
    assert len(api.get(f"/incidents/{incident_id}/history").json()) == 4


@pytest.mark.parametrize(
    "damage",
    [{"version": 7}, {"history": []}, {"updated_at": 5}, {"history": [{"version": 1}]}],
    ids=["version", "no history", "no time", "half an entry"],
)
def test_a_damaged_export_is_named(data: Path, damage: dict[str, object]) -> None:
    import_file(data, HEADER + ROW)
    status, _, error = import_file(data, json.dumps(incidents(data)[0] | damage))
    assert (status, error.startswith("line 1: "), error.count("\n")) == (1, True, 1)


def test_a_spreadsheet_gets_no_formula(changed: Path) -> None:
    content = exported(changed, "out.csv")
    assert content.startswith("\ufeffid,description,source,status,created_at,updated_at,version,history\r\n")
    rows = list(csv.DictReader(content.removeprefix("\ufeff").splitlines(keepends=True)))
    assert {row["description"].split("+")[0] for row in rows[:3]} == {"'=1"}
    assert not any(value.startswith(("=", "+", "-", "@")) for row in rows for value in row.values())
    assert rows[0]["history"].split("\n")[1].endswith('resolved =cmd "x", 🛴')


def test_an_export_is_of_a_time_and_of_statuses(data: Path) -> None:
    rows = [f"{day},x,partner,{status},2025-11-0{day}\n" for day, status in enumerate(("open", "closed", "open"), 1)]
    import_file(data, HEADER + "".join(rows))

    def days(*options: str) -> list[str]:
        return [str(each["created_at"])[9] for each in incidents(data, *options)]

    assert days("--since", "2025-11-02T00:00:00Z") == ["2", "3"]
    assert days("--until", "2025-11-02T01:00:00+01:00") == ["1"]
    assert days("--status", "open,resolved") == ["1", "3"]


# ---- erase


def test_what_people_wrote_is_erased_and_nothing_else(data: Path) -> None:
    first = {
        "version": 1,
        "status": "open",
        "at": "2025-11-08T10:00:00.123Z",
        "by": "telegram:22 Boris",
        "comment": None,
    }
    second = {
        "version": 2,
        "status": "resolved",
        "at": "2025-11-08T11:00:00.000Z",
        "by": "bot",
        "comment": "Anna again",
    }
    line = {
        "id": "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38",
        "description": "Anna Petrova, +7 900 000",
        "source": "operator",
        "status": "resolved",
        "created_at": "2025-11-08T10:00:00.123Z",
        "updated_at": "2025-11-08T11:00:00.000Z",
        "version": 2,
        "history": [first, second],
    }
    import_file(data, json.dumps(line))
    status, _, error = run("erase", "--id", str(line["id"]).upper(), "--data", str(data))
    assert (status, "Nothing was erased." in error) == (1, True)
    assert incidents(data) == [line]
    assert run("erase", "--id", str(line["id"]), "--data", str(data), "--yes")[0] == 0
    (erased,) = incidents(data)
    assert not {"Anna", "Boris"} & set(json.dumps(erased).replace(",", " ").split())
    history = [first | {"by": "[erased]"}, second | {"comment": "[erased]"}]
    assert erased == line | {"description": "[erased]", "history": history}
    assert "Anna" not in (data / "incidents.sqlite").read_bytes().decode(errors="replace")
    (data / "incidents.jsonl").touch()  # of an earlier release
    assert "delete it first" in run("erase", "--id", str(line["id"]), "--data", str(data), "--yes")[2]


# ---- a table in AWS


@pytest.fixture
def deployed(table: str) -> transfer.DeployedTable:  # noqa: ARG001 (it asks this table)
    return transfer.DeployedTable()


def test_a_table_in_aws_is_imported_exported_and_erased(
    api: httpx.Client, dynamodb: DynamoDBClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "client", store.client)
    table, file, out = transfer.DeployedTable(), tmp_path / "in.csv", tmp_path / "out.jsonl"
    file.write_text(HEADER + ROW + "2,bad,web,open,2025-11-08\n" + "3,x,partner,open,2025-11-09\n" * 2)
    assert transfer.import_incidents(file, table, "") == 1
    assert transfer.import_incidents(file, table, "source.web=partner") == 0
    assert [each["description"] for each in api.get("/incidents").json()] == ["x", "Самокат #4567 не отвечает", "bad"]
    dynamodb.put_item(TableName=store.TABLE, Item={"id": {"S": "damaged"}, "position": {"S": "x"}})
    dynamodb.put_item(TableName=store.TABLE, Item={"id": {"S": "alert#1"}})
    assert transfer.export_incidents(out, table, "jsonl", "", "", "") == 1
    assert [json.loads(line)["description"] for line in out.read_text().splitlines()] == [
        "bad",
        "Самокат #4567 не отвечает",
        "x",
    ]
    assert transfer.erase(ID_OF_1, table, asks=False) == 0
    assert api.get(f"/incidents/{ID_OF_1}").json()["description"] == "[erased]"


def test_an_incident_that_changes_meanwhile_is_not_erased(
    api: httpx.Client, deployed: transfer.DeployedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = report(api)["id"]
    real = deployed.get

    def get(asked: str) -> object:
        found = real(asked)
        api.patch(f"/incidents/{incident_id}", json={"status": "closed"})
        return found

    monkeypatch.setattr(deployed, "get", get)
    with pytest.raises(CommandError, match="has just been changed"):
        transfer.erase(incident_id, deployed, asks=False)
    assert api.get(f"/incidents/{incident_id}").json()["status"] == "closed"


# ---- any rows

words = st.sampled_from(["operator", "monitoring", "partner", "open", "closed", "web", ""])
cells = st.text("\"'\n\r,;=@ яЁ🛴\u200b\x00\ud7ffx1", max_size=12) | st.text(max_size=12)


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 10**6).map(str) | cells, cells, words, words, st.datetimes().map(str) | cells),
        min_size=1,
        max_size=100,
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_rows_are_imported_as_they_are_or_named(rows: list[tuple[str, ...]], tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    with file.open("w", encoding="utf-8", newline="", errors="surrogatepass") as content:
        csv.writer(content).writerows([transfer.COLUMNS, *rows])
    read = [fields for _, fields in transfer.rows(file)]
    assert [tuple(fields.values()) for fields in read] == [tuple(row) for row in rows if any(row)]
    for fields in read:
        try:
            row = transfer.parse(fields, {})
        except transfer.BadRow:
            continue
        new = NewIncident.model_validate({name: fields[name] for name in ("description", "source", "status")})
        assert row.incident.description == new.description
        assert row.incident.created_at[:10] <= "9999-12-31"
        item = store.item(row.incident, row.history)
        assert store.from_item(item) == (row.incident, row.history)


GOOD = st.tuples(
    st.uuids().map(str) | st.integers(1, 10**9).map(str),
    st.text("\"'\n,;=@ яЁ🛴\t\\", max_size=20).map(lambda text: f"x{text}"),
    st.sampled_from(["operator", "monitoring", "partner"]),
    st.sampled_from(["open", "in_progress", "resolved", "closed"]),
    st.datetimes().map(str),
)


@given(rows=st.lists(GOOD, min_size=1, max_size=100))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_no_good_row_is_left_out(rows: list[tuple[str, ...]], tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    with file.open("w", encoding="utf-8", newline="") as content:
        csv.writer(content).writerows([transfer.COLUMNS, *rows])
    imported = [transfer.parse(fields, {}).incident for _, fields in transfer.rows(file)]
    assert [(each.description, each.source, each.status, each.created_at) for each in imported] == [
        (description.strip(), source, status, f"{time.replace(' ', 'T')[:19]}.{time[20:23].ljust(3, '0')}Z")
        for _, description, source, status, time in rows
    ]


# ---- the old service's database


POSTGRESQL = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
TABLE = """CREATE TABLE incidents (id serial PRIMARY KEY, description text NOT NULL, status varchar(32) NOT NULL,
source varchar(32) NOT NULL, created_at timestamptz NOT NULL DEFAULT now())"""


@contextmanager
def postgresql() -> Iterator[Callable[[str], str]]:
    """A PostgreSQL on a socket of its own, and what runs SQL there; gone in the end."""
    assert POSTGRESQL
    # It refuses to run as root.
    user: list[str | Path] = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, "postgres")
        subprocess.run(
            [*user, POSTGRESQL / "initdb", "-D", f"{folder}/db", "-E", "UTF8", "--locale=C.UTF-8"],
            check=True,
            capture_output=True,
        )
        server = [*user, POSTGRESQL / "pg_ctl", "-D", f"{folder}/db", "-w", "-l", f"{folder}/log"]
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c timezone=Europe/Moscow"
        subprocess.run([*server, "-o", options, "start"], check=True, capture_output=True)

        def psql(sql: str) -> str:
            command = [
                *user,
                "psql",
                "-h",
                folder,
                "-d",
                "postgres",
                "-v",
                "ON_ERROR_STOP=1",
                "-q",
                "-A",
                "-t",
                "-c",
                sql,
            ]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        try:
            yield psql
        finally:
            subprocess.run([*server, "-m", "immediate", "stop"], check=True, capture_output=True)


WORDS = (("operator", "open"), ("web", "in_progress"), ("partner", "done"))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL and not CI, reason="postgresql is not installed")
def test_the_old_services_database_moves_row_by_row(data: Path, tmp_path: Path, run_local: Run) -> None:
    descriptions = [f"Точка \"{number}\", 🛴\nне отвечает\t\\N ''" for number in range(300)] + ["\\.", " NULL ", "''"]
    with postgresql() as psql:
        values = [
            f"({number + 1}, {quoted(description)}, '{WORDS[number % 3][1]}', '{WORDS[number % 3][0]}', "
            f"timestamptz '2025-11-08 10:00:00.123456+00' + interval '{number} s')"
            for number, description in enumerate(descriptions)
        ]
        psql(f"{TABLE}; INSERT INTO incidents VALUES {', '.join(values)}")  # noqa: S608 (they are quoted)
        content = psql("\\copy (SELECT * FROM incidents ORDER BY id) TO STDOUT CSV HEADER")
        times = psql(
            "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM incidents ORDER BY id"
        )
    status, output, error = import_file(data, content, "--map", "source.web=monitoring status.done=resolved")
    assert (status, error) == (0, "")
    assert output.startswith(f"{len(descriptions)} imported")
    ids = [line.split(",")[1] for line in (tmp_path / "incidents.ids.csv").read_text().splitlines()[1:]]
    api = run_local().client
    for number, (incident_id, time) in enumerate(zip(ids, times.split(), strict=True)):
        incident = api.get(f"/incidents/{incident_id}").json()
        source, word = WORDS[number % 3]
        assert incident["description"] == descriptions[number].strip()
        assert incident["created_at"] == time
        assert incident["source"] == source.replace("web", "monitoring")
        assert incident["status"] == word.replace("done", "resolved")
