"""Third-party tools accept infra/openapi.json, and a client generated from it works."""

import os
import sys
from pathlib import Path
from subprocess import run

import httpx
import pytest

from infra import openapi
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def printed(*command: str | Path, **environment: str) -> str:
    """Run Python with these arguments, which must succeed; return its stdout and stderr."""
    ran = run([sys.executable, *command], capture_output=True, text=True, env=os.environ | environment, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_contract_is_valid() -> None:
    assert printed("-m", "openapi_spec_validator", openapi.PATH) == f"{openapi.PATH}: OK\n"


def test_a_generated_client_works(api: httpx.Client, tmp_path: Path) -> None:
    client = tmp_path / "client"
    # The generator formats the client with ruff.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    generate = ("-m", "openapi_python_client", "generate", "--fail-on-warning")
    assert "arning" not in printed(*generate, "--path", openapi.PATH, "--output-path", client, PATH=path)
    printed(ROOT / "tests/clients/generated.py", str(api.base_url), PYTHONPATH=str(client))
