"""The documents agree with the code: commands print what is shown, tables list what exists, limits are where they say."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel, Field, TypeAdapter

import authorize
from incident import Incident, Source, Status
from infra import openapi
from infra.openapi import INTEGRATIONS
from tests.conftest import ROOT, TEMPLATE
from tests.document import DOCUMENT

DOCUMENTS = ["README.md", "README.ru.md", "CONTRIBUTING.md", "infra/README.md", "infra/integrations.md"]
README = (ROOT / "README.md").read_text()
RUSSIAN = (ROOT / "README.ru.md").read_text()
OPERATING = (ROOT / "infra/README.md").read_text()
SENDING = (ROOT / "infra/integrations.md").read_text()
MONITORING = (ROOT / "infra/monitoring.yaml").read_text()

ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def test_the_readme_can_be_read_at_one_sitting() -> None:
    assert len(README.splitlines()) <= 170


# ---- commands


def session() -> list[tuple[str, str]]:
    """Each command of the README's console blocks, and the output shown for it."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.+)\n((?:[^$#].*\n)*)", block, re.MULTILINE)
    ]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_readme_shows_what_its_commands_print(api: httpx.Client, tmp_path: Path) -> None:
    # The commands name localhost:8000; this makes curl connect to the API under test instead.
    (tmp_path / ".curlrc").write_text(
        f'silent\nnoproxy = "*"\nconnect-to = "localhost:8000:{api.base_url.host}:{api.base_url.port}"\n'
    )
    ids: dict[str, str] = {}
    commands = session()
    assert len(commands) >= 6
    for command, shown in commands:
        for written, real in ids.items():
            command = command.replace(written, real)
        ran = subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            env={"CURL_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert ran.stderr == ""
        ids |= dict(zip(re.findall(ID, shown), re.findall(ID, ran.stdout), strict=False))
        assert normalized(ran.stdout) == normalized(shown), command


def normalized(output: str) -> str:
    """The output without what differs from run to run: ids, times, cursors, line ends."""
    output = re.sub(ID, "ID", output)
    output = re.sub(TIME, "TIME", output)
    return re.sub(r"cursor=[\w-]+", "cursor=CURSOR", output).strip()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^ {4}make ([a-z0-9-]+)|`make ([a-z0-9-]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert {command or quoted for command, quoted in named} - targets == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_within_the_repository_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)(.+?)\)", (ROOT / name).read_text()):
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


# ---- tables


def section(document: str, heading: str) -> str:
    """A section of a document, without its heading."""
    return document.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_readme_lists_the_routes_of_the_template_and_their_functions() -> None:
    listed = re.findall(r"^\| `(\w+) (\S+)`(?:, `\w+ (\S+)`)? \| `(\w+)`", section(README, "Routes"), re.MULTILINE)
    rows = {(method, path, module) for method, *paths, module in listed for path in paths if path}
    # A route that takes the trailing slash is a greedy one in the template, since API Gateway has no other.
    assert rows == {
        (route.method, route.path.replace("{proxy+}", ""), route.handler.split(".")[-2])
        for route in TEMPLATE.routes(**INTEGRATIONS)
    }


@pytest.mark.parametrize("word", [*Status, *Source, *Incident.model_fields])
def test_the_readmes_name_every_status_source_and_field(word: str) -> None:
    assert f"`{word}`" in README
    assert f"`{word}`" in RUSSIAN


class Parameter(BaseModel):
    """A parameter of a route, as the contract lists it."""

    name: str
    location: str = Field(alias="in")


def test_the_readme_lists_the_query_parameters_of_the_list() -> None:
    contract = json.loads(openapi.PATH.read_text())
    parameters = TypeAdapter(list[Parameter]).validate_python(contract["paths"]["/incidents"]["get"]["parameters"])
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section(README, "Routes"), re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(rows))) == {each.name for each in parameters if each.location == "query"}


def test_the_readme_lists_the_errors_of_the_functions() -> None:
    problems = {
        status
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if "application/problem+json" in answer.get("content", {})
    }
    assert set(re.findall(r"^\| (\d{3}) \|", section(README, "Errors"), re.MULTILINE)) == problems


REQUESTS: dict[str, Callable[[httpx.Client, int], httpx.Response]] = {
    "characters in a description": lambda api, size: api.post(
        "/incidents", json={"description": "x" * size, "source": "operator"}
    ),
    "KiB in a body": lambda api, size: api.post(
        "/incidents",
        content=b'{"description": "x", "source": "operator"}'.ljust(size),
        headers={"Content-Type": "application/json"},
    ),
    "incidents on a page": lambda api, size: api.get("/incidents", params={"limit": size}),
    "characters in an `Idempotency-Key`": lambda api, size: api.post(
        "/incidents", json={"description": "x", "source": "operator"}, headers={"Idempotency-Key": "k" * size}
    ),
}
"""A request of a given size, by the name of the limit in the README; in bytes where the README counts in KiB."""


@pytest.mark.parametrize("limit", REQUESTS)
def test_a_limit_is_where_the_readme_says(api: httpx.Client, limit: str) -> None:
    (row,) = re.findall(rf"^\| ([\d,]+) {limit} \| (\d+)", section(README, "Limits"), re.MULTILINE)
    size = int(row[0].replace(",", "")) * (1024 if limit.startswith("KiB") else 1)
    assert REQUESTS[limit](api, size).is_success
    assert REQUESTS[limit](api, size + 1).status_code == int(row[1])


def test_the_readme_says_how_long_a_function_may_take() -> None:
    (seconds,) = re.findall(r"^\| (\d+) seconds for a response", section(README, "Limits"), re.MULTILINE)
    assert int(seconds) == TEMPLATE.Globals["Function"]["Timeout"]


# ---- the Russian README


def sections(document: str) -> list[tuple[str, list[str]]]:
    """Each section's heading, and what of the section is the same in both languages."""
    parts = re.split(r"^## (.+)\n", document, flags=re.MULTILINE)
    return list(zip(["the introduction", *parts[1::2]], map(untranslated, parts[::2]), strict=True))


def untranslated(section: str) -> list[str]:
    """Code blocks without their comments; the code and the numbers of each table row and of the prose; link targets."""
    blocks = [
        re.sub(r"^# .*\n", "# \n", block, flags=re.MULTILINE)
        for block in re.findall(r"^```.*?^```", section, re.DOTALL | re.MULTILINE)
    ]
    text = re.sub(r"^```.*?^```", "", section, flags=re.DOTALL | re.MULTILINE)
    targets = [target for target in re.findall(r"\]\((.+?)\)", text) if not target.startswith("README")]
    commands = re.findall(r"^ {4}(\S.*?)(?:  .*)?$", text, re.MULTILINE)
    text = re.sub(r"\]\(.+?\)|^ {4}.*$", "", text, flags=re.MULTILINE)
    rows = [" ".join(["|", *code_and_numbers(row)]) for row in re.findall(r"^\|.*", text, re.MULTILINE)]
    return blocks + commands + targets + rows + code_and_numbers(re.sub(r"^\|.*", "", text, flags=re.MULTILINE))


def code_and_numbers(text: str) -> list[str]:
    """Sorted and without repetitions: the order of words differs between languages."""
    code = re.findall(r"`[^`]+`", text)
    numbers = re.findall(r"\d+", re.sub(r"(?<=\d)[, \u00a0](?=\d{3})", "", re.sub(r"`[^`]+`", "", text)))
    return sorted({re.sub(r"\s+", " ", each) for each in code} | set(numbers))


def test_the_russian_readme_has_the_same_sections_commands_and_tables() -> None:
    for (english, here), (russian, there) in zip_longest(
        sections(README), sections(RUSSIAN), fillvalue=("nothing", [""])
    ):
        assert here == there, f"README.md, {english} and README.ru.md, {russian}"


# ---- infra/README.md


def test_the_deployment_page_lists_every_parameter_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", section(OPERATING, "Deploying"), re.MULTILINE))
    defaults = {name: str(each.Default) for name, each in TEMPLATE.Parameters.items() if name != "DynamoDBEndpoint"}
    assert listed == defaults | {"Architecture": "arm64"}  # as samconfig.toml sets it


def test_a_sam_command_by_hand_names_the_region() -> None:
    # The SAM CLI does not read AWS_REGION: https://github.com/aws/aws-sam-cli/issues/6037
    commands = re.findall(r"^ {4}.*\bsam (?:deploy|delete) .*$", OPERATING, re.MULTILINE)
    assert len(commands) >= 2
    assert [command for command in commands if '--region "$AWS_REGION"' not in command] == []


CALLS = re.findall(r"^\| `call (\w+) (\S+)(?: '(.+?)')?` \| (\d{3})(.*)\|", OPERATING, re.MULTILINE)


@pytest.mark.parametrize(("method", "path", "body", "status", "remark"), CALLS, ids=[" ".join(c[:2]) for c in CALLS])
def test_the_first_calls_get_the_responses_of_the_deployment_page(
    api: httpx.Client, method: str, path: str, body: str, status: str, remark: str
) -> None:
    response = api.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == int(status)
    for detail in re.findall(r'^ with `"(.+?)"`', remark):
        assert response.json()["detail"] == detail


def test_the_deployment_page_shows_first_calls() -> None:
    assert {method for method, *_ in CALLS} == {route.method for route in TEMPLATE.routes()}


def test_the_costs_count_every_alarm() -> None:
    conditions = re.findall(r"Type: AWS::CloudWatch::Alarm\n    (Condition:)?", MONITORING)
    alarms = conditions.count("")  # those of an integration come with it
    ((dollars, number),) = re.findall(r"([\d.]+) a month for (\d+)\s+alarms", OPERATING)
    assert int(number) == alarms
    assert float(dollars) == pytest.approx(0.1 * alarms)


def test_the_deployment_page_names_every_metric_of_the_dashboard() -> None:
    metrics = section(OPERATING, "Monitoring").partition("**Metrics**")[2].partition("\n\n")[0]
    shown = re.findall(r'MetricName=\\"(\w+)|"\$\{MetricsNamespace\}", "(\w+)"', MONITORING)
    assert set(re.findall(r"`([A-Z]\w+)`", metrics)) == {searched or named for searched, named in shown}


def test_the_deployment_page_lists_every_role() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", section(OPERATING, "Access keys"), re.MULTILINE)
    assert listed == list(authorize.ROLES)


# ---- infra/integrations.md


TEMPLATES = {
    "$NAME_JSON": '"Касса \\"1\\" is down"',
    "{{ msg | json }}": '"Касса \\"1\\" is down"',
    '{% if heartbeatJSON.status == 1 %}"resolved"{% else %}"open"{% endif %}': '"open"',
}
"""What a monitoring system makes of the placeholders of a body."""

BODIES = re.findall(r"^```json\n(.*?)```", SENDING, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("body", BODIES)
def test_the_api_takes_the_bodies_of_the_monitoring_systems(api: httpx.Client, body: str) -> None:
    for placeholder, value in TEMPLATES.items():
        body = body.replace(placeholder, value)
    response = api.post("/incidents", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 201, response.text
    assert response.json()["description"] == 'Касса "1" is down'


def test_there_are_bodies_of_monitoring_systems() -> None:
    assert len(BODIES) == 2
