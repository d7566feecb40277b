"""How the local run reads the template. tests/test_template.py evaluates its conditions and variables."""

from pathlib import Path

import pytest

from infra.local import template
from infra.local.template import ParameterError, TemplateError
from tests.conftest import EVERYTHING, TEMPLATE

TEXT = template.PATH.read_text()
UNUSABLE = "The template cannot be used: "
NO_VALUE = "The template has a value that the local run cannot evaluate: "
NO_CONDITION = "The template has a condition that the local run cannot evaluate: "


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (TEXT, "Resources: {", UNUSABLE),
        (TEXT, "Resources: []", UNUSABLE),
        ("Handler: read_incidents.handler", "Handler: {}", UNUSABLE),
        ("!Ref StatusShards", "!Ref Missing", NO_VALUE),
        ("!Ref StatusShards", "!ImportValue Queue", NO_VALUE),
        ("!Ref StatusShards", "!Select [5, [a]]", NO_VALUE),
        ("!Ref StatusShards", "[a, b]", NO_VALUE),
        ("!Ref StatusShards", "!If [OwnTable, !Cidr [b, 1, 2], a]", NO_VALUE),
        ("!Equals [!Ref Alerts, enabled]", "!Ref Alerts", NO_CONDITION),
    ],
)
def test_an_unusable_template_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    monkeypatch.setattr(template, "PATH", tmp_path / "template.yaml")
    template.PATH.write_text(TEXT.replace(old, new))
    with pytest.raises(TemplateError, match=f"^{message}.*$"):
        template.load().environment()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Other", "1", f"The template has no parameter Other. It has {', '.join(TEMPLATE.Parameters)}."),
        ("Alerts", "on", "The parameter Alerts cannot be 'on'. It must be one of disabled, enabled."),
        (
            "AllowedOrigins",
            "*",
            "The parameter AllowedOrigins cannot be '*'. It must match ^$|^https?://[^/,* ]+(,https?://[^/,* ]+)*$.",
        ),
        ("StatusShards", "0", "The parameter StatusShards cannot be '0'. It must be at least 1."),
        ("StatusShards", "65", "The parameter StatusShards cannot be '65'. It must be at most 64."),
        ("StatusShards", "", "The parameter StatusShards cannot be ''. It must be a number."),
    ],
)
def test_a_value_that_a_deployment_refuses_is_refused(name: str, value: str, message: str) -> None:
    TEMPLATE.check({"Alerts": "enabled", "AllowedOrigins": "https://a.example", "StatusShards": "64"})
    with pytest.raises(ParameterError) as refused:
        TEMPLATE.check({name: value})
    assert str(refused.value) == message


def test_a_condition_compares_a_number_with_its_text() -> None:
    assert TEMPLATE.holds({"Fn::Equals": [{"Ref": "StatusShards"}, 1]})


def test_functions_agree_on_the_variables_that_they_share() -> None:
    """The local run has one environment for all functions."""
    values: dict[str, object] = {}
    for function in TEMPLATE.functions(**EVERYTHING).values():
        for name, value in function.Environment.Variables.items():
            assert values.setdefault(name, value) == value
