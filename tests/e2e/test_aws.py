"""What only a deployment shows. The behaviour tests run against it besides, with `--on aws`."""

import pytest

from tests.e2e.aws import Aws


@pytest.fixture
def aws(elsewhere: object) -> Aws:
    assert isinstance(elsewhere, Aws)
    return elsewhere


def test_x(aws: Aws) -> None:
    assert aws.table
