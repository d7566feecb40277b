"""The stacks on the emulated AWS: the default one, and one with every integration that goes on with its table."""

from dataclasses import replace

import pytest

from infra.openapi import INTEGRATIONS
from tests.e2e.aws import Aws


@pytest.fixture(scope="session")
def deployed(deployment: object) -> Aws:
    if not isinstance(deployment, Aws):
        pytest.skip("the API is not on AWS: make e2e")
    return deployment


@pytest.fixture(scope="session")
def integrated(deployed: Aws) -> Aws:
    stack = replace(deployed, stack="incident-api-integrations")
    stack.deploy(Table=deployed.table, **INTEGRATIONS)
    return stack
