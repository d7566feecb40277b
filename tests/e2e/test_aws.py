"""What only a deployment shows. The behaviour tests run against it besides, with `--on aws`."""

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
from tests.e2e.aws import FORBIDDEN, ROOT, UNAUTHORIZED, Aws, answer
from tests.steps import bad_input, report

ROUTES = sorted(route.key for route in template.load().routes())
GOOD = {"description": "x", "source": "partner"}


# ---- who may call


def test_without_a_key_the_gateway_answers_401(deployed: Aws) -> None:
    with deployed.anonymous_client() as client:
        for route in ROUTES:
            assert answer(client, route) == answer(client, route, Authorization="") == UNAUTHORIZED


def test_basic_carries_a_key_as_well(deployed: Aws) -> None:
    with deployed.anonymous_client() as client:
        client.auth = ("anyone", deployed.operators_key)
        assert answer(client, "GET /incidents")[0] == 200
        client.auth = (deployed.operators_key, "")
        assert answer(client, "GET /incidents") == FORBIDDEN


def test_a_revoked_key_works_only_where_the_gateway_cached_it(deployed: Aws) -> None:
    with deployed.client(deployed.make_key("leaving", "observer")) as client:
        assert answer(client, "GET /incidents")[0] == 200
        deployed.make("revoke", "NAME=leaving", "YES=1")
        assert answer(client, "GET /incidents")[0] == 200, "the gateway asks for each request"
        assert answer(client, "GET /incidents/{id}") == FORBIDDEN


def test_a_keys_source_is_its_reports_source(deployed: Aws) -> None:
    with deployed.client(deployed.make_key("partner-x", "reporter", "partner")) as client:
        assert client.post("/incidents", json={"description": "x"}).json()["source"] == "partner"
        assert bad_input(client.post("/incidents", json=GOOD | {"source": "operator"})) == [["body", "source"]]


def test_a_reporter_reads_its_own_incidents_alone(deployed: Aws) -> None:
    """With comments of others, and as an operator reads them."""
    with deployed.client() as operator, deployed.client(deployed.make_key("own", "reporter", "partner")) as own:
        path, foreign = (client.post("/incidents", json=GOOD).headers["Location"] for client in (own, operator))
        operator.patch(path, json={"status": "resolved", "comment": "Fixed"})
        for route in ("", "/history"):
            assert own.get(path + route).json() == operator.get(path + route).json()
            assert own.get(foreign + route).status_code == own.get(f"/incidents/9999{route}").status_code == 404
        assert own.get("/incidents").status_code == own.patch(path, json={"comment": "x"}).status_code == 403


def test_an_idempotency_key_belongs_to_a_name_and_survives_rotation(deployed: Aws) -> None:
    reported = []
    for name in ("monitor-a", "monitor-a", "monitor-b"):
        with deployed.client(deployed.make_key(name, "operator")) as client:
            reported.append(client.post("/incidents", json=GOOD, headers={"Idempotency-Key": "rotation"}).json())
    assert reported[0] == reported[1] != reported[2]
    with deployed.client() as client:
        (entry,) = client.get(f"/incidents/{reported[0]['id']}/history").json()
    assert entry["by"] == "monitor-a"


# ---- make key, make keys, make revoke


def test_one_of_two_keys_can_be_revoked(deployed: Aws) -> None:
    def created() -> list[str]:
        return re.findall(r"^rotating +observer +- +(\S+) +-$", deployed.make("keys"), re.MULTILINE)

    old, new = (deployed.make_key("rotating", "observer") for _ in range(2))
    assert len(created()) == 2
    deployed.make("revoke", "NAME=rotating", f"CREATED={created()[0]}", "YES=1")
    with deployed.client(old) as before, deployed.client(new) as after:
        assert answer(before, "GET /incidents") == FORBIDDEN
        assert answer(after, "GET /incidents")[0] == 200
    deployed.make("revoke", "NAME=rotating", "YES=1")
    assert created() == []


