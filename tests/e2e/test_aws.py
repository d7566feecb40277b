"""What only a deployment shows. The behaviour tests run against it besides, with `--on aws`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore import xform_name
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from pydantic import JsonValue

from infra.local import template
from tests.e2e.aws import REGION, ROOT, ApiBody, Aws, Processed
from tests.steps import report

FUNCTIONS = sorted({route.function for route in template.load().routes()})
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


def user(aws: Aws, name: str, *policies: str) -> Credentials:
    """The keys of a new IAM user that has these of the stack's policies."""
    aws.iam.create_user(UserName=name)
    for policy in policies:
        aws.iam.attach_user_policy(UserName=name, PolicyArn=aws.output(policy))
    key = aws.iam.create_access_key(UserName=name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def answers(aws: Aws, credentials: Credentials | None) -> list[int]:
    """The status of a call of each route: create, create with a slash, list, list with a slash, read, change."""
    with aws.client() as administrator:
        path = f"/incidents/{report(administrator)['id']}"
    with aws.client(credentials) as client:
        calls = [
            client.post("/incidents", json=GOOD),
            client.post("/incidents/", json=GOOD),
            client.get("/incidents"),
            client.get("/incidents/"),
            client.get(path),
            client.patch(path, json={"status": "closed"}),
        ]
    return [call.status_code for call in calls]


def test_an_operator_may_call_every_route(deployed: Aws) -> None:
    assert answers(deployed, user(deployed, "operator", "OperatorPolicyArn")) == [201, 201, 200, 200, 200, 200]


def test_a_reporter_may_create_and_nothing_else(deployed: Aws) -> None:
    assert answers(deployed, user(deployed, "reporter", "ReporterPolicyArn")) == [201, 201, 403, 403, 403, 403]


def test_nobody_else_may_call_anything(deployed: Aws) -> None:
    stranger = user(deployed, "stranger")
    forged = Credentials(user(deployed, "victim", "OperatorPolicyArn").access_key, "a guess")
    for credentials in (None, stranger, forged):
        assert answers(deployed, credentials) == [403] * 6


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_readme_shows_how_to_sign_a_call(deployed: Aws, language: str) -> None:
    (code,) = re.findall(rf"```{language}\n(.*?)```", (ROOT / "infra/README.md").read_text(), re.DOTALL)
    reporter = user(deployed, f"reporter-in-{language}", "ReporterPolicyArn")
    environment = {
        "API": f"{deployed.endpoint}/_aws/execute-api/{deployed.resource('IncidentApi')}",
        "AWS_ACCESS_KEY_ID": reporter.access_key,
        "AWS_SECRET_ACCESS_KEY": reporter.secret_key,
        "AWS_REGION": REGION,
        "PATH": os.environ["PATH"],
    }
    interpreter = {"sh": "sh", "python": sys.executable}[language]
    ran = subprocess.run([interpreter, "-c", code], env=environment, stdout=subprocess.PIPE, check=True)
    assert json.loads(ran.stdout)["description"] == "Самокат #4567 не отвечает"


# ---- what the functions may do

ACTIONS: dict[str, dict[str, JsonValue]] = {
    "PutItem": {"Item": {"id": {"S": "1"}}},
    "GetItem": {"Key": {"id": {"S": "1"}}},
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


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("CreateIncidentRole", {"PutItem"}),
        ("ReadIncidentsRole", {"GetItem", "Query index"}),
        ("UpdateIncidentRole", {"UpdateItem"}),
    ],
)
def test_a_role_allows_its_own_actions_on_the_table_and_no_others(deployed: Aws, role: str, allowed: set[str]) -> None:
    arn = deployed.iam.get_role(RoleName=deployed.resource(role))["Role"]["Arn"]
    sts = boto3.client("sts", endpoint_url=deployed.endpoint)
    keys = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    dynamodb = boto3.client(
        "dynamodb",
        endpoint_url=deployed.endpoint,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )

    def may(action: str, table: str) -> bool:
        operation = action.partition(" ")[0]
        try:
            getattr(dynamodb, xform_name(operation))(TableName=table, **ACTIONS[action])
        except ClientError as error:
            return error.response["Error"]["Code"] != "AccessDeniedException"
        return True

    assert {action for action in ACTIONS if may(action, deployed.table)} == allowed
    assert not {action for action in ACTIONS if may(action, "another-table")}
    deployed.dynamodb.delete_item(TableName=deployed.table, Key={"id": {"S": "1"}})


