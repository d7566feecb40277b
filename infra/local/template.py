"""The routes, functions, environment and table that template.yaml declares.

`parameters` are values for the stack's parameters; the others have their defaults. A function exists only if its condition is true
with these values.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import yaml
from pydantic import BaseModel, JsonValue, ValidationError

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import CreateTableInputTypeDef

PATH = Path(__file__).parents[2] / "template.yaml"
TABLE = "IncidentsTable"
PSEUDO_PARAMETERS = {"AWS::StackName": "local", "AWS::URLSuffix": "amazonaws.com"}
"""Those that the functions' environment refers to."""


class Route(NamedTuple):
    method: str
    path: str
    function: str
    handler: str

    @property
    def key(self) -> str:
        """The route key, as AWS writes it: `GET /incidents/{id}`."""
        return f"{self.method} {self.path}"

    @property
    def specificity(self) -> list[int]:
        """Sorts the more specific of two routes first: a literal segment before `{id}`, and `{id}` before `{proxy+}`.

        https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html
        """
        return [segment.startswith("{") + segment.endswith("+}") for segment in self.path.split("/")]

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The values of the path's variables, or None if the route does not match.

        `{id}` matches one non-empty segment, `{proxy+}` the rest of the path, which may be empty.
        """
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path)
        pattern = re.sub(r"\{(\w+)\+\}", r"(?P<\1>.*)", pattern)
        found = re.fullmatch(pattern, path) if method == self.method else None
        return found.groupdict() if found else None


class TemplateError(Exception):
    """The template cannot be used. The message is for the person who started the program."""


class ParameterError(TemplateError):
    """The stack has no such parameter, or does not allow this value."""


def parse_parameters(text: str) -> dict[str, str]:
    """`LogDays=7 RemindAt='rate(1 day)'`, split as a shell does. Raises `ParameterError`."""
    try:
        values = [value.partition("=") for value in shlex.split(text)]
    except ValueError as error:
        raise ParameterError(f"The parameters cannot be read ({error}): {text}") from None
    return {name: value for name, _, value in values}


class _Parameter(BaseModel):
    Type: str = "String"
    Default: str | int = ""
    AllowedValues: list[str | int] | None = None
    AllowedPattern: str = ".*"
    MinValue: int | None = None
    MaxValue: int | None = None

    def rule_broken_by(self, value: str) -> str | None:
        """The rule that a value breaks, as a sentence, if any."""
        if self.AllowedValues and value not in map(str, self.AllowedValues):
            return f"It must be one of {', '.join(map(str, self.AllowedValues))}."
        if not re.fullmatch(self.AllowedPattern, value):
            return f"It must match {self.AllowedPattern}."
        if self.Type == "Number":
            if not re.fullmatch(r"-?\d+", value):
                return "It must be a number."
            if self.MinValue is not None and int(value) < self.MinValue:
                return f"It must be at least {self.MinValue}."
            if self.MaxValue is not None and int(value) > self.MaxValue:
                return f"It must be at most {self.MaxValue}."
        return None


class _Assertion(BaseModel):
    Assert: JsonValue
    AssertDescription: str


class _Rule(BaseModel):
    RuleCondition: JsonValue
    Assertions: list[_Assertion]


class _Resource(BaseModel):
    Type: str
    Condition: str | None = None
    Properties: dict[str, JsonValue]


class _Variables(BaseModel):
    Variables: dict[str, JsonValue] = {}


class _Event(BaseModel):
    Type: str
    Properties: dict[str, JsonValue] = {}


class Function(BaseModel):
    """A Lambda function, including the template's globals."""

    Handler: str
    Timeout: int = 3
    """Seconds. Lambda's default is 3."""
    Environment: _Variables = _Variables()
    Events: dict[str, _Event] = {}


class Cors(BaseModel):
    """What web pages of other origins may send and read."""

    AllowOrigins: list[str]
    AllowMethods: list[str]
    AllowHeaders: list[str]
    ExposeHeaders: list[str]
    MaxAge: int


M = TypeVar("M", bound=BaseModel)


def _checked(model: type[M], value: object) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise TemplateError(f"The template cannot be used: {' '.join(str(error).split())}") from error


