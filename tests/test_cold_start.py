"""What a cold start has to load. How long it takes is measured by `make bench`; here is what can be said exactly."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import files

import pytest

from tests.conftest import ROOT
from tests.test_consistency import FUNCTIONS

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

LAYER_MB = 17
"""Without byte code, which comes to about half as much again."""


@pytest.mark.parametrize("function", FUNCTIONS.values())
def test_importing_a_function_loads_nothing_heavy(function: str) -> None:
    assert not HEAVY & loaded_by(function)


def test_importing_the_authorizer_loads_botocore_alone() -> None:
    assert not {"aws_lambda_powertools", "boto3", "pydantic"} & loaded_by("authorize")


def loaded_by(function: str) -> set[str]:
    """The modules that importing a function loads."""
    code = f"import json, sys, {function}; print(json.dumps(list(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "functions")}
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], env=environment))
    assert function in loaded
    return set(loaded)


def test_the_layer_is_small() -> None:
    pins = (ROOT / "infra" / "layer" / "requirements.txt").read_text()
    # As infra/layer/Makefile leaves it: of botocore's services DynamoDB alone, of boto3's none, no scripts.
    left_out = re.compile(r"botocore/data/(?!dynamodb/)[^/]+/|boto3/data/|\.\./|pydantic/v1/|.*/swagger_ui/|.*\.pyc$")
    size = sum(
        path.locate().stat().st_size  # type: ignore[attr-defined]  # it is a Path, where the package is unpacked
        for name in re.findall(r"^([\w-]+)==", pins, re.MULTILINE)
        for path in files(name) or ()
        if not left_out.match(str(path))
    )
    assert size < LAYER_MB * 1_000_000
