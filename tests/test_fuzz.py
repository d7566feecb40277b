"""The running API, asked by a machine that has read its contract: whatever it asks, the answers are those of the contract."""

import json

import pytest
import schemathesis
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

from infra.local import docs

# As the local run serves it: no signature is asked for.
contract = schemathesis.openapi.from_dict(json.loads(docs._document()))

# A body that breaks the contract may be refused for its length before it is read.
rejection = contract.config.checks.negative_data_rejection
rejection.expected_statuses = [*rejection.expected_statuses, "413"]
EXCLUDED = [
    # Some rules are beyond a schema: a cursor has to come from a Link, a description is more than white space.
    positive_data_acceptance,
    # A method that a path does not have is the gateway's affair, which answers 404.
    unsupported_method,
]


@pytest.mark.usefixtures("table")
@contract.parametrize()
def test_the_api_keeps_its_contract(case: Case, address: str) -> None:  # type: ignore[type-arg]  # they are its own affair
    """No request gets a 5xx, an answer beyond the contract, or a 2xx where it breaks the contract."""
    case.call_and_validate(base_url=address, excluded_checks=EXCLUDED)