class Template(BaseModel):
    """The template, with intrinsic functions in their long form: `{"Ref": "IncidentsTable"}`."""

    Parameters: dict[str, _Parameter]
    Rules: dict[str, _Rule] = {}
    Conditions: dict[str, JsonValue] = {}
    Globals: dict[str, dict[str, JsonValue]]
    Resources: dict[str, _Resource]

    def check(self, parameters: Mapping[str, str]) -> None:
        """Raise `ParameterError` for a value that CloudFormation would refuse."""
        for name, value in parameters.items():
            if name not in self.Parameters:
                raise ParameterError(f"The template has no parameter {name}. It has {', '.join(self.Parameters)}.")
            if rule := self.Parameters[name].rule_broken_by(value):
                raise ParameterError(f"The parameter {name} cannot be {value!r}. {rule}")

    def check_rules(self, parameters: Mapping[str, str]) -> None:
        """Raise `ParameterError` for values that the first deployment of a stack would refuse together."""
        for rule in self.Rules.values():
            for each in rule.Assertions if self.holds(rule.RuleCondition, **parameters) else []:
                if not self.holds(each.Assert, **parameters):
                    raise ParameterError(f"{each.AssertDescription}.")

    def functions(self, **parameters: str) -> dict[str, Function]:
        return {
            name: _checked(Function, self.Globals.get("Function", {}) | resource.Properties)
            for name, resource in self.Resources.items()
            if resource.Type == "AWS::Serverless::Function"
            and (resource.Condition is None or self.holds(resource.Condition, **parameters))
        }

    def routes(self, **parameters: str) -> list[Route]:
        """The routes of the functions, in the order in which API Gateway tries them."""
        routes = [
            Route(str(event.Properties["Method"]), str(event.Properties["Path"]), name, function.Handler)
            for name, function in self.functions(**parameters).items()
            for event in function.Events.values()
            if event.Type == "HttpApi"
        ]
        return sorted(routes, key=lambda route: route.specificity)

    def cors(self, **parameters: str) -> Cors | None:
        api = self.Resources.get("IncidentApi")
        match api and api.Properties.get("CorsConfiguration"):
            case {"Fn::If": [str(condition), dict(then), _]} if self.holds(condition, **parameters):
                return _checked(Cors, then | {"AllowOrigins": self._resolve(then["AllowOrigins"], parameters)})
            case _:
                return None

    @staticmethod
    def base_path(**parameters: str) -> str:
        """The path of the API under its own domain name: empty, or such as `/v1`."""
        path = parameters.get("BasePath")
        return f"/{path}" if path else ""

    def environment(self, **parameters: str) -> dict[str, str]:
        declared = [_Variables.model_validate(self.Globals["Function"]["Environment"])]
        declared += [function.Environment for function in self.functions(**parameters).values()]
        variables = {name: value for each in declared for name, value in each.Variables.items()}
        return {name: str(self._resolve(value, parameters)) for name, value in variables.items()}

    def table(self, name: str = TABLE) -> "CreateTableInputTypeDef":
        """The request that creates a table. Its local name is its logical id, as under `sam local`."""
        asked = {"AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode"}
        declared = {key: value for key, value in self.Resources[name].Properties.items() if key in asked}
        return cast("CreateTableInputTypeDef", {"TableName": name} | declared)

    def holds(self, condition: JsonValue, **parameters: str) -> bool:
        """Evaluate a condition: a name, or an intrinsic function of conditions."""
        match condition:
            case str(name) | {"Condition": str(name)}:
                return self.holds(self.Conditions[name], **parameters)
            case {"Fn::Equals": [left, right]}:
                return str(self._resolve(left, parameters)) == str(self._resolve(right, parameters))
            case {"Fn::Not": [inner]}:
                return not self.holds(inner, **parameters)
            case {"Fn::And": list(inner)}:
                return all(self.holds(each, **parameters) for each in inner)
            case _:
                raise TemplateError(f"The template has a condition that the local run cannot evaluate: {condition}")

    def _resolve(self, value: JsonValue, parameters: Mapping[str, str]) -> JsonValue:
        """Evaluate the intrinsic functions in a value. A resource is its logical id."""
        match value:
            case {"Ref": str(name)} if name in self.Parameters:
                return parameters.get(name, str(self.Parameters[name].Default))
            case {"Ref": str(name)} if name in PSEUDO_PARAMETERS:
                return PSEUDO_PARAMETERS[name]
            case {"Ref": str(name)} if name in self.Resources:
                return name
            case {"Fn::Sub": str(text)}:
                return re.sub(r"\$\{(.+?)\}", lambda found: str(self._resolve({"Ref": found[1]}, parameters)), text)
            case {"Fn::Split": [str(delimiter), text]}:
                return list(str(self._resolve(text, parameters)).split(delimiter))
            case {"Fn::If": [str(condition), then, otherwise]}:
                return self._resolve(then if self.holds(condition, **parameters) else otherwise, parameters)
            case dict() | list():
                raise TemplateError(f"The template has a value that the local run cannot evaluate: {value}")
            case _:
                return value


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
    """A template file, with intrinsic functions in their long form."""
    parsed: dict[str, JsonValue] = yaml.load(path.read_text(), _Loader)  # noqa: S506 (it is a SafeLoader)
    return parsed


def load() -> Template:
    """The stack's template. Raises `TemplateError`."""
    try:
        return _checked(Template, read(PATH))
    except yaml.YAMLError as error:
        raise TemplateError(f"The template cannot be used: {' '.join(str(error).split())}") from error
