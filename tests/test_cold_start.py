"""What a cold start has to load. How long it takes is measured by `make bench`; here is what can be said exactly."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import files
from pathlib import Path
from typing import NamedTuple

import botocore.session
import httpx
import pytest
from botocore.loaders import Loader

import dynamodb
import store
from infra.layer import botocore_data
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


@pytest.mark.parametrize("function", FUNCTIONS.values())
def test_importing_a_function_loads_nothing_of_another(function: str) -> None:
    others = {module: module for module in FUNCTIONS.values()} | {"telegram.messages": "telegram.receive_telegram"}
    assert not {module for module, owner in others.items() if owner != function} & loaded_by(function)


def test_importing_the_authorizer_loads_the_standard_library_alone() -> None:
    assert not {"aws_lambda_powertools", "botocore", "pydantic", "urllib3"} & loaded_by("authorize")


@pytest.mark.parametrize("function", FUNCTIONS.values())
def test_the_garbage_collector_runs_once_a_function_is_imported(function: str) -> None:
    imported = importing(function)
    assert imported.enabled
    assert imported.collections < 10  # after the imports; without the module it is more than 100


def loaded_by(function: str) -> set[str]:
    """The modules that importing a function loads."""
    return importing(function).modules


class Imported(NamedTuple):
    """What importing a function has done: the modules loaded, the garbage collections, whether there will be more."""

    modules: set[str]
    collections: int
    enabled: bool


@cache
def importing(function: str) -> Imported:
    """Import a function in a process of its own."""
    code = (
        "import gc, json, sys\n"
        "def collections(): return sum(generation['collections'] for generation in gc.get_stats())\n"
        "before = collections()\n"
        f"import {function}\n"
        "print(json.dumps([list(sys.modules), collections() - before, gc.isenabled()]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "functions")}
    modules, collections, enabled = json.loads(subprocess.check_output([sys.executable, "-c", code], env=environment))
    assert function in modules
    return Imported(set(modules), collections, enabled)


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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of botocore's data, of DynamoDB alone, as infra/layer/Makefile leaves it."""
    whole = Path(botocore.session.__file__).parent / "data"
    shutil.copytree(whole / "dynamodb", tmp_path / "dynamodb")
    for path in whole.glob("*.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


def trim(data: Path) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, botocore_data.__file__, data], capture_output=True)


def test_the_layers_model_of_dynamodb_is_all_that_the_store_needs(
    data: Path, api: httpx.Client, dynamodb_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trim(data).returncode == 0
    session = botocore.session.get_session()
    session.register_component("data_loader", Loader([str(data)], include_default_search_paths=False))
    monkeypatch.setattr(dynamodb, "get_session", lambda: session)
    trimmed = dynamodb.connect()
    assert set(trimmed.meta.service_model.operation_names) == set(botocore_data.OPERATIONS)
    monkeypatch.setattr(store, "client", trimmed)

    new, key = {"description": "x", "source": "operator"}, {"Idempotency-Key": "1"}
    created = api.post("/incidents", json=new, headers=key)
    assert created.status_code == 201
    assert api.post("/incidents", json=new, headers=key).headers["Idempotent-Replayed"] == "true"
    path = created.headers["Location"]
    assert api.patch(path, json={"status": "closed"}).json()["version"] == 2
    assert api.patch(path, json={"status": "open"}, headers={"If-Match": '"1"'}).status_code == 412
    assert api.get(path).json() == api.get("/incidents").json()[0]
    assert len(api.get(f"{path}/history").json()) == 2
    assert not dynamodb_calls, "another client was asked"


def test_the_layers_model_of_dynamodb_has_what_the_functions_may_do() -> None:
    allowed = re.findall(r"\bdynamodb:(\w+)", (ROOT / "template.yaml").read_text())
    assert set(botocore_data.OPERATIONS) == set(allowed)


def test_a_layer_without_an_operation_is_not_built(data: Path) -> None:
    botocore_data.trim_model(data / botocore_data.MODEL, [*botocore_data.OPERATIONS][:-1])
    failed = trim(data)
    assert failed.returncode != 0
    assert botocore_data.OPERATIONS[-1] in failed.stderr.decode()
