"""What each function's package contains, and what importing the function loads. `make bench` measures the time."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import botocore.session
import pytest

from infra.layer import botocore_data
from tests.conftest import HANDLERS, ROOT

HEAVY = {
    *(f"aws_lambda_powertools.event_handler.openapi.{name}" for name in ("models", "swagger_ui")),
    *(f"aws_lambda_powertools.utilities.{name}" for name in ("idempotency", "parameters", "parser", "validation")),
    *("aws_xray_sdk", "boto3.dynamodb", "pydantic.networks", "pydantic.v1", "requests", "types_boto3_dynamodb"),
    *("ctypes", "sqlite3", "unittest", "xml.dom"),
}
"""Large modules that the functions do not need."""


class Imported(NamedTuple):
    """The effects of importing a function."""

    modules: list[str]
    collections: int
    """How often the garbage collector ran."""
    enabled: bool
    """Whether the garbage collector will run from now on."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions' packages, as functions/Makefile builds them."""
    folder = tmp_path_factory.mktemp("packages")
    # The Makefile refuses to compile byte code with a Python other than Lambda's.
    runtime = folder / "python"
    runtime.write_text(f'#!/bin/sh\n[ "$1" = -c ] || exec "{sys.executable}" "$@"\n')
    runtime.chmod(0o755)
    for function in HANDLERS:
        (folder / function).mkdir()
        command = ["make", "--silent", f"build-{function}", f"ARTIFACTS_DIR={folder / function}", f"RUNTIME={runtime}"]
        subprocess.run(command, cwd=ROOT / "functions", check=True)
    return folder


@cache
def importing(package: Path, module: str) -> Imported:
    """Import a function from its package, in a new process."""
    code = (
        "import gc, json, sys\n"
        "def collections(): return sum(generation['collections'] for generation in gc.get_stats())\n"
        "before = collections()\n"
        f"import {module}\n"
        "print(json.dumps([list(sys.modules), collections() - before, gc.isenabled()]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(package)}
    output = subprocess.check_output([sys.executable, "-c", code], cwd=package, env=environment)
    return Imported(*json.loads(output))


EACH = pytest.mark.parametrize(("function", "module"), HANDLERS.items())


@EACH
def test_a_package_is_the_core_and_the_functions_own_folder(packages: Path, function: str, module: str) -> None:
    package, source = packages / function, ROOT / "functions"
    packaged = {path.relative_to(package) for path in package.rglob("*.py")}
    folders = {Path(), Path(*module.split(".")[:-1])}
    assert packaged == {path.relative_to(source) for folder in folders for path in (source / folder).glob("*.py")}
    assert len(list(package.rglob("*.pyc"))) == len(packaged)


@EACH
def test_a_function_imports_nothing_heavy_and_no_other_function(packages: Path, function: str, module: str) -> None:
    loaded = set(importing(packages / function, module).modules)
    assert not HEAVY & loaded
    assert set(HANDLERS.values()) & loaded == {module}


def test_the_authorizer_imports_no_large_library(packages: Path) -> None:
    loaded = importing(packages / "AuthorizeFunction", "authorize").modules
    assert not {"aws_lambda_powertools", "botocore", "pydantic", "urllib3"}.intersection(loaded)


@EACH
def test_the_garbage_collector_waits_for_the_imports(packages: Path, function: str, module: str) -> None:
    imported = importing(packages / function, module)
    assert imported.enabled
    assert imported.collections < 10  # more than 100 without cold_start.py


def test_the_layers_model_has_every_permitted_operation() -> None:
    template = (ROOT / "template.yaml").read_text()
    for service, operations in botocore_data.OPERATIONS.items():
        allowed = set(re.findall(rf"\b{service}:(\w+)", template))
        # Lambda's own actions on DynamoDB Streams have the same prefix. Transactions have no action: they need those of their parts.
        known = set(botocore.session.get_session().get_service_model(service).operation_names)
        assert allowed & known == set(operations) - {"TransactWriteItems"}
