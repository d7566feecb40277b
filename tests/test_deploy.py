"""What the Makefile tells the programs that it calls, in a folder whose name has spaces and Cyrillic letters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PRINT_ARGUMENTS = """#!/bin/sh
printf '%s\\n' "$(basename "$(dirname "$(dirname "$0")")")" "RUNTIME=$RUNTIME" "$@" --
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile, with environments whose Python prints its arguments and does nothing else."""
    folder = tmp_path / "папка с пробелом"
    for pins in (
        *ROOT.glob("*/requirements.txt"),
        *ROOT.glob("infra/*/requirements.txt"),
        ROOT / "infra/environments.mk",
    ):
        (folder / pins.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pins, folder / pins.relative_to(ROOT))
    for environment, installed in [(".venv", "for-run"), (".venv-sam", "installed")]:
        python = folder / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PRINT_ARGUMENTS)
        python.chmod(0o755)
        (folder / environment / installed).touch()
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def make(folder: Path, *arguments: str, **environment: str) -> list[list[str]]:
    """Run make; return the environment, the RUNTIME and the arguments of each Python that it calls."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE", "MFLAGS"))}
    ran = subprocess.run(
        ["make", "--silent", *arguments, "SAM=.venv-sam/bin/python -m samcli", "RUNTIME=/opt/python 3.13/python"],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [call.split("\n")[:-1] for call in ran.stdout.split("--\n") if call]


def deploy(folder: Path, *variables: str, **environment: str) -> list[str]:
    """Run `make deploy`; return the arguments of `sam deploy`."""
    doctor, build, deploy = make(folder, "deploy", *variables, **environment)
    assert doctor[2:4] == ["-m", "infra.doctor"]
    for call in (build, deploy):
        assert call[:4] == [".venv-sam", "RUNTIME=/opt/python 3.13/python", "-m", "samcli"]
    assert build[4] == "build"
    return deploy[4:]


def test_the_region_of_the_environment_is_passed_on(folder: Path) -> None:
    region = ["--region", "eu-north-1"]
    assert deploy(folder, AWS_REGION="eu-north-1")[-2:] == region
    assert deploy(folder, AWS_REGION="eu-north-1", AWS_DEFAULT_REGION="us-east-1")[-2:] == region
    # Without it, the SAM CLI takes the region from AWS_DEFAULT_REGION or the profile by itself.
    assert "--region" not in deploy(folder)


def test_parameters_and_the_name_of_the_stack_are_passed_on(folder: Path) -> None:
    assert "--stack-name" not in deploy(folder)
    arguments = deploy(folder, "STACK=incidents-2", "PARAMETERS=Table=restored LogDays=7")
    assert arguments[3:5] == ["--stack-name", "incidents-2"]
    assert arguments[5:] == ["--parameter-overrides", 'Architecture="arm64"', 'Table="restored"', 'LogDays="7"']


def test_a_parameter_may_be_empty_or_have_spaces(folder: Path) -> None:
    # The SAM CLI refuses `MappedApi=`.
    parameters = "PARAMETERS=MappedApi= RemindAt='cron(0 9 ? * MON-FRI *)'"
    assert deploy(folder, parameters)[-2:] == ['MappedApi=""', 'RemindAt="cron(0 9 ? * MON-FRI *)"']


def test_tags_and_consent_are_passed_on(folder: Path) -> None:
    arguments = deploy(folder, "TAGS=team=ops env=prod", "CONFIRM=no")
    assert arguments[3:] == ["--tags", "team=ops env=prod", "--no-confirm-changeset"]


@pytest.mark.parametrize("verb", ["run", "database", "sam-local"])
def test_a_data_folder_may_have_a_space_in_its_name(folder: Path, verb: str) -> None:
    (call,) = make(folder, verb, "DATA=my data")
    assert call[call.index("--data") + 1] == "my data"
    assert verb != "sam-local" or call[call.index("--sam") + 1] == ".venv-sam/bin/python -m samcli"


KEY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.mark.parametrize(
    ("parameters", "environment", "says"),
    [
        ("Nonsense=1", KEY | {"AWS_REGION": "eu-central-1"}, "The template has no parameter Nonsense."),
        ("LogDays", KEY | {"AWS_REGION": "eu-central-1"}, "The parameter LogDays cannot be ''."),
        ("LogDays='7", KEY | {"AWS_REGION": "eu-central-1"}, "The parameters cannot be read (No closing quotation)"),
        ("AlarmEmail=ops", KEY | {"AWS_REGION": "eu-central-1"}, "The parameter AlarmEmail cannot be 'ops'."),
        (
            "Table=new TableStream=arn:aws:dynamodb:eu-central-1:123456789012:table/old/stream/2026",
            KEY | {"AWS_REGION": "eu-central-1"},
            "TableStream is not a stream of new",
        ),
        ("", KEY, "There is no region: set AWS_REGION"),
        ("", {"AWS_REGION": "eu-central-1"}, "There are no AWS credentials: set AWS_PROFILE"),
        ("", {"AWS_REGION": "eu-central-1", "AWS_PROFILE": "lost"}, "The config profile (lost) could not be found"),
        ("AlarmEmail=ops@example.com LogDays=7", KEY | {"AWS_REGION": "eu-central-1"}, ""),
    ],
)
def test_what_stops_a_deployment_is_said_before_the_build(
    parameters: str, environment: dict[str, str], says: str
) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "infra.doctor", "--parameters", parameters],
        cwd=ROOT,
        env=inherited | nowhere | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1 if says else 0, "")
    assert ran.stderr.startswith(says)
    assert ran.stderr.count("\n") == bool(says)
