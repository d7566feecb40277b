"""The documents agree with the code."""

import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import zip_longest
from subprocess import run
from threading import Thread

import httpx
import pytest

import authorize
from api import MAX_BODY
from incident import MAX_CHANGES, MAX_COMMENT, MAX_COMMENTS, MAX_DESCRIPTION, Incident, Source, Status
from infra import openapi
from infra.local.gateway import MAX_HEAD
from infra.openapi import INTEGRATIONS
from tests.conftest import EVERYTHING, ROOT, TEMPLATE
from tests.document import DOCUMENT
from tests.steps import SENDING, examples

PAGES = {
    name: (ROOT / name).read_text()
    for name in ("README.md", "README.ru.md", "CONTRIBUTING.md", "infra/README.md", "infra/integrations.md")
}
README, RUSSIAN, _, OPERATING, _ = PAGES.values()
MONITORING = (ROOT / "infra/monitoring.yaml").read_text()

ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def section(page: str, heading: str) -> str:
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows of a section's tables."""
    return [
        row[1:].rstrip(" |").split(" |") for row in re.findall(r"^\| *[^-\n].*", section(page, heading), re.MULTILINE)
    ]


# ---- commands and links


def test_the_readmes_commands_print_what_it_shows(api: httpx.Client) -> None:
    ids: dict[str, str] = {}
    session = re.findall(r"^\$ (curl .+)\n((?:[^$#`].*\n)*)", README, re.MULTILINE)
    for command, shown in session:
        for written, real in ids.items():
            command = command.replace(written, real)
        printed = shell(command.replace("http://localhost:8000", str(api.base_url)) + " --silent")
        ids |= dict(zip(re.findall(ID, shown), re.findall(ID, printed), strict=False))
        assert anonymous(printed) == anonymous(shown), f"README.md: {command}"
    assert len(session) == README.count("\n$ ")


def shell(command: str) -> str:
    """Run a command and return its output; it must not fail or print errors."""
    ran = run(command, shell=True, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def anonymous(output: str) -> str:
    """The output with ids and times replaced."""
    return re.sub(TIME, "TIME", re.sub(ID, "ID", output)).strip()


@pytest.mark.parametrize("name", PAGES)
def test_every_make_target_exists(name: str) -> None:
    makefiles = (ROOT / "Makefile").read_text() + (ROOT / "infra/environments.mk").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", makefiles, re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`|&& |\()make (?:--silent )?([a-z0-9-]+)", PAGES[name], re.MULTILINE))
    assert named - targets == set()


@pytest.mark.parametrize("name", PAGES)
def test_every_link_within_the_repository_works(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)(.+?)\)", PAGES[name]):
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


# ---- README.md


def test_the_readme_lists_every_route_and_its_function() -> None:
    table = [row for row in rows(README, "Routes") if len(row) == 3]
    listed = {(route, row[1].strip(" `")) for row in table for route in re.findall(r"`(\w+ \S+)`", row[0])}
    # In the template, a trailing slash is the empty end of a greedy path.
    assert listed == {
        (f"{route.method} {route.path.replace('{proxy+}', '')}", route.handler.split(".")[-2])
        for route in TEMPLATE.routes(**INTEGRATIONS)
    }, "README.md, Routes"


@pytest.mark.parametrize("word", [*Status, *Source, *Incident.model_fields])
def test_the_readme_names_every_status_source_and_field(word: str) -> None:
    assert f"`{word}`" in README


def test_the_readme_lists_the_query_parameters_of_the_list() -> None:
    contract = json.loads(openapi.PATH.read_text())["paths"]["/incidents"]["get"]["parameters"]
    listed = [row[0] for row in rows(README, "Routes") if len(row) == 2]
    assert set(re.findall(r"`(\w+)`", " ".join(listed))) == {each["name"] for each in contract if each["in"] == "query"}


def test_the_readme_lists_the_errors_of_the_functions() -> None:
    problems = {
        status
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if "application/problem+json" in answer.get("content", {})
    }
    assert {row[0].strip() for row in rows(README, "Errors")} - {"status"} == problems, "README.md, Errors"


