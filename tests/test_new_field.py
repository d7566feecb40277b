"""A new field of an incident takes one line in each model."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, LocalRun
from tests.steps import assert_problem

NEW = {"description": "The point does not answer", "source": "operator"}


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalRun]:
    """The local run of a copy of the project whose incidents have a field for the reporter."""
    for name in ("functions", "infra"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "template.yaml", tmp_path)
    models = tmp_path / "functions/incident.py"
    field = "    source: Source\n"
    models.write_text(models.read_text().replace(field, f"{field}    reporter: str | None = None\n"))
    local = LocalRun(tmp_path / "data", root=tmp_path)
    yield local
    local.stop(9)


def test_a_new_field_is_stored_listed_and_compared(local: LocalRun) -> None:
    new, key = NEW | {"reporter": "Анна"}, {"Idempotency-Key": "1"}
    created = local.client.post("/incidents", json=new, headers=key)
    assert created.json()["reporter"] == "Анна"
    path = created.headers["Location"]
    assert local.client.get(path).json() == created.json()
    assert local.client.get("/incidents").json() == [created.json()]
    changed = local.client.patch(path, json={"status": "closed"}).json()
    assert changed["reporter"] == "Анна"
    assert local.client.post("/incidents", json=new, headers=key).json() == changed
    assert_problem(local.client.post("/incidents", json=NEW | {"reporter": "Пётр"}, headers=key), 422)
    without = local.client.post("/incidents", json=NEW).json()
    assert without["reporter"] is None
    assert local.client.get("/incidents?status=open").json() == [without]
