"""An emulated AWS, stacks that the SAM CLI deploys to it, and clients with access keys."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import boto3
import httpx
import yaml
from botocore.config import Config
from pydantic import AliasPath, BaseModel, Field, JsonValue

from infra.local import template
from infra.local.sam import ARCHITECTURE

ROOT = Path(__file__).parents[2]
REGION = "eu-central-1"
ACCOUNT = "000000000000"
OPERATOR = "operator"
"""The caller's name of the clients' default access key."""
TELEGRAM_HEADER = "X-Telegram-Bot-Api-Secret-Token"
SAM = ["sam"] if shutil.which("sam") else [str(ROOT / ".venv-sam/bin/python"), "-m", "samcli"]

Answer = tuple[int, JsonValue]
UNAUTHORIZED: Answer = (401, {"message": "Unauthorized"})
"""The gateway's response without asking the authorizer."""
FORBIDDEN: Answer = (403, {"message": "Forbidden"})
"""The gateway's response after the authorizer's refusal."""


def answer(client: httpx.Client, route: str) -> Answer:
    """The status and body of the response to a request of this route."""
    method, path = route.replace("{id}", "9999").replace("{proxy+}", "x/y").split()
    response = client.request(method, path, json={} if method != "GET" else None)
    return response.status_code, response.json() if response.content else None


class To(httpx.HTTPTransport):
    """Sends every request to one server, whatever its host, like curl's `--connect-to`."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self._endpoint = httpx.URL(endpoint)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        end = self._endpoint
        request.url = request.url.copy_with(scheme=end.scheme, host=end.host, port=end.port)
        return super().handle_request(request)


_METHOD, _SCHEME = "x-amazon-apigateway-integration", "x-amazon-apigateway-authorizer"


class _Method(BaseModel):
    uri: JsonValue = Field(validation_alias=AliasPath(_METHOD, "uri"))
    security: list[dict[str, list[str]]]


class _Authorizer(BaseModel):
    uri: JsonValue = Field(validation_alias=AliasPath(_SCHEME, "authorizerUri"))
    ttl: int = Field(validation_alias=AliasPath(_SCHEME, "authorizerResultTtlInSeconds"))
    identity_source: list[str] = Field(validation_alias=AliasPath(_SCHEME, "identitySource"))
    payload_format: str = Field(validation_alias=AliasPath(_SCHEME, "authorizerPayloadFormatVersion"))
    simple_responses: bool = Field(validation_alias=AliasPath(_SCHEME, "enableSimpleResponses"))


class _ApiBody(BaseModel):
    """The OpenAPI document into which SAM puts the API's routes and authorizers."""

    paths: dict[str, dict[str, _Method]]
    authorizers: dict[str, _Authorizer] = Field(validation_alias=AliasPath("components", "securitySchemes"))


def _decided(value: JsonValue, conditions: dict[str, bool]) -> JsonValue:
    """The value without `Fn::If` and `AWS::NoValue`."""
    match value:
        case {"Fn::If": [str(condition), then, otherwise]}:
            return _decided(then if conditions[condition] else otherwise, conditions)
        case dict():
            decided = {name: _decided(each, conditions) for name, each in value.items()}
            return {name: each for name, each in decided.items() if each != {"Ref": "AWS::NoValue"}}
        case list():
            return [_decided(each, conditions) for each in value]
        case _:
            return value


