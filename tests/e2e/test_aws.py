"""Access keys, `make` commands and updates of a deployed stack. With `--on aws`, the behaviour tests run against it, too."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from infra.local import template
from tests.conftest import EVERYTHING
from tests.e2e.aws import FORBIDDEN, ROOT, Aws, answer
from tests.steps import report

# ---- access keys


def test_the_functions_know_the_caller(deployed: Aws) -> None:
    """The authorizer's decision reaches them: the name, the source, and what a reporter may read."""
    with deployed.client() as operator, deployed.client(deployed.make_key("own", "reporter", "partner")) as reporter:
        foreign = f"/incidents/{report(operator)['id']}"
        created = reporter.post("/incidents", json={"description": "x"})
        path = created.headers["Location"]
        assert created.json()["source"] == "partner"
        assert [entry["by"] for entry in reporter.get(f"{path}/history").json()] == ["own"]
        assert (reporter.get(path).status_code, reporter.get(foreign).status_code) == (200, 404)


def test_a_revoked_key_works_only_where_the_gateway_cached_it(deployed: Aws) -> None:
    with deployed.client(deployed.make_key("leaving", "observer")) as client:
        assert answer(client, "GET /incidents")[0] == 200
        deployed.make("revoke", "NAME=leaving", "YES=1")
        assert answer(client, "GET /incidents")[0] == 200, "the gateway did not cache the decision"
        assert answer(client, "GET /incidents/{id}") == FORBIDDEN


def test_one_of_two_keys_can_be_revoked(deployed: Aws) -> None:
    def created() -> list[str]:
        return re.findall(r"^rotating +observer +- +(\S+) +-$", deployed.make("keys"), re.MULTILINE)

    old, new = (deployed.make_key("rotating", "observer") for _ in range(2))
    assert len(created()) == 2
    deployed.make("revoke", "NAME=rotating", f"CREATED={created()[0]}", "YES=1")
    with deployed.client(old) as before, deployed.client(new) as after:
        assert answer(before, "GET /incidents") == FORBIDDEN
        assert answer(after, "GET /incidents")[0] == 200


@pytest.mark.parametrize(
    ("command", "region", "message"),
    [
        (["revoke", "NAME=nobody"], "eu-central-1", "no such key"),
        (["revoke", "NAME=operator", "CREATED=2020-01-01T00:00:00.000Z"], "eu-central-1", "no such key"),
        (["key", "NAME=x", "ROLE=operator", "STACK=missing"], "eu-central-1", "no stack missing in eu-central-1"),
        (["keys"], "eu-west-1", "in eu-west-1"),
        (["keys", "STACK=earlier"], "eu-central-1", "deploy this version"),
    ],
)
def test_a_failed_command_changes_nothing(deployed: Aws, command: list[str], region: str, message: str) -> None:
    if "STACK=earlier" in command:
        topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
        deployed.cloudformation.create_stack(StackName="earlier", TemplateBody=json.dumps(topic))
    before = deployed.make("keys")
    ran = deployed.run_make(*command, AWS_REGION=region)
    assert (ran.returncode, ran.stdout) == (2, "")
    line, _ = ran.stderr.splitlines()  # the second line is make's own
    assert message in line
    assert deployed.make("keys") == before


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize(
    ("page", "language"),
    [
        ("README.md", "sh"),
        ("infra/README.md", "sh"),
        ("infra/integrations.md", "sh"),
        ("infra/integrations.md", "python"),
    ],
)
def test_the_documented_examples_create_an_incident(deployed: Aws, page: str, language: str) -> None:
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    # Without the variables of `make e2e`, which would make a nested make print its folder.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = inherited | {
        "API": deployed.address,
        "AWS_ENDPOINT_URL": deployed.endpoint,
        "KEY": deployed.make_key("reporter", "reporter"),
    }
    interpreter = {"sh": "sh", "python": sys.executable}[language]
    ran = subprocess.run([interpreter, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    assert json.loads(ran.stdout)["description"] == "Самокат #4567 не отвечает"


# ---- updates


def test_a_package_contains_everything_its_function_imports(deployed: Aws) -> None:
    build = deployed.folder / "build"
    for function, properties in template.load().functions(**EVERYTHING).items():
        module = properties.Handler.removesuffix(".handler")
        environment = {"PYTHONPATH": f"{build / function}:{build / 'DependenciesLayer' / 'python'}"}
        environment |= template.load().environment(**EVERYTHING) | {"AWS_DEFAULT_REGION": "eu-central-1"}
        runtime = ROOT / ".venv-sam/bin/python"
        subprocess.run([runtime, "-S", "-c", f"import {module}"], cwd=build, env=environment, check=True)


def test_an_update_can_be_rolled_back(deployed: Aws, tmp_path: Path) -> None:
    """Code, layer and a parameter change, and change back; the incidents stay, also when they get more shards."""
    for name in ("functions", "infra", "template.yaml", "samconfig.toml"):
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / name)
    api_module, layer = tmp_path / "functions/api.py", tmp_path / "infra/layer/Makefile"
    text = '"There is no incident with this id."'
    assert text in api_module.read_text()
    api_module.write_text("import next_version\n" + api_module.read_text().replace(text, "next_version.DETAIL"))
    layer.write_text(layer.read_text() + "\techo 'DETAIL = \"next\"' >'$(python)/next_version.py'\n")

    def version() -> tuple[str, str]:
        with deployed.client() as api:
            return api.get("/incidents/1").json()["detail"], deployed.parameters["LogDays"]

    with deployed.client() as api:
        incidents = [report(api) for _ in range(3)]
    before = version()
    deployed.deploy(tmp_path, LogDays="14", StatusShards="4")
    assert version() == ("next", "14")
    with deployed.client() as api:
        incidents += [report(api) for _ in range(8)]
    # A parameter that is not named keeps its value: the old one has to be named, and StatusShards may stay.
    deployed.deploy(LogDays=before[1])
    assert version() == before
    with deployed.client() as api:
        listed = api.get("/incidents?limit=100").json()
    assert all(incident in listed for incident in incidents)
    items = deployed.dynamodb.scan(TableName=deployed.table)["Items"]
    assert len({item["status_shard"]["S"] for item in items if "status_shard" in item}) > 1


def test_a_stack_switches_to_another_table_and_back(deployed: Aws) -> None:
    """As after a restore: only the parameter changes, and neither table."""
    own = deployed.table
    with deployed.client() as api:
        path = f"/incidents/{report(api)['id']}"
    deployed.dynamodb.create_table(**template.load().table() | {"TableName": "restored"})
    deployed.set_parameters(Table="restored")
    with deployed.client() as api:
        assert api.get(path).status_code == 404
        later = report(api, "in the restored table")
        assert api.get("/incidents").json() == [later]
    # The stack no longer has a table of its own: an empty name would create a new one.
    deployed.set_parameters(Table=own)
    with deployed.client() as api:
        assert api.get(path).status_code == 200
        assert api.get(f"/incidents/{later['id']}").status_code == 404


def test_deleting_the_stack_keeps_the_tables(deployed: Aws) -> None:
    with deployed.client() as api:
        incident = report(api)
    table, keys_table = deployed.table, deployed.output("KeysTableName")
    deployed.remove()
    assert deployed.dynamodb.get_item(TableName=table, Key={"id": {"S": incident["id"]}})["Item"]
    assert deployed.dynamodb.scan(TableName=keys_table)["Items"]
    with pytest.raises(ClientError, match="does not exist"):
        deployed.output("ApiUrl")
