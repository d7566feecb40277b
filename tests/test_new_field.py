"""A new field of an incident takes a line in each model and nothing in the template: the rest is derived."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, LocalRun
from tests.steps import assert_problem

NEW = {"description": "The point does not answer", "source": "operator", "reporter": "Анна"}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalRun]:
    """The local run of a copy of the project in which a client may name the reporter."""
    for name in ("functions", "infra"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "template.yaml", tmp_path)
    model = (ROOT / "functions/incident.py").read_text()
    assert model.count("    source: Source\n") == 2
    (tmp_path / "functions/incident.py").write_text(
        model.replace("    source: Source\n", "    source: Source\n    reporter: str | None = None\n")
    )
    local = LocalRun(tmp_path / "data", root=tmp_path)
    yield local
    local.stop(9)


def test_a_new_field_is_created_read_listed_and_compared(local: LocalRun) -> None:
    key = {"Idempotency-Key": "1"}
    created = local.client.post("/incidents", json=NEW, headers=key)
    incident = created.json()
    assert incident["reporter"] == "Анна"
    path = created.headers["Location"]
    assert local.client.get(path).json() == incident
    assert local.client.get("/incidents").json() == [incident]
    changed = local.client.patch(path, json={"status": "closed"}).json()
    assert changed["reporter"] == "Анна"
    assert local.client.post("/incidents", json=NEW, headers=key).json() == changed
    assert_problem(local.client.post("/incidents", json=NEW | {"reporter": "Пётр"}, headers=key), 422)


def test_an_incident_without_the_new_field_can_still_be_read(local: LocalRun) -> None:
    new = {name: value for name, value in NEW.items() if name != "reporter"}
    incident = local.client.post("/incidents", json=new).json()
    assert incident["reporter"] is None
    assert local.client.get("/incidents").json() == [incident]