@dataclass
class Aws:
    """A stack on the emulated AWS."""

    endpoint: str
    folder: Path
    stack: str = "incident-api"

    def __post_init__(self) -> None:
        self.cloudformation = boto3.client("cloudformation", endpoint_url=self.endpoint)
        self.dynamodb = boto3.client("dynamodb", endpoint_url=self.endpoint)

    def _sam(self, *arguments: str, folder: Path = ROOT) -> None:
        environment = os.environ | {"AWS_ENDPOINT_URL": self.endpoint, "SAM_CLI_TELEMETRY": "0"}
        subprocess.run([*SAM, *arguments], cwd=folder, env=environment, check=True)

    def deploy(self, source: Path = ROOT, /, **parameters: str) -> None:
        """Build and deploy this folder; other parameters keep their values."""
        parameters |= {"Architecture": ARCHITECTURE}  # the functions run on this machine
        overrides = ["--parameter-overrides", *(f'{name}="{value}"' for name, value in parameters.items())]
        build = self.folder / "build"
        self._sam("build", "--build-dir", str(build), *overrides, folder=source)
        _replace_metric_math(build / "Monitoring/template.yaml")
        arguments = ["--template", str(build / "template.yaml"), "--config-file", str(source / "samconfig.toml")]
        self._sam("deploy", "--no-confirm-changeset", "--stack-name", self.stack, *arguments, *overrides)
        self._add_routes()

    def set_parameters(self, **values: str) -> None:
        """Change the stack's parameters and remove its nested stack.

        On AWS, `sam deploy` is enough. On this emulator it overlooks a change that only affects a condition, and cannot
        update a nested stack whose parameters change.
        """
        original = self.cloudformation.get_template(StackName=self.stack, TemplateStage="Original")["TemplateBody"]
        declared: dict[str, dict[str, JsonValue]] = yaml.safe_load(str(original))
        for name in ("Monitoring", "AlarmsToTelegram", "AlarmsToTelegramPermission"):
            declared["Resources"].pop(name, None)
        for name in ("Dashboard", "AlarmTopicArn"):
            declared["Outputs"].pop(name, None)
        self.cloudformation.update_stack(
            StackName=self.stack,
            TemplateBody=yaml.safe_dump(declared),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[
                {"ParameterKey": name, "ParameterValue": values[name]}
                if name in values
                else {"ParameterKey": name, "UsePreviousValue": True}
                for name in declared["Parameters"]
            ],
        )
        self.cloudformation.get_waiter("stack_update_complete").wait(StackName=self.stack, WaiterConfig={"Delay": 1})

    def remove(self) -> None:
        """Delete the stack."""
        # Its nested stack goes first: the SAM CLI does not recognize the emulator's URL of that template as one of S3.
        resources = self.cloudformation.describe_stack_resources(StackName=self.stack)["StackResources"]
        if "Monitoring" in {each["LogicalResourceId"] for each in resources}:
            self.set_parameters()
        self._sam("delete", "--stack-name", self.stack, "--region", REGION, "--no-prompts")

    @property
    def parameters(self) -> dict[str, str]:
        (stack,) = self.cloudformation.describe_stacks(StackName=self.stack)["Stacks"]
        return {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}

    def output(self, name: str) -> str:
        """An output of the stack. Raises `StopIteration`."""
        (stack,) = self.cloudformation.describe_stacks(StackName=self.stack)["Stacks"]
        return next(output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == name)

    def resource(self, name: str) -> str:
        """The physical id of a resource."""
        found = self.cloudformation.describe_stack_resource(StackName=self.stack, LogicalResourceId=name)
        return found["StackResourceDetail"]["PhysicalResourceId"]

    @property
    def table(self) -> str:
        return self.output("TableName")

    @property
    def address(self) -> str:
        """The API's URL on the emulator, for clients that cannot redirect AWS's host names."""
        return f"{self.endpoint}/_aws/execute-api/{self.resource('IncidentApi')}"

    def run_make(self, *arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run make with the administrator's credentials."""
        environment = os.environ | {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": REGION} | environment
        environment.pop("AWS_DEFAULT_REGION")  # which the documentation does not mention
        return subprocess.run(
            ["make", "--silent", f"STACK={self.stack}", *arguments],
            cwd=ROOT,
            env=environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )

    def make(self, *arguments: str, typed: str = "") -> str:
        """Run make, which must succeed; return its output."""
        ran = self.run_make(*arguments, typed=typed)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def make_key(self, name: str, role: str, source: str = "") -> str:
        """A new access key."""
        key, end, rest = self.make("key", f"NAME={name}", f"ROLE={role}", f"SOURCE={source}").partition("\n")
        assert (end, rest) == ("\n", ""), "standard output has more than the key"
        return key

    @cached_property
    def operators_key(self) -> str:
        return self.make_key(OPERATOR, "operator")

    def client(self, key: str | None = None) -> httpx.Client:
        """A client of the stack's `ApiUrl` with this access key, by default an operator's."""
        return self.anonymous_client({"Authorization": f"Bearer {key or self.operators_key}"})

    def anonymous_client(self, headers: dict[str, str] | None = None) -> httpx.Client:
        """A client of the stack's `ApiUrl` with these headers only."""
        transport = To(self.endpoint)
        return httpx.Client(base_url=self.output("ApiUrl"), headers=headers, transport=transport, timeout=30)

    def _add_routes(self) -> None:
        # The emulator does not read an API's routes from its document.
        gateway = boto3.client("apigatewayv2", endpoint_url=self.endpoint)
        api = self.resource("IncidentApi")
        if gateway.get_routes(ApiId=api)["Items"]:
            return
        body = self._api_body()
        authorizers = {
            name: gateway.create_authorizer(
                ApiId=api,
                Name=name,
                AuthorizerType="REQUEST",
                AuthorizerUri=self._function_arn(declared.uri),
                AuthorizerPayloadFormatVersion=declared.payload_format,
                EnableSimpleResponses=declared.simple_responses,
                IdentitySource=declared.identity_source,
                AuthorizerResultTtlInSeconds=declared.ttl,
            )["AuthorizerId"]
            for name, declared in body.authorizers.items()
        }
        for path, methods in body.paths.items():
            for method, operation in methods.items():
                arn = self._function_arn(operation.uri)
                integration = gateway.create_integration(
                    ApiId=api, IntegrationType="AWS_PROXY", IntegrationUri=arn, PayloadFormatVersion="2.0"
                )
                ((authorizer,),) = operation.security
                gateway.create_route(
                    ApiId=api,
                    RouteKey=f"{method.upper()} {path}",
                    AuthorizationType="CUSTOM",
                    AuthorizerId=authorizers[authorizer],
                    Target=f"integrations/{integration['IntegrationId']}",
                )

    def _api_body(self) -> _ApiBody:
        """The deployed API's document, its conditions evaluated for the stack's parameters."""
        processed = self.cloudformation.get_template(StackName=self.stack, TemplateStage="Processed")["TemplateBody"]
        declared, parameters = template.load(), self.parameters
        conditions = {name: declared.holds(name, **parameters) for name in declared.Conditions}
        api = cast("dict[str, dict[str, dict[str, dict[str, JsonValue]]]]", processed)["Resources"]["IncidentApi"]
        return _ApiBody.model_validate(_decided(api["Properties"]["Body"], conditions))

    def _function_arn(self, uri: JsonValue) -> str:
        """The ARN of the function in a URI of the template."""
        (function,) = re.findall(r"(\w+Function)\b", json.dumps(uri))
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.resource(function)}"


def _replace_metric_math(path: Path) -> None:
    """Make alarms on several metrics watch one, because the emulator refuses the others."""
    monitoring = template.read(path)
    for resource in cast("dict[str, dict[str, dict[str, JsonValue]]]", monitoring["Resources"]).values():
        if resource.get("Properties", {}).pop("Metrics", None):
            resource["Properties"] |= {
                "Namespace": "AWS/Lambda",
                "MetricName": "Errors",
                "Statistic": "Sum",
                "Period": 60,
            }
    path.write_text(json.dumps(monitoring))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def emulated() -> Iterator[Aws]:
    """Run AWS on a free port and deploy the stack."""
    with TemporaryDirectory() as folder:
        port = free_port()
        environment = {
            "AUTH": "true",
            # The tests' credentials are the administrator's.
            "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "false",
            # The API has the same host name as on AWS.
            "MINISTACK_HOST": f"{REGION}.amazonaws.com",
            "PATH": os.environ["PATH"],
            "SERVICES": "acm,apigateway,cloudformation,cloudwatch,dynamodb,dynamodbstreams,iam,kms,lambda,logs,s3,scheduler,sns,sqs,ssm,sts",
            "TMPDIR": folder,
        }
        with (Path(folder) / "ministack.log").open("wb") as log:
            command = [str(ROOT / ".venv-sam/bin/python"), "-m", "ministack"]
            emulator = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                endpoint = f"http://127.0.0.1:{port}"
                patient = Config(retries={"mode": "standard", "total_max_attempts": 10})
                boto3.client("sts", endpoint_url=endpoint, config=patient).get_caller_identity()
                aws = Aws(endpoint, Path(folder))
                aws.deploy()
                yield aws
            finally:
                emulator.terminate()
                emulator.wait()
