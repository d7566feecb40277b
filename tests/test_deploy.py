"""What the Makefile passes to the programs that it calls, in a folder whose name has spaces and Cyrillic letters."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

PRINT_ARGUMENTS = """#!/bin/sh
printf '%s\\n' "$(basename "$(dirname "$(dirname "$0")")")" "RUNTIME=$RUNTIME" "$@" --
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile, with environments whose Python only prints its arguments."""
    folder = tmp_path / "папка с пробелом"
    pins = [*ROOT.glob("*/requirements.txt"), *ROOT.glob("infra/*/requirements.txt")]
    for file in (ROOT / "Makefile", ROOT / "infra/environments.mk", *pins):
        (folder / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.relative_to(ROOT))
    for environment, installed in [(".venv", "for-run"), (".venv-sam", "installed")]:
        python = folder / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PRINT_ARGUMENTS)
        python.chmod(0o755)
        (folder / environment / installed).touch()
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


@pytest.mark.parametrize(
    ("variables", "environment", "arguments"),
    [
        # The SAM CLI reads AWS_DEFAULT_REGION and the profile itself.
        ([], {}, []),
        ([], {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "us-east-1"}, ["--region", "eu-north-1"]),
        (["STACK=incidents-2"], {}, ["--stack-name", "incidents-2"]),
        (["TAGS=team=ops env=prod", "CONFIRM=no"], {}, ["--tags", "team=ops env=prod", "--no-confirm-changeset"]),
        # The SAM CLI refuses `MappedApi=` without quotation marks.
        (
            ["PARAMETERS=Table=restored MappedApi= RemindAt='cron(0 9 ? * MON-FRI *)'"],
            {},
            [
                "--parameter-overrides",
                'Architecture="arm64"',
                'Table="restored"',
                'MappedApi=""',
                'RemindAt="cron(0 9 ? * MON-FRI *)"',
            ],
        ),
    ],
    ids=["nothing", "region", "stack", "tags and consent", "parameters"],
)
def test_make_deploy_passes_its_variables_to_the_sam_cli(
    folder: Path, variables: list[str], environment: dict[str, str], arguments: list[str]
) -> None:
    doctor, build, deploy = make(folder, "deploy", *variables, **environment)
    assert doctor[2:4] == ["-m", "infra.doctor"]
    for call, verb in ((build, "build"), (deploy, "deploy")):
        assert call[:5] == [".venv-sam", "RUNTIME=/opt/python 3.13/python", "-m", "samcli", verb]
    assert deploy[5:] == ["--config-env", "prod", *arguments]


@pytest.mark.parametrize("verb", ["run", "database", "sam-local"])
def test_a_data_folder_may_have_a_space_in_its_name(folder: Path, verb: str) -> None:
    (call,) = make(folder, verb, "DATA=my data")
    assert call[call.index("--data") + 1] == "my data"
    assert verb != "sam-local" or call[call.index("--sam") + 1] == ".venv-sam/bin/python -m samcli"


def test_an_argument_may_have_any_character(folder: Path) -> None:
    name = """x"; echo 'pwned"""
    (call,) = make(folder, "key", f"NAME={name}", "ROLE=reporter")
    options = ["--name", name, "--role", "reporter", "--source", "", "--days", ""]
    assert call[2:] == ["-m", "infra.keys", "--stack", "incident-api", "create", *options]