KEY = ["key", "NAME=x", "ROLE=operator"]
REVOKE = ["revoke", "NAME=operator"]


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        (["revoke", "NAME=nobody"], {}, "no such key"),
        ([*REVOKE, "CREATED=2020-01-01T00:00:00.000Z"], {}, "no such key"),
        (["revoke", "NAME="], {}, "no such key"),
        *(([*verb, "STACK=missing"], {}, "no stack missing in eu-central-1") for verb in (KEY, ["keys"], REVOKE)),
        *((verb, {"AWS_REGION": "eu-west-1"}, "in eu-west-1") for verb in (KEY, ["keys"], REVOKE)),
        (["keys", "STACK=earlier"], {}, "deploy this version"),
    ],
)
def test_a_verb_reports_its_failure_in_one_line(
    deployed: Aws, command: list[str], environment: dict[str, str], said: str
) -> None:
    if "STACK=earlier" in command:
        topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
        deployed.cloudformation.create_stack(StackName="earlier", TemplateBody=json.dumps(topic))
    before = deployed.make("keys")
    stack = [] if "STACK=" in str(command) else [f"STACK={deployed.stack}"]
    ran = subprocess.run(
        ["make", "--silent", *command, *stack],
        cwd=ROOT,
        env=os.environ | {"AWS_ENDPOINT_URL": deployed.endpoint} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    line, _ = ran.stderr.splitlines()  # the second line is make's own
    assert said in line
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
def test_the_documents_show_how_to_call(deployed: Aws, page: str, language: str) -> None:
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    # Without those of `make e2e`: make would print into which folder another make goes.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = inherited | {
        "API": deployed.address,
        "AWS_ENDPOINT_URL": deployed.endpoint,
        "KEY": deployed.make_key("reporter", "reporter"),
    }
    interpreter = {"sh": "sh", "python": sys.executable}[language]
    ran = subprocess.run([interpreter, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    assert json.loads(ran.stdout)["description"] == "Самокат #4567 не отвечает"


# ---- what is deployed, as far as the emulator does not act on it


def test_the_gateway_may_call_each_function_for_its_routes_alone(deployed: Aws) -> None:
    permissions = deployed.processed().of("AWS::Lambda::Permission").values()
    assert {str(each["Action"]) for each in permissions} == {"lambda:InvokeFunction"}
    assert {str(each["Principal"]) for each in permissions} == {"apigateway.amazonaws.com"}
    allowed = {
        (
            *re.findall(r"\w+Function", str(each["FunctionName"])),
            *re.findall(r"\}/([^'\"]+)['\"]", str(each["SourceArn"])),
        )
        for each in permissions
    }
    routes = {
        (route.function, f"${{__Stage__}}/{route.method}{re.sub('{.*?}', '*', route.path)}")
        for route in template.load().routes()
    }
    assert allowed == routes | {("AuthorizeFunction", "authorizers/*")}


def test_a_package_has_all_that_its_function_imports(deployed: Aws) -> None:
    build = deployed.folder / "build"
    for function, properties in template.load().functions(**EVERYTHING).items():
        module = properties.Handler.removesuffix(".handler")
        environment = {"PYTHONPATH": f"{build / function}:{build / 'DependenciesLayer' / 'python'}"}
        environment |= template.load().environment(**EVERYTHING) | {"AWS_DEFAULT_REGION": "eu-central-1"}
        runtime = ROOT / ".venv-sam/bin/python"
        subprocess.run([runtime, "-S", "-c", f"import {module}"], cwd=build, env=environment, check=True)


@pytest.mark.parametrize("name", [template.TABLE, "KeysTable"])
def test_a_table_is_recoverable_and_hard_to_delete(deployed: Aws, name: str) -> None:
    table = deployed.processed().Resources[name]
    assert table.Properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    with pytest.raises(ClientError, match="protected against deletion"):
        deployed.dynamodb.delete_table(TableName=deployed.resource(name))


# ---- what happens over time


def test_a_second_deployment_keeps_the_incidents(deployed: Aws) -> None:
    address = deployed.output("ApiUrl")
    with deployed.client() as api:
        incidents = [report(api, f"number {number}") for number in range(3)]
    deployed.deploy(StatusShards="4", LogDays="7")
    assert deployed.output("ApiUrl") == address
    with deployed.client() as api:
        incidents += [report(api, f"number {number}") for number in range(8)]
        listed = api.get("/incidents?limit=100").json()
    assert all(incident in listed for incident in incidents)
    rows = deployed.dynamodb.scan(TableName=deployed.table)["Items"]
    assert len({row["status_shard"]["S"] for row in rows if "status_shard" in row}) > 1


def test_deploying_the_version_before_rolls_back(deployed: Aws, tmp_path: Path) -> None:
    """The code, the layer and a parameter change, and change back; the incidents stay."""
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
        incident = report(api)
    before = version()
    deployed.deploy(tmp_path, LogDays="14")
    assert version() == ("next", "14")
    # A parameter that is not named keeps its value, so the old value has to be named.
    deployed.deploy(LogDays=before[1])
    assert version() == before
    with deployed.client() as api:
        assert api.get(f"/incidents/{incident['id']}").json() == incident


def test_a_stack_switches_to_another_table_and_back(deployed: Aws) -> None:
    """As after a restore: the parameter alone changes; neither table is touched."""
    own = deployed.table
    with deployed.client() as api:
        path = f"/incidents/{report(api)['id']}"
    restored = template.load().table() | {"TableName": "restored"}
    deployed.dynamodb.create_table(**restored)
    deployed.set_parameters(Table="restored")
    with deployed.client() as api:
        assert api.get(path).status_code == 404
        later = report(api, "in the restored table")
        assert api.get("/incidents").json() == [later]
    # From here on the stack has no table of its own any more: an empty name would make a new one.
    deployed.set_parameters(Table=own)
    with deployed.client() as api:
        assert api.get(path).status_code == 200
        assert api.get(f"/incidents/{later['id']}").status_code == 404


def test_removing_the_stack_leaves_the_tables(deployed: Aws) -> None:
    with deployed.client() as api:
        incident = report(api)
    table, keys_table = deployed.table, deployed.output("KeysTableName")
    deployed.remove()
    assert deployed.dynamodb.get_item(TableName=table, Key={"id": {"S": incident["id"]}})["Item"]
    assert deployed.dynamodb.scan(TableName=keys_table)["Items"]
    with pytest.raises(ClientError, match="does not exist"):
        deployed.output("ApiUrl")