# ---- what is deployed, as far as the emulator does not act on it


def test_the_stack_is_three_functions_and_what_they_need(processed: Processed) -> None:
    assert Counter(resource.Type for resource in processed.Resources.values()) == {
        "AWS::ApiGatewayV2::Api": 1,
        "AWS::ApiGatewayV2::Stage": 1,
        "AWS::Lambda::Function": 3,
        "AWS::Lambda::LayerVersion": 1,
        "AWS::Lambda::Permission": 6,
        "AWS::DynamoDB::Table": 1,
        "AWS::IAM::Role": 3,
        "AWS::IAM::ManagedPolicy": 3,
        "AWS::Logs::LogGroup": 2,
        "AWS::CloudFormation::Stack": 1,
    }


def test_no_policy_is_wider_than_its_use(processed: Processed) -> None:
    policies = [policy["PolicyDocument"] for policy in processed.of("AWS::IAM::ManagedPolicy").values()]
    policies += [role["Policies"] for role in processed.of("AWS::IAM::Role").values()]
    stars = re.findall(r'"([^"]*\*[^"]*)"', json.dumps(policies))
    # A star stands for an incident's id, and for what follows a slash.
    assert {star.partition("$default/")[2] for star in stars} == {
        "POST/incidents/*",
        "GET/incidents/*",
        "PATCH/incidents/*",
    }


def test_every_route_of_the_template_is_imported(processed: Processed) -> None:
    body = ApiBody.model_validate(processed.Resources["IncidentApi"].Properties["Body"])
    imported = {(method.upper(), path) for path, methods in body.paths.items() for method in methods}
    assert imported == {(route.method, route.path) for route in template.load().routes()}


def test_the_gateway_may_call_each_function_for_its_routes_alone(processed: Processed) -> None:
    for permission in processed.of("AWS::Lambda::Permission").values():
        assert permission["Action"] == "lambda:InvokeFunction"
        assert permission["Principal"] == "apigateway.amazonaws.com"
    sources = re.findall(r"\$\{__Stage__\}/(.*?)\"", json.dumps(list(processed.of("AWS::Lambda::Permission").values())))
    wanted = {f"{route.method}{re.sub('{.*?}', '*', route.path)}" for route in template.load().routes()}
    assert set(sources) == wanted


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
        "$context.identity.userArn",
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


def test_the_table_is_recoverable_and_hard_to_delete(deployed: Aws, processed: Processed) -> None:
    table = processed.Resources[template.TABLE]
    assert (table.DeletionPolicy, table.UpdateReplacePolicy) == ("Retain", "Retain")
    assert table.Properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    with pytest.raises(ClientError, match="protected against deletion"):
        deployed.dynamodb.delete_table(TableName=deployed.table)


def test_every_alarm_says_what_to_do_and_tells_the_topic(deployed: Aws) -> None:
    alarms = boto3.client("cloudwatch", endpoint_url=deployed.endpoint).describe_alarms()["MetricAlarms"]
    assert Counter(alarm["MetricName"] for alarm in alarms) == {
        "5xx": 1,
        "Latency": 1,
        "Errors": len(FUNCTIONS),
        "Throttles": len(FUNCTIONS),
        "WriteThrottleEvents": 2,
        "ReadThrottleEvents": 2,
    }
    ours = {deployed.table, *map(deployed.resource, ("IncidentApi", *FUNCTIONS))}
    for alarm in alarms:
        assert len(alarm["AlarmDescription"]) > 50
        assert alarm["AlarmActions"] == [deployed.output("AlarmTopicArn")]
        assert alarm["Dimensions"][0]["Value"] in ours


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


def test_removing_the_stack_leaves_the_table(deployed: Aws) -> None:
    with deployed.client() as api:
        incident = report(api)
    table = deployed.table
    deployed.remove()
    assert deployed.dynamodb.get_item(TableName=table, Key={"id": {"S": incident["id"]}})["Item"]
    with pytest.raises(ClientError, match="does not exist"):
        deployed.output("ApiUrl")