def test_the_readme_lists_every_limit() -> None:
    assert [row[0].strip() for row in rows(README, "Limits")] == [
        "limit",
        f"{MAX_DESCRIPTION:,} characters in a description",
        f"{MAX_BODY // 1024} KiB in a body",
        "100 incidents on a page",
        "255 characters in an `Idempotency-Key`",
        f"{MAX_CHANGES:,} changes to an incident; {MAX_COMMENTS // 1000} KB of comments on it ({MAX_COMMENTS:,} bytes in UTF-8)",
        f"{MAX_COMMENT:,} characters in a comment",
        f"{MAX_HEAD // 1024} KB in the request line and headers",
        f"{TEMPLATE.Globals['Function']['Timeout']} seconds for a response",
    ], "README.md, Limits"


def test_an_idempotency_key_may_have_255_characters(api: httpx.Client) -> None:
    body = {"description": "x", "source": "operator"}
    assert api.post("/incidents", json=body, headers={"Idempotency-Key": "k" * 255}).status_code == 201


# ---- README.ru.md


def untranslated(page: str) -> list[set[str]]:
    """What both languages share in each section: code without comments, link targets and numbers."""
    page = re.sub(r"^# .*\n|\]\(README.*?\)|(?<=\d)[,\u00a0 ](?=\d{3})", "", page, flags=re.MULTILINE)
    same = re.compile(r"^```.*?^```|^ {4}\S.*?(?=  |$)|`[^`]+`|(?<=\])\(.+?\)|\d+", re.DOTALL | re.MULTILINE)
    return [{" ".join(each.split()) for each in same.findall(section)} for section in page.split("\n## ")]


def test_the_russian_readme_has_the_same_code_links_and_numbers() -> None:
    for number, (here, there) in enumerate(zip_longest(untranslated(README), untranslated(RUSSIAN))):
        assert here == there, f"section {number} of the READMEs differs: {here ^ there}"


# ---- infra/README.md


def test_the_deployment_page_lists_every_parameter_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", section(OPERATING, "Deploying"), re.MULTILINE))
    defaults = {name: str(each.Default) for name, each in TEMPLATE.Parameters.items() if name != "DynamoDBEndpoint"}
    assert listed == defaults | {"Architecture": "arm64"}  # set by samconfig.toml


def test_documented_sam_commands_name_the_region() -> None:
    # The SAM CLI does not read AWS_REGION: https://github.com/aws/aws-sam-cli/issues/6037
    commands = re.findall(r"^ {4}.*\bsam (?:deploy|delete) .*$", OPERATING, re.MULTILINE)
    assert len(commands) == 2
    assert all('--region "$AWS_REGION"' in command for command in commands)


CALLS = re.findall(r"^\| `call (\w+) (\S+)(?: '(.+?)')?` \| (\d{3})(.*)\|", OPERATING, re.MULTILINE)


@pytest.mark.parametrize(("method", "path", "body", "status", "remark"), CALLS, ids=[" ".join(c[:2]) for c in CALLS])
def test_the_first_calls_get_the_documented_responses(
    api: httpx.Client, method: str, path: str, body: str, status: str, remark: str
) -> None:
    response = api.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == int(status)
    for detail in re.findall(r'^ with `"(.+?)"`', remark):
        assert response.json()["detail"] == detail


METRICS = section(OPERATING, "Monitoring").partition("**Metrics**")[2].partition("\n\n")[0]


def test_the_page_names_every_metric_of_the_dashboard() -> None:
    shown = re.findall(r'MetricsNamespace\}(?:\\" MetricName=\\"|", ")(\w+)', MONITORING)
    assert set(re.findall(r"`([A-Z]\w+)`", METRICS)) == set(shown)


def test_the_costs_count_every_alarm_and_metric() -> None:
    # Only the alarms of integrations have a condition. CloudWatch charges for each metric of an alarm.
    alarms = re.findall(r"Type: AWS::CloudWatch::Alarm\n    (?!Condition:)(?:.+\n)+", MONITORING)
    watched = sum(max(1, len(re.findall(r"^ +- \{.*MetricStat", alarm, re.MULTILINE))) for alarm in alarms)
    metrics = len(re.findall(r"`[A-Z]\w+`", METRICS)) - 3 + 2 * len(Source) + len(Status)
    costs = f"{0.1 * watched:.2f} a month for {len(alarms)} alarms over {watched} metrics"
    assert costs in re.sub(r"\s+", " ", OPERATING), "infra/README.md, Costs"
    assert f"{metrics} for {0.3 * metrics:.2f}" in OPERATING, f"infra/README.md, Costs: {metrics} metrics"


