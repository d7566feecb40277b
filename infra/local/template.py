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

    @property
    def specificity(self) -> list[int]:
        """Sorts the more specific of two routes first: a literal segment before `{id}`, and `{id}` before `{proxy+}`.

        https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
        """
        return [segment.startswith("{") + segment.endswith("+}") for segment in self.path.split("/")]

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The values of the path's variables, or None where the route does not match the request.

        `{id}` matches one segment that is not empty, `{proxy+}` any rest of the path, an empty one too.
        """
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path)
        pattern = re.sub(r"\{(\w+)\+\}", r"(?P<\1>.*)", pattern)
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
    Conditions: dict[str, JsonValue] = {}
    Globals: dict[str, dict[str, JsonValue]]
    Resources: dict[str, _Resource]

    @property
    def routes(self) -> list[Route]:
        """The routes of the functions, in the order in which API Gateway tries them."""
        routes = [
            Route(event.Properties.Method, event.Properties.Path, name, function.Handler)
            for name, resource in self.Resources.items()
            if resource.Type == "AWS::Serverless::Function"
            for function in [_Function.model_validate(resource.Properties)]
            for event in function.Events.values()
        ]
        return sorted(routes, key=lambda route: route.specificity)

    def environment(self, **parameters: str) -> dict[str, str]:
        """The variables that every function is given, with these values for the stack's parameters."""
        variables = _Environment.validate_python(self.Globals["Function"]["Environment"])["Variables"]
        return {name: str(self._resolve(value, parameters)) for name, value in variables.items()}

    def table(self) -> "CreateTableInputTypeDef":
        """The request that creates the table. A local table's name is its logical id, as it is under `sam local`."""
        asked = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")
        properties = self.Resources[TABLE].Properties
        return cast("CreateTableInputTypeDef", {"TableName": TABLE} | {name: properties[name] for name in asked})

    def _resolve(self, value: JsonValue, parameters: dict[str, str]) -> JsonValue:
        """Evaluate the intrinsic functions that the template uses. A resource's name is its logical id."""
        match value:
            case {"Ref": "AWS::StackName"}:
                return "local"
            case {"Ref": str(name)} if name in self.Parameters:
                return parameters.get(name, str(self.Parameters[name].Default))
            case {"Ref": name}:
                return name
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{([\w:]+)\}", lambda found: str(self._resolve({"Ref": found[1]}, parameters)), text)
            case {"Fn::If": [str(condition), then, otherwise]}:
                chosen = then if self._resolve(self.Conditions[condition], parameters) else otherwise
                return self._resolve(chosen, parameters)
            case {"Fn::Equals": [left, right]}:
                return self._resolve(left, parameters) == self._resolve(right, parameters)
            case dict():
                raise NotImplementedError(f"{value} in the template")
            case _:
                return value


class _EventProperties(BaseModel):
    Method: str
    Path: str


class _Event(BaseModel):
    Properties: _EventProperties


class _Function(BaseModel):
    Handler: str
    Events: dict[str, _Event]


_Environment = TypeAdapter(dict[str, dict[str, JsonValue]])


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


def read(path: Path) -> dict[str, JsonValue]:
    """A template as it is on disk, its intrinsic functions in the long form."""
    parsed: dict[str, JsonValue] = yaml.load(path.read_text(), _Loader)  # noqa: S506 (it is a SafeLoader)
    return parsed


def load() -> Template:
    """The stack's template as it is on disk."""
    return Template.model_validate(read(PATH))
