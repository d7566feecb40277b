"""`make deploy`: what it tells the SAM CLI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def sam(tmp_path: Path) -> Path:
    """A SAM CLI that prints its arguments and does nothing else."""
    path = tmp_path / "sam"
    path.write_text('#!/bin/sh\necho "sam $*"\n')
    path.chmod(0o755)
    return path


def deploy(sam: Path, *variables: str, **environment: str) -> str:
    """Run `make deploy` in this environment; return the command line of `sam deploy`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "MFLAGS"))}
    ran = subprocess.run(
        ["make", "--silent", "deploy", f"SAM={sam}", f"RUNTIME={sys.executable}", *variables],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (command,) = (line for line in ran.stdout.splitlines() if line.startswith("sam deploy"))
    return command


def test_the_region_of_the_environment_is_passed_on(sam: Path) -> None:
    assert "--region eu-north-1" in deploy(sam, AWS_REGION="eu-north-1")
    assert "--region eu-north-1" in deploy(sam, AWS_REGION="eu-north-1", AWS_DEFAULT_REGION="us-east-1")
    # Without it, the SAM CLI takes the region from AWS_DEFAULT_REGION or the profile by itself.
    assert "--region" not in deploy(sam)


def test_parameters_and_the_name_of_the_stack_are_passed_on(sam: Path) -> None:
    assert "--stack-name" not in deploy(sam)
    command = deploy(sam, "STACK=incidents-2", "PARAMETERS=Table=restored LogDays=7")
    assert "--stack-name incidents-2" in command
    assert command.endswith("--parameter-overrides Architecture=arm64 Table=restored LogDays=7")
