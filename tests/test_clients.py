"""Other people's tools read infra/openapi.json, and a client generated from it works. `make clients` installs the tools."""

import os
import sys
from pathlib import Path
from subprocess import run

import httpx
import pytest

from infra import openapi
from tests.conftest import ROOT

TOOLS = ROOT / ".venv-clients" / "bin"

pytestmark = pytest.mark.skipif(not TOOLS.exists(), reason="the tools are not installed (make clients)")


def printed(*command: str | Path, **environment: str) -> str:
    """What the command prints, both ways. It has to succeed."""
    ran = run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_a_validator_finds_the_document_valid() -> None:
    assert printed(TOOLS / "openapi-spec-validator", openapi.PATH) == f"{openapi.PATH}: OK\n"


def test_a_generated_client_creates_pages_through_and_updates_incidents(api: httpx.Client, tmp_path: Path) -> None:
    client = tmp_path / "client"
    # The generator lays its code out with ruff.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    generate = (TOOLS / "openapi-python-client", "generate", "--fail-on-warning")
    assert "arning" not in printed(*generate, "--path", openapi.PATH, "--output-path", client, PATH=path)
    script = ROOT / "tests" / "clients" / "generated.py"
    said = printed(TOOLS / "python", script, str(api.base_url), PYTHONPATH=str(client))
    assert said == "5 created, 3 pages read, 1 updated\n"
