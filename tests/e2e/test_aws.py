"""What only a deployment shows. The behaviour tests run against it besides, with `--on aws`."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path

import boto3
import httpx
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from pydantic import JsonValue

from infra import keys
from infra.local import template
from infra.openapi import INTEGRATIONS
from tests.e2e.aws import ROOT, ApiBody, Aws, Processed
from tests.steps import bad_input, report

FUNCTIONS = sorted(template.load().functions())
GOOD = {"description": "x", "source": "partner"}


@pytest.fixture(scope="session")
def deployed(deployment: object) -> Aws:
    if not isinstance(deployment, Aws):
        pytest.skip("the API is not on AWS: make e2e")
    return deployment


@pytest.fixture(scope="session")
def processed(deployed: Aws) -> Processed:
    return deployed.processed()


# ---- who may call


CALLS = {
    "POST /incidents": ("POST", "/incidents"),
    "POST /incidents/{proxy+}": ("POST", "/incidents/x/y"),
    "GET /incidents": ("GET", "/incidents"),
    "GET /incidents/{proxy+}": ("GET", "/incidents/x/y"),
    "GET /incidents/{id}": ("GET", "/incidents/9999"),
    "GET /incidents/{id}/history": ("GET", "/incidents/9999/history"),
    "PATCH /incidents/{id}": ("PATCH", "/incidents/9999"),
}
"""A request of each route."""

REFUSED = (403, {"message": "Forbidden"})


def call(client: httpx.Client, route: str, **headers: str) -> tuple[int, JsonValue]:
    """The status and the body of the response to a request of this route."""
    method, path = CALLS[route]
    bodies: dict[str, dict[str, str]] = {"POST": GOOD, "PATCH": {"status": "closed"}}
    response = client.request(method, path, json=bodies.get(method), headers=headers)
    return response.status_code, response.json()


@pytest.fixture(scope="session")
def access_keys(deployed: Aws) -> dict[str, str]:
    """A key of each role."""
    return {role: deployed.make_key(role, role) for role in keys.ROLES}


def test_there_is_a_call_of_every_route() -> None:
    assert set(CALLS) == {route.key for route in template.load().routes()}


@pytest.mark.parametrize("role", keys.ROLES)
@pytest.mark.parametrize("route", CALLS)
def test_a_role_may_use_its_own_routes_and_no_others(
    deployed: Aws, access_keys: dict[str, str], role: str, route: str
) -> None:
    method = route.partition(" ")[0]
    allowed = method in {"reporter": ["POST"], "observer": ["GET"], "operator": ["POST", "GET", "PATCH"]}.get(role, [])
    with deployed.client(access_keys[role]) as client:
        status, body = call(client, route)
    assert (status in (200, 201, 404)) == allowed
    assert ((status, body) == REFUSED) == (not allowed)


def test_what_is_allowed_on_one_route_is_allowed_on_no_other(deployed: Aws) -> None:
    # With a new key, of which the gateway has no answer yet.
    with deployed.client(deployed.make_key("new-reporter", "reporter")) as client:
        for _ in range(3):
            assert call(client, "POST /incidents")[0] == 201
            for route in CALLS:
                assert (call(client, route) == REFUSED) == (not route.startswith("POST "))


def test_an_answer_of_the_authorizer_is_repeated_for_a_minute(deployed: Aws) -> None:
    """Else the tests above say nothing about what the cache keeps apart, and each request costs two invocations."""
    gateway = boto3.client("apigatewayv2", endpoint_url=deployed.endpoint)
    authorizers = gateway.get_authorizers(ApiId=deployed.resource("IncidentApi"))["Items"]
    assert {(each["AuthorizerResultTtlInSeconds"], *each["IdentitySource"]) for each in authorizers} == {
        (60, "$request.header.Authorization", "$context.routeKey"),
        (60, "$request.header.X-Telegram-Bot-Api-Secret-Token", "$context.routeKey"),
    }
    key = deployed.make_key("cached", "observer")
    with deployed.client(key) as client:
        assert call(client, "GET /incidents")[0] == 200
        deployed.make("revoke", "NAME=cached")
        assert call(client, "GET /incidents")[0] == 200


@pytest.mark.parametrize("route", CALLS)
def test_without_a_key_the_gateway_answers_401(deployed: Aws, route: str) -> None:
    with deployed.anonymous_client() as client:
        for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": deployed.operators_key}, {"Authorization": ""}):
            assert call(client, route, **headers) == (401, {"message": "Unauthorized"})


def authorization_headers(key: str) -> dict[str, bytes]:
    """Values of the header that contain no key, not this one, or not in the right place; by what is wrong with them."""
    encoded = b64encode(f":{key}".encode())
    return {
        "garbage": b"garbage",
        "a word": b"bearer",
        "a scheme and a space": b"Bearer ",
        "no scheme": key.encode(),
        "another scheme": b"Token " + key.encode(),
        "truncated": f"Bearer {key[:-1]}".encode(),
        "one character more": f"Bearer {key}x".encode(),
        "a key that was never made": b"Bearer inc_" + b"x" * 43,
        "Basic without base64": f"Basic {key}".encode(),
        "Basic, truncated": b"Basic " + encoded[:-1],
        "Basic, the key as the user": b"Basic " + b64encode(f"{key}:".encode()),
        "10 KB": b"Bearer " + b"x" * 10_000,
        "bytes that are not ASCII": b"Bearer \xff\xfe\xd0\xba",
        "a key and bytes that are not ASCII": f"Bearer {key}".encode() + b"\xff",
        "two keys": f"Bearer {key}, Bearer {key}".encode(),
    }


@pytest.mark.parametrize("wrong", authorization_headers(""))
def test_a_wrong_header_is_refused_and_never_a_5xx(deployed: Aws, wrong: str) -> None:
    """Over a bare socket: HTTP clients refuse to send some of these."""
    address = httpx.URL(deployed.endpoint)
    host = httpx.URL(deployed.output("ApiUrl")).host
    value = authorization_headers(deployed.operators_key)[wrong]
    with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
        connection.sendall(
            f"GET /incidents HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: ".encode()
            + value
            + b"\r\n\r\n"
        )
        response = HTTPResponse(connection)
        response.begin()
        assert 400 <= response.status < 500
        assert b"description" not in response.read()


@pytest.mark.parametrize("route", CALLS)
def test_basic_carries_a_key_as_well(deployed: Aws, route: str) -> None:
    with deployed.anonymous_client() as client:
        client.auth = ("anyone", deployed.operators_key)
        assert call(client, route)[0] in (200, 201, 404)
        client.auth = (deployed.operators_key, "")
        assert call(client, route) == REFUSED


def test_a_revoked_key_is_refused_within_the_minute_that_the_gateway_may_repeat(deployed: Aws) -> None:
    revoked, other = (deployed.make_key(name, "operator") for name in ("leaving", "staying"))
    with deployed.client(revoked) as client:
        assert call(client, "GET /incidents")[0] == 200
        deployed.make("revoke", "NAME=leaving")
        assert call(client, "GET /incidents/{id}") == REFUSED, "a route on which the gateway repeats nothing"
        deadline = time.monotonic() + 90
        while call(client, "GET /incidents") != REFUSED:
            assert time.monotonic() < deadline
            time.sleep(1)
    with deployed.client(other) as client:
        assert call(client, "GET /incidents")[0] == 200


def test_the_source_of_a_key_is_the_source_of_its_reports(deployed: Aws) -> None:
    with deployed.client(deployed.make_key("partner-x", "reporter", "partner")) as client:
        reported = client.post("/incidents", json={"description": "x"})
        assert (reported.status_code, reported.json()["source"]) == (201, "partner")
        assert bad_input(client.post("/incidents", json={"description": "x", "source": "operator"})) == [
            ["body", "source"]
        ]


def test_an_idempotency_key_belongs_to_a_name_and_survives_rotation(deployed: Aws) -> None:
    first, rotated, other = (deployed.make_key(name, "operator") for name in ("monitor-a", "monitor-a", "monitor-b"))
    reported = []
    for key in (first, rotated, other):
        with deployed.client(key) as client:
            reported.append(client.post("/incidents", json=GOOD, headers={"Idempotency-Key": "rotation"}).json())
    assert reported[0] == reported[1] != reported[2]
    with deployed.client() as client:
        (entry,) = client.get(f"/incidents/{reported[0]['id']}/history").json()
        assert entry["by"] == "monitor-a"


def test_when_dynamodb_fails_the_authorizer_does_too(deployed: Aws) -> None:
    """A 500, which clients retry, instead of a 403, on which they give up, and which the gateway would repeat."""
    functions = boto3.client("lambda", endpoint_url=deployed.endpoint)
    name = deployed.resource("AuthorizeFunction")
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    with deployed.client(deployed.make_key("unlucky", "operator")) as client:
        functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables | {"KEYS_TABLE": "missing"}}
        )
        assert call(client, "GET /incidents") == (500, {"message": "Internal Server Error"})
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
        assert call(client, "GET /incidents")[0] == 200


# ---- make key, make keys, make revoke


def test_the_table_of_keys_has_no_key_in_it(deployed: Aws) -> None:
    key = deployed.make_key("secretive", "observer")
    dump = json.dumps(deployed.dynamodb.scan(TableName=deployed.output("KeysTableName"))["Items"])
    assert "secretive" in dump
    assert key.removeprefix("inc_") not in dump
    assert re.search(r"inc_[\w-]{43}", dump) is None


def test_of_two_keys_of_one_name_one_can_be_revoked_or_both(deployed: Aws) -> None:
    def created() -> list[str]:
        return re.findall(r"^rotating +observer +- +(\S+)$", deployed.make("keys"), re.MULTILINE)

    old, new = (deployed.make_key("rotating", "observer") for _ in range(2))
    assert len(created()) == 2
    deployed.make("revoke", "NAME=rotating", f"CREATED={created()[0]}")
    assert len(created()) == 1
    with deployed.client(old) as before, deployed.client(new) as after:
        assert call(before, "GET /incidents") == REFUSED
        assert call(after, "GET /incidents")[0] == 200
    deployed.make("revoke", "NAME=rotating")
    assert created() == []


def test_a_key_that_does_not_exist_is_not_revoked(deployed: Aws) -> None:
    before = deployed.make("keys")
    for arguments in (["NAME=nobody"], ["NAME=operator", "CREATED=2020-01-01T00:00:00.000Z"], ["NAME="], []):
        ran = failing_make(deployed, "revoke", *arguments)
        assert "no such key" in ran
    assert deployed.make("keys") == before


def failing_make(aws: Aws, *arguments: str, **environment: str) -> str:
    """Run a command that has to fail, with the administrator's credentials; return the one line that it said."""
    variables = [] if any(argument.startswith("STACK=") for argument in arguments) else [f"STACK={aws.stack}"]
    ran = subprocess.run(
        ["make", "--silent", *arguments, *variables],
        cwd=ROOT,
        env=os.environ | {"AWS_ENDPOINT_URL": aws.endpoint} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    said, _ = ran.stderr.splitlines()  # the second line is make's own
    return said


@pytest.mark.parametrize("command", [("key", "NAME=x", "ROLE=operator"), ("keys",), ("revoke", "NAME=x")])
def test_without_the_right_stack_or_region_one_line_says_so(deployed: Aws, command: tuple[str, ...]) -> None:
    said = failing_make(deployed, *command, "STACK=missing")
    assert "no stack missing in eu-central-1" in said
    said = failing_make(deployed, *command, AWS_REGION="eu-west-1")
    assert f"no stack {deployed.stack} in eu-west-1" in said


def test_a_stack_of_an_earlier_version_has_no_keys(deployed: Aws) -> None:
    topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    deployed.cloudformation.create_stack(StackName="earlier", TemplateBody=json.dumps(topic))
    assert "deploy this version" in failing_make(deployed, "keys", "STACK=earlier")
    deployed.cloudformation.delete_stack(StackName="earlier")


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
        "API": f"{deployed.endpoint}/_aws/execute-api/{deployed.resource('IncidentApi')}",
        "AWS_ENDPOINT_URL": deployed.endpoint,
        "KEY": deployed.make_key("reporter", "reporter"),
    }
    interpreter = {"sh": "sh", "python": sys.executable}[language]
    ran = subprocess.run([interpreter, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    assert json.loads(ran.stdout)["description"] == "Самокат #4567 не отвечает"


# ---- what the functions may do

ACTIONS: dict[str, dict[str, JsonValue]] = {
    "PutItem": {"Item": {"id": {"S": "1"}}},
    "GetItem": {"Key": {"id": {"S": "1"}}},
    "BatchGetItem": {"Keys": [{"id": {"S": "1"}}]},
    "UpdateItem": {"Key": {"id": {"S": "1"}}},
    "DeleteItem": {"Key": {"id": {"S": "1"}}},
    "Query": {"KeyConditionExpression": "id = :id", "ExpressionAttributeValues": {":id": {"S": "1"}}},
    "Query index": {
        "IndexName": "by-status",
        "KeyConditionExpression": "status_shard = :shard",
        "ExpressionAttributeValues": {":shard": {"S": "open#0"}},
    },
    "Scan": {},
    "Scan index": {"IndexName": "by-status"},
    "DescribeTable": {},
    "DeleteTable": {},
}


def allowed_actions(aws: Aws, role: str) -> dict[str, set[str]]:
    """What a role of the stack may do with each of its tables, by their outputs, and with another table."""
    arn = aws.iam.get_role(RoleName=aws.resource(role))["Role"]["Arn"]
    sts = boto3.client("sts", endpoint_url=aws.endpoint)
    assumed = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    dynamodb = boto3.client(
        "dynamodb",
        endpoint_url=aws.endpoint,
        aws_access_key_id=assumed["AccessKeyId"],
        aws_secret_access_key=assumed["SecretAccessKey"],
        aws_session_token=assumed["SessionToken"],
    )

    def may(action: str, table: str) -> bool:
        operation = action.partition(" ")[0]
        arguments: dict[str, JsonValue] = {"TableName": table, **ACTIONS[action]}
        if operation == "BatchGetItem":
            arguments = {"RequestItems": {table: ACTIONS[action]}}
        try:
            getattr(dynamodb, xform_name(operation))(**arguments)
        except ClientError as error:
            return error.response["Error"]["Code"] != "AccessDeniedException"
        return True

    tables = {name: aws.output(name) for name in ("TableName", "KeysTableName")} | {"": "another-table"}
    allowed = {name: {action for action in ACTIONS if may(action, table)} for name, table in tables.items()}
    aws.dynamodb.delete_item(TableName=aws.table, Key={"id": {"S": "1"}})
    return allowed


@pytest.mark.parametrize(
    ("role", "table", "allowed"),
    [
        ("CreateIncidentRole", "TableName", {"PutItem"}),
        ("ReadIncidentsRole", "TableName", {"GetItem", "Query index"}),
        ("UpdateIncidentRole", "TableName", {"UpdateItem"}),
        ("AuthorizeRole", "KeysTableName", {"GetItem"}),
    ],
)
def test_a_role_allows_its_own_actions_on_its_table_and_no_others(
    deployed: Aws, role: str, table: str, allowed: set[str]
) -> None:
    assert allowed_actions(deployed, role) == {"TableName": set(), "KeysTableName": set(), "": set(), table: allowed}


# ---- what is deployed, as far as the emulator does not act on it


def test_the_stack_is_three_functions_an_authorizer_and_what_they_need(processed: Processed) -> None:
    assert Counter(resource.Type for resource in processed.Resources.values()) == {
        "AWS::ApiGatewayV2::Api": 1,
        "AWS::ApiGatewayV2::Stage": 1,
        "AWS::Lambda::Function": 4,
        "AWS::Lambda::LayerVersion": 1,
        "AWS::Lambda::Permission": 2 + len(template.load().routes()),
        "AWS::DynamoDB::Table": 2,
        "AWS::IAM::Role": 4,
        "AWS::IAM::ManagedPolicy": 1,
        "AWS::Logs::LogGroup": 2,
        "AWS::CloudFormation::Stack": 1,
    }


def test_no_policy_has_a_wildcard(processed: Processed) -> None:
    policies = [policy["PolicyDocument"] for policy in processed.of("AWS::IAM::ManagedPolicy").values()]
    policies += [role["Policies"] for role in processed.of("AWS::IAM::Role").values()]
    assert "*" not in json.dumps(policies)


def test_every_route_of_the_template_is_imported_with_the_authorizer(processed: Processed) -> None:
    body = ApiBody.model_validate(processed.Resources["IncidentApi"].Properties["Body"])
    imported = {(method.upper(), path) for path, methods in body.paths.items() for method in methods}
    assert imported == {(route.method, route.path) for route in template.load().routes()}
    operations = [operation for methods in body.paths.values() for operation in methods.values()]
    assert all(operation.security == [{"AccessKey": []}] for operation in operations)


def test_the_gateway_may_call_each_function_for_its_routes_alone(processed: Processed) -> None:
    for permission in processed.of("AWS::Lambda::Permission").values():
        assert permission["Action"] == "lambda:InvokeFunction"
        assert permission["Principal"] == "apigateway.amazonaws.com"
    sources = re.findall(r"\$\{__Stage__\}/(.*?)\"", json.dumps(list(processed.of("AWS::Lambda::Permission").values())))
    wanted = {f"{route.method}{re.sub('{.*?}', '*', route.path)}" for route in template.load().routes()}
    assert set(sources) == wanted


def test_the_gateway_may_call_the_authorizer(processed: Processed) -> None:
    permissions = [
        permission
        for permission in processed.of("AWS::Lambda::Permission").values()
        if permission["FunctionName"] == {"Fn::GetAtt": ["AuthorizeFunction", "Arn"]}
    ]
    assert len(permissions) == 2  # for each header
    assert all("${__ApiId__}/authorizers/*" in json.dumps(permission["SourceArn"]) for permission in permissions)


@pytest.mark.parametrize("function", sorted(template.load().functions(**INTEGRATIONS)))
def test_a_functions_package_is_the_core_and_its_own_room(deployed: Aws, function: str) -> None:
    source = ROOT / "functions"
    *room, _ = template.load().functions(**INTEGRATIONS)[function].Handler.split(".")[:-1]
    package = deployed.folder / "build" / function
    expected = [*source.glob("*.py"), *(source / "/".join(room)).glob("*.py")]
    assert {path.relative_to(package) for path in package.rglob("*.py")} == {
        each.relative_to(source) for each in expected
    }


def test_the_stage_is_throttled_and_logs_no_body_header_or_query(processed: Processed) -> None:
    (stage,) = processed.of("AWS::ApiGatewayV2::Stage").values()
    assert stage["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "RequestsPerSecond"},
        "ThrottlingBurstLimit": {"Ref": "RequestsAtOnce"},
    }
    settings = stage["AccessLogSettings"]
    assert isinstance(settings, dict)
    assert settings["DestinationArn"] == {"Fn::GetAtt": ["AccessLog", "Arn"]}
    assert set(json.loads(str(settings["Format"])).values()) == {
        "$context.requestTime",
        "$context.requestId",
        "$context.authorizer.caller",
        "$context.authorizer.reason",
        "$context.identity.sourceIp",
        "$context.routeKey",
        "$context.status",
        "$context.responseLatency",
        "$context.integrationLatency",
        "$context.error.message",
        "$context.integrationErrorMessage",
    }


def test_logs_are_json_and_do_not_stay_for_ever(processed: Processed) -> None:
    for group in processed.of("AWS::Logs::LogGroup").values():
        assert group["RetentionInDays"] == {"Ref": "LogDays"}
    for function in processed.of("AWS::Lambda::Function").values():
        assert function["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": {"Ref": "FunctionsLog"}}


@pytest.mark.parametrize("name", [template.TABLE, "KeysTable"])
def test_a_table_is_recoverable_and_hard_to_delete(deployed: Aws, processed: Processed, name: str) -> None:
    table = processed.Resources[name]
    assert (table.DeletionPolicy, table.UpdateReplacePolicy) == ("Retain", "Retain")
    assert table.Properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    with pytest.raises(ClientError, match="protected against deletion"):
        deployed.dynamodb.delete_table(TableName=deployed.resource(name))


def test_every_alarm_says_what_to_do_and_tells_the_topic(deployed: Aws) -> None:
    alarms = boto3.client("cloudwatch", endpoint_url=deployed.endpoint).describe_alarms()["MetricAlarms"]
    assert Counter(alarm["MetricName"] for alarm in alarms) == {
        "5xx": 1,
        "Latency": 1,
        "Errors": len(FUNCTIONS),
        "Throttles": len(FUNCTIONS),
        "Refusals": 1,
        "WriteThrottleEvents": 2,
        "ReadThrottleEvents": 2,
    }
    ours = {deployed.table, *map(deployed.resource, ("IncidentApi", *FUNCTIONS))}
    metrics = f"IncidentApi/{deployed.stack}"
    for alarm in alarms:
        assert len(alarm["AlarmDescription"]) > 50
        assert alarm["AlarmActions"] == [deployed.output("AlarmTopicArn")]
        assert alarm["Namespace"] == metrics or alarm["Dimensions"][0]["Value"] in ours


def test_the_dashboard_shows_only_what_there_is(deployed: Aws) -> None:
    cloudwatch = boto3.client("cloudwatch", endpoint_url=deployed.endpoint)
    name = deployed.output("Dashboard").rpartition("/")[2]
    body = cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"]
    assert len(json.loads(body)["widgets"]) == 10
    assert "${" not in body.replace("${PROP(", "")
    for name in (deployed.table, *map(deployed.resource, ("IncidentApi", *FUNCTIONS))):
        assert f'"{name}"' in body
    # Those of another stack in the account are not shown.
    namespaces = set(re.findall(r'Namespace=."(.+?)."', json.loads(json.dumps(body))))
    assert namespaces == {f"IncidentApi/{deployed.stack}"}


# ---- what happens over time


def test_a_second_deployment_keeps_the_incidents(deployed: Aws) -> None:
    address = deployed.output("ApiUrl")
    with deployed.client() as api:
        incidents = [report(api, f"number {number}") for number in range(3)]
    deployed.deploy(StatusShards="4", LogDays="7")
    assert deployed.output("ApiUrl") == address
    with deployed.client() as api:
        for incident in incidents:
            assert api.get(f"/incidents/{incident['id']}").json() == incident
        more = [report(api, f"number {number}") for number in range(8)]
        listed = {incident["id"] for incident in api.get("/incidents?limit=100").json()}
        assert listed >= {incident["id"] for incident in incidents + more}
    rows = deployed.dynamodb.scan(TableName=deployed.table)["Items"]
    assert len({row["status_shard"]["S"] for row in rows}) > 1


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

    def detail() -> str:
        with deployed.client() as api:
            return str(api.get("/incidents/1").json()["detail"])

    def log_days() -> str:
        (stack,) = deployed.cloudformation.describe_stacks(StackName=deployed.stack)["Stacks"]
        return next(each["ParameterValue"] for each in stack["Parameters"] if each["ParameterKey"] == "LogDays")

    with deployed.client() as api:
        incident = report(api)
    before = detail(), log_days()
    deployed.deploy(tmp_path, LogDays="14")
    assert (detail(), log_days()) == ("next", "14")
    # A parameter that is not named keeps its value, so the old value has to be named.
    deployed.deploy(LogDays=before[1])
    assert (detail(), log_days()) == before
    with deployed.client() as api:
        assert api.get(f"/incidents/{incident['id']}").json() == incident


def test_a_stack_can_go_on_with_the_table_of_another(deployed: Aws) -> None:
    second = replace(deployed, stack="incident-api-second")
    with deployed.client() as api:
        incident = report(api, "recorded in the first")
    second.deploy(Table=deployed.table)
    path = f"/incidents/{incident['id']}"
    for stack, key in ((deployed, second.operators_key), (second, deployed.operators_key)):
        with stack.client(key) as stranger:
            assert call(stranger, "GET /incidents") == REFUSED, "an access key of another stack"
    with deployed.client() as api, second.client() as other:
        assert other.get(path).json() == incident
        changed = other.patch(path, json={"status": "closed"}).json()
        assert other.get("/incidents?status=closed&limit=1").json() == [changed]
        assert api.get(path).json() == changed
        created = report(other, "recorded in the second")
        assert api.get(f"/incidents/{created['id']}").json() == created
    assert second.table == deployed.table
    with pytest.raises(ClientError, match=template.TABLE):
        second.resource(template.TABLE)
    alarms = boto3.client("cloudwatch", endpoint_url=deployed.endpoint).describe_alarms()["MetricAlarms"]
    watched = Counter(alarm["Dimensions"][0]["Value"] for alarm in alarms if alarm["Namespace"] == "AWS/DynamoDB")
    assert watched == {deployed.table: 8}
    second.remove()
    with deployed.client() as api:
        assert api.get(path).json() == changed


def test_a_stack_switches_to_another_table_and_back(deployed: Aws) -> None:
    """As after a restore: the parameter alone changes; neither table is touched."""
    own = deployed.table
    with deployed.client() as api:
        incident = report(api)
    description = deployed.dynamodb.describe_table(TableName=own)["Table"]
    (index,) = description["GlobalSecondaryIndexes"]
    deployed.dynamodb.create_table(
        TableName="restored",
        AttributeDefinitions=description["AttributeDefinitions"],
        KeySchema=description["KeySchema"],
        BillingMode="PAY_PER_REQUEST",
        GlobalSecondaryIndexes=[
            {"IndexName": index["IndexName"], "KeySchema": index["KeySchema"], "Projection": index["Projection"]}
        ],
    )
    path = f"/incidents/{incident['id']}"
    deployed.set_parameter("Table", "restored")
    with deployed.client() as api:
        assert api.get(path).status_code == 404
        later = report(api, "in the restored table")
        assert api.get("/incidents").json() == [later]
    # From here on the stack has no table of its own any more: an empty name would make a new one.
    deployed.set_parameter("Table", own)
    with deployed.client() as api:
        assert api.get(path).json() == incident
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
