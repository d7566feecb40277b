"""What each function's package has in it, and what importing the function from there loads.

How long a cold start takes is measured by `make bench`; here is what can be said exactly.
"""

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
from tests.conftest import EVERYTHING, ROOT, TEMPLATE

HANDLERS = {
    name: function.Handler.removesuffix(".handler") for name, function in TEMPLATE.functions(**EVERYTHING).items()
}
"""The module of each function."""

HEAVY = {
    # Powertools for what the functions do not do
    "aws_lambda_powertools.event_handler.openapi.models",
    "aws_lambda_powertools.event_handler.openapi.swagger_ui",
    "aws_lambda_powertools.utilities.idempotency",
    "aws_lambda_powertools.utilities.parameters",
    "aws_lambda_powertools.utilities.parser",
    "aws_lambda_powertools.utilities.validation",
    "aws_xray_sdk",
    # boto3's resources for DynamoDB, which a client does not need
    "boto3.dynamodb",
    # pydantic beyond models and their validation
    "pydantic.networks",
    "pydantic.v1",
    # the standard library's larger parts
    "ctypes",
    "sqlite3",
    "unittest",
    "xml.dom",
    # what is installed for the tests and for the types alone
    "requests",
    "types_boto3_dynamodb",
}


class Imported(NamedTuple):
    """What importing a function has done: the modules loaded, the garbage collections, whether there will be more."""

    modules: list[str]
    collections: int
    enabled: bool


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions' packages, as functions/Makefile builds them."""
    folder = tmp_path_factory.mktemp("packages")
    # Byte code is this Python's, which the Makefile would refuse if it is not Lambda's.
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
    """Import a function from its package, in a process of its own."""
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


@pytest.mark.parametrize(("function", "module"), HANDLERS.items())
def test_a_functions_package_is_the_core_and_its_own_room(packages: Path, function: str, module: str) -> None:
    package, source = packages / function, ROOT / "functions"
    packaged = {path.relative_to(package) for path in package.rglob("*.py")}
    rooms = {Path(), Path(*module.split(".")[:-1])}
    assert packaged == {path.relative_to(source) for room in rooms for path in (source / room).glob("*.py")}
    assert len(list(package.rglob("*.pyc"))) == len(packaged)
    assert module in importing(package, module).modules


@pytest.mark.parametrize(("function", "module"), HANDLERS.items())
def test_importing_a_function_loads_nothing_heavy(packages: Path, function: str, module: str) -> None:
    assert not HEAVY.intersection(importing(packages / function, module).modules)


@pytest.mark.parametrize(("function", "module"), HANDLERS.items())
def test_importing_a_function_loads_no_other(packages: Path, function: str, module: str) -> None:
    assert set(HANDLERS.values()).intersection(importing(packages / function, module).modules) == {module}


def test_importing_the_authorizer_loads_botocore_alone(packages: Path) -> None:
    loaded = importing(packages / "AuthorizeFunction", "authorize").modules
    assert not {"aws_lambda_powertools", "botocore", "pydantic", "urllib3"}.intersection(loaded)


@pytest.mark.parametrize(("function", "module"), HANDLERS.items())
def test_the_garbage_collector_runs_once_a_function_is_imported(packages: Path, function: str, module: str) -> None:
    imported = importing(packages / function, module)
    assert imported.enabled
    assert imported.collections < 10  # after the imports; without the module it is more than 100


def test_the_layers_model_has_every_permitted_operation() -> None:
    template = (ROOT / "template.yaml").read_text()
    for service, operations in botocore_data.OPERATIONS.items():
        allowed = set(re.findall(rf"\b{service}:(\w+)", template))
        # IAM has the actions of DynamoDB Streams, which Lambda takes for a function, under the same prefix, and none for
        # transactions, which need those of their parts.
        known = set(botocore.session.get_session().get_service_model(service).operation_names)
        assert allowed & known == set(operations) - {"TransactWriteItems"}
