"""An emulated AWS, the stack that the SAM CLI deploys to it, and clients with access keys."""

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
"""The name of the caller that every client is unless it has another access key."""
SAM = ["sam"] if shutil.which("sam") else [str(ROOT / ".venv-sam/bin/python"), "-m", "samcli"]


Answer = tuple[int, JsonValue]
UNAUTHORIZED: Answer = (401, {"message": "Unauthorized"})
"""The gateway's, without asking the authorizer."""
FORBIDDEN: Answer = (403, {"message": "Forbidden"})
"""The gateway's, after the authorizer refused."""


def answer(client: httpx.Client, route: str, **headers: str) -> Answer:
    """The status and the body of the response to a request of this route."""
    method, path = route.replace("{id}", "9999").replace("{proxy+}", "x/y").split()
    response = client.request(method, path, json={} if method != "GET" else None, headers=headers)
    return response.status_code, response.json() if response.content else None


class To(httpx.HTTPTransport):
    """Sends every request to one server, whatever host it is for, as curl's `--connect-to` does."""

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
    """The OpenAPI document that SAM makes of the routes and their authorizers."""

    paths: dict[str, dict[str, _Method]]
    authorizers: dict[str, _Authorizer] = Field(validation_alias=AliasPath("components", "securitySchemes"))


class Resource(BaseModel):
    """A resource of a template that CloudFormation has processed."""

    Type: str
    Properties: dict[str, JsonValue]


class Processed(BaseModel):
    """A template, its macros run."""

    Resources: dict[str, Resource]

    def of(self, type: str) -> dict[str, dict[str, JsonValue]]:
        """The properties of every resource of this type, by the resource's name."""
        return {name: each.Properties for name, each in self.Resources.items() if each.Type == type}


def _decided(value: JsonValue, conditions: dict[str, bool]) -> JsonValue:
    """A part of a template without `Fn::If`, and without the resources whose condition is false."""
    match value:
        case {"Fn::If": [str(condition), then, otherwise]}:
            return _decided(then if conditions[condition] else otherwise, conditions)
        case dict():
            decided = {name: _decided(each, conditions) for name, each in value.items() if _exists(each, conditions)}
            return {name: each for name, each in decided.items() if each != {"Ref": "AWS::NoValue"}}
        case list():
            return [_decided(each, conditions) for each in value]
        case _:
            return value


def _exists(resource: JsonValue, conditions: dict[str, bool]) -> bool:
    condition = resource.get("Condition") if isinstance(resource, dict) else None
    return conditions[condition] if isinstance(condition, str) else True


