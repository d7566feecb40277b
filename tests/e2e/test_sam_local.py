"""What is of the SAM CLI's local run alone; the behaviour tests run there besides, with `--on sam-local`."""

from tests.e2e.sam_local import containers, sam_local
from tests.steps import report


def test_the_functions_run_in_containers_that_are_gone_in_the_end() -> None:
    before = containers()
    with sam_local() as local:
        with local.client() as api:
            incident = report(api)
            assert api.get(f"/incidents/{incident['id']}").json() == incident
        assert len(containers() - before) == 2
        assert local.dynamodb.scan(TableName=local.table)["Count"] == 1
    assert containers() <= before
