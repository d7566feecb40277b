"""What template.yaml says of the routes, the functions' environment and the table: it is read, not repeated."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import yaml
from pydantic import BaseModel, JsonValue, TypeAdapter

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import CreateTableInputTypeDef

PATH = Path(__file__).parents[2] / "template.yaml"
TABLE = "IncidentsTable"


class Route(NamedTuple):
    """A route of the HTTP API and what answers it."""

    method: str
    path: str
    function: str
    handler: str

    @property
    def key(self) -> str:
        """The route as AWS writes it: `GET /incidents/{id}`."""
        return f"{self.method} {self.path}"

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The path's parameters, if the route is the request's. A path is matched strictly, slash for slash."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path)
        found = re.fullmatch(pattern, path) if method == self.method else None
        return found.groupdict() if found else None


class _Parameter(BaseModel):
    Default: str | int = ""


class _Resource(BaseModel):
    Type: str
    Properties: dict[str, JsonValue]


class Template(BaseModel):
    """The template, its intrinsic functions in the long form: `{"Ref": "IncidentsTable"}`."""

    Parameters: dict[str, _Parameter]
    Globals: dict[str, dict[str, JsonValue]]
    Resources: dict[str, _Resource]

    @property
    def routes(self) -> list[Route]:
        """Every route that one of the functions declares."""
        return [
            Route(event.Properties.Method, event.Properties.Path, name, function.Handler)
            for name, resource in self.Resources.items()
            if resource.Type == "AWS::Serverless::Function"
            for function in [_Function.model_validate(resource.Properties)]
            for event in function.Events.values()
        ]

    def environment(self, **parameters: str) -> dict[str, str]:
        """The variables that every function is given, with these values for the stack's parameters."""
        variables = _Environment.validate_python(self.Globals["Function"]["Environment"])["Variables"]
        return {name: self._resolve(value, parameters) for name, value in variables.items()}

    def table(self) -> "CreateTableInputTypeDef":
        """The request that creates the table. A local table's name is its logical id, as it is under `sam local`."""
        asked = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        properties = self.Resources[TABLE].Properties
        return cast("CreateTableInputTypeDef", {"TableName": TABLE} | {name: properties[name] for name in asked})

    def _resolve(self, value: str | dict[str, str], parameters: dict[str, str]) -> str:
        if isinstance(value, str):
            return value
        name = value["Ref"]
        if name in self.Parameters:
            return parameters.get(name, str(self.Parameters[name].Default))
        return name


class _EventProperties(BaseModel):
    Method: str
    Path: str


class _Event(BaseModel):
    Properties: _EventProperties


class _Function(BaseModel):
    Handler: str
    Events: dict[str, _Event]


_Environment = TypeAdapter(dict[str, dict[str, str | dict[str, str]]])


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's tags."""


def _intrinsic(loader: _Loader, name: str, node: yaml.Node) -> dict[str, object]:
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(cast("yaml.MappingNode", node), deep=True)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _intrinsic)


def load() -> Template:
    """The template as it is on disk."""
    return Template.model_validate(yaml.load(PATH.read_text(), _Loader))  # noqa: S506 (it is a SafeLoader)