@dataclass
class Aws:
    """The emulated AWS, with a stack."""

    endpoint: str
    folder: Path
    stack: str = "incident-api"

    def __post_init__(self) -> None:
        self.cloudformation = boto3.client("cloudformation", endpoint_url=self.endpoint)
        self.dynamodb = boto3.client("dynamodb", endpoint_url=self.endpoint)
        self.iam = boto3.client("iam", endpoint_url=self.endpoint)

    def _sam(self, *arguments: str, folder: Path = ROOT) -> None:
        environment = os.environ | {"AWS_ENDPOINT_URL": self.endpoint, "SAM_CLI_TELEMETRY": "0"}
        subprocess.run([*SAM, *arguments], cwd=folder, env=environment, check=True)

    def deploy(self, source: Path = ROOT, /, **parameters: str) -> None:
        """Build the stack from this folder and deploy it; a parameter that is not named keeps its value."""
        parameters |= {"Architecture": ARCHITECTURE}  # they run on this machine
        overrides = ["--parameter-overrides", *(f'{name}="{value}"' for name, value in parameters.items())]
        build = self.folder / "build"
        self._sam("build", "--build-dir", str(build), *overrides, folder=source)
        _replace_metric_math(build / "Monitoring/template.yaml")
        arguments = ["--template", str(build / "template.yaml"), "--config-file", str(source / "samconfig.toml")]
        self._sam("deploy", "--no-confirm-changeset", "--stack-name", self.stack, *arguments, *overrides)
        self._add_routes()

    def set_parameters(self, **values: str) -> None:
        """Change parameters of the stack, from here on without its alarms.

        On AWS `sam deploy` does it. With this emulator, `sam deploy` finds nothing to change where only a condition's result
        does, and a nested stack whose parameters change cannot be updated.
        """
        self._update(self._without_monitoring(), values)

    def remove(self) -> None:
        """Delete the stack."""
        # The SAM CLI begins with what it uploaded, and takes the emulator's address of the nested template for no S3
        # address: the nested stack goes first.
        if "Monitoring" in self._template()["Resources"]:
            self._update(self._without_monitoring(), {})
        self._sam("delete", "--stack-name", self.stack, "--region", REGION, "--no-prompts")

    def _template(self) -> dict[str, dict[str, JsonValue]]:
        original = self.cloudformation.get_template(StackName=self.stack, TemplateStage="Original")["TemplateBody"]
        template: dict[str, dict[str, JsonValue]] = yaml.safe_load(str(original))
        return template

    def _without_monitoring(self) -> dict[str, dict[str, JsonValue]]:
        template = self._template()
        for name in ("Monitoring", "AlarmsToTelegram", "AlarmsToTelegramPermission"):
            template["Resources"].pop(name, None)
        for name in ("Dashboard", "AlarmTopicArn"):
            template["Outputs"].pop(name, None)
        return template

    def _update(self, template: dict[str, dict[str, JsonValue]], changed: dict[str, str]) -> None:
        self.cloudformation.update_stack(
            StackName=self.stack,
            TemplateBody=yaml.safe_dump(template),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[
                {"ParameterKey": name, "ParameterValue": changed[name]}
                if name in changed
                else {"ParameterKey": name, "UsePreviousValue": True}
                for name in template["Parameters"]
            ],
        )
        self.cloudformation.get_waiter("stack_update_complete").wait(StackName=self.stack, WaiterConfig={"Delay": 1})

    def processed(self) -> Processed:
        """The deployed template, its conditions decided by the stack's parameters."""
        deployed = self.cloudformation.get_template(StackName=self.stack, TemplateStage="Processed")
        declared = template.load()
        conditions = {name: declared.holds(name, **self.parameters) for name in declared.Conditions}
        return Processed.model_validate(_decided(cast("JsonValue", deployed["TemplateBody"]), conditions))

    @property
    def parameters(self) -> dict[str, str]:
        """The values of the stack's parameters."""
        (stack,) = self.cloudformation.describe_stacks(StackName=self.stack)["Stacks"]
        return {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}

    def output(self, name: str) -> str:
        """An output of the stack."""
        (stack,) = self.cloudformation.describe_stacks(StackName=self.stack)["Stacks"]
        return next(output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == name)

    def resource(self, name: str) -> str:
        """What a resource of the stack is called in AWS."""
        found = self.cloudformation.describe_stack_resource(StackName=self.stack, LogicalResourceId=name)
        return found["StackResourceDetail"]["PhysicalResourceId"]

    @property
    def table(self) -> str:
        return self.output("TableName")

    @property
    def address(self) -> str:
        """The URL at which the emulator answers for the API to a client that resolves no names of AWS."""
        return f"{self.endpoint}/_aws/execute-api/{self.resource('IncidentApi')}"

    def make(self, *arguments: str, typed: str = "") -> str:
        """Run make with the administrator's credentials; return what it printed."""
        command = ["make", "--silent", *arguments, f"STACK={self.stack}"]
        # The region as the page on deploying names it: botocore alone reads another variable.
        environment = os.environ | {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": REGION}
        environment.pop("AWS_DEFAULT_REGION")
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, input=typed, stdout=subprocess.PIPE, text=True, check=True
        )
        return ran.stdout

    def make_key(self, name: str, role: str, source: str = "") -> str:
        """A new access key."""
        key, end, rest = self.make("key", f"NAME={name}", f"ROLE={role}", f"SOURCE={source}").partition("\n")
        assert (end, rest) == ("\n", ""), "more than the key on the standard output"
        return key

    @cached_property
    def operators_key(self) -> str:
        """The access key of `OPERATOR`, whose role is operator."""
        return self.make_key(OPERATOR, "operator")

    def client(self, key: str | None = None) -> httpx.Client:
        """A client of the API at the URL that the stack says, with this access key, or with an operator's."""
        return self.anonymous_client({"Authorization": f"Bearer {key or self.operators_key}"})

    def anonymous_client(self, headers: dict[str, str] | None = None) -> httpx.Client:
        """A client of the API with these headers, and no access key but one that they contain."""
        transport = To(self.endpoint)
        return httpx.Client(base_url=self.output("ApiUrl"), headers=headers, transport=transport, timeout=30)

    def _add_routes(self) -> None:
        # The emulator does not read the document that holds the routes of an API.
        gateway = boto3.client("apigatewayv2", endpoint_url=self.endpoint)
        api = self.resource("IncidentApi")
        if gateway.get_routes(ApiId=api)["Items"]:
            return
        body = _ApiBody.model_validate(self.processed().Resources["IncidentApi"].Properties["Body"])
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

    def _function_arn(self, uri: JsonValue) -> str:
        """The function that a URI of the template names."""
        (function,) = re.findall(r"(\w+Function)\b", json.dumps(uri))
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.resource(function)}"


def _replace_metric_math(path: Path) -> None:
    """Let alarms on several metrics watch one, since the emulator refuses the others."""
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
    """AWS on a free port of this machine, with the stack deployed; gone without a trace in the end."""
    with TemporaryDirectory() as folder:
        port = free_port()
        environment = {
            "AUTH": "true",
            # The administrator's credentials are those that the tests have.
            "AWS_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "false",
            # The API answers under the very name that AWS would give it.
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