def test_the_deployment_page_lists_every_role() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section(OPERATING, "Access keys"), re.MULTILINE) == list(authorize.ROLES)


# ---- infra/integrations.md


def healthchecks(template: str, name: str, now: str = "2026-11-27T10:00:00+00:00") -> str:
    """A body or header that Healthchecks sends. It replaces placeholders in one pass; a Cyrillic name has no slug."""
    values = {"$NAME_JSON": json.dumps(name), "$SLUG": "", "$CODE": "9d6a", "$NOW": now, "$STATUS": "down"}
    return re.sub(r"\$[A-Z_]+", lambda placeholder: values[placeholder[0]], template)


def grafana(template: str, status: str) -> str:
    """The JSON that Grafana renders from the template."""
    values = {
        '(printf "%s: %s" .Status .CommonLabels.alertname)': f'{status}: Касса "1"',
        '(reReplaceAll "firing" "open" .Status)': status.replace("firing", "open"),
    }
    words = [values.get(word, word.strip('"')) for word in re.findall(r'"[^"]*"|\(.*?\)', template)]
    return json.dumps(dict(zip(words[::2], words[1::2], strict=True)))


def test_the_page_shows_the_filter_of_the_stream() -> None:
    mapping = TEMPLATE.functions(**EVERYTHING)["NotifyTelegramFunction"].Events["Changes"].Properties
    filters = json.loads(json.dumps(mapping["FilterCriteria"]))["Filters"]
    assert [json.loads(each["Pattern"]) for each in filters] == [json.loads(FILTER)], "infra/integrations.md"


CHECK, ALERT, _, FILTER = examples("json")
CONTACT_POINT = examples("text")[0]


@pytest.mark.parametrize(("state", "status"), [("firing", "open"), ("resolved", "resolved")])
def test_grafanas_body_creates_an_incident(api: httpx.Client, state: str, status: str) -> None:
    body = grafana(CONTACT_POINT, state)
    response = api.post("/incidents", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 201, response.text
    assert (response.json()["description"], response.json()["status"]) == (f'{state}: Касса "1"', status)


def test_healthchecks_retries_create_one_incident(api: httpx.Client) -> None:
    shown = SENDING.partition("**Healthchecks.**")[2].partition("**Uptime Kuma.**")[0]
    headers = {
        name: healthchecks(value, "") for name, value in re.findall(r"^ {4}([\w-]+): (.+)$", shown, re.MULTILINE)
    }
    assert headers.pop("Authorization") == "Bearer inc_…"
    for _ in range(2):
        api.post("/incidents", content=healthchecks(CHECK, ""), headers=headers).raise_for_status()
    (incident,) = api.get("/incidents").json()
    assert (incident["description"], incident["status"]) == ("Check  (9d6a) is down", "open")


@pytest.mark.parametrize(("name", "title"), [('Касса "1" \\ $CODE', 'Касса "1" \\ $CODE'), ("", "Alert 9d6a")])
def test_a_healthchecks_alert_is_resolved_by_its_recovery(api: httpx.Client, name: str, title: str) -> None:
    down = healthchecks(ALERT, name)
    up = healthchecks(ALERT.replace("firing", "resolved"), name, now="2026-11-27T10:05:00+00:00")
    for body in (down, up):
        api.post("/alerts", content=body, headers={"Content-Type": "application/json"}).raise_for_status()
    (incident,) = api.get("/incidents").json()
    assert incident["description"].splitlines() == [title, "check: 9d6a"]
    assert incident["status"] == "resolved"


@pytest.mark.slow
@pytest.mark.parametrize(("language", "program"), [("sh", "sh"), ("python", sys.executable)])
def test_an_example_retries_until_its_report_is_stored(language: str, program: str) -> None:
    statuses = iter([0, 503, 201])  # without a status, the connection is closed
    keys = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers["Idempotency-Key"])
            if status := next(statuses):
                self.send_response(status)
                self.send_header("Retry-After", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.1,)).start()
        environment = {"PATH": os.environ["PATH"], "API": f"http://127.0.0.1:{server.server_port}", "KEY": "inc_1"}
        run([program, "-c", examples(language)[0]], env=environment, check=True)
        server.shutdown()
    assert keys == ["report-4567"] * 3
