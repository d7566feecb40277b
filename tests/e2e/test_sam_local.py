"""What is the SAM CLI's local run alone. The behaviour tests run on it besides, with `--on sam-local`."""

import pytest

from tests.e2e.sam_local import SamLocal, containers
from tests.steps import report


@pytest.fixture
def local(deployment: object) -> SamLocal:
    if not isinstance(deployment, SamLocal):
        pytest.skip("the API is not under sam local: make test-sam-local")
    return deployment


def test_it_stops_with_every_container_that_it_started(local: SamLocal) -> None:
    with local.client() as api:
        incident = report(api)
        assert api.get(f"/incidents/{incident['id']}").json() == incident
    assert containers() > local.found
    assert local.stop() == 0
    assert containers() <= local.found
