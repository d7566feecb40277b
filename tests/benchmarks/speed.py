"""Our functions beside what a user would build instead: cold start, warm requests, memory, package: `make bench`.

Every program is run as `sam build` left it, by the runtime's own Python, with nothing else on its path, against a DynamoDB on
loopback that answers at once, over TLS as on AWS. The programs take turns in every round, so that other load on the machine
affects them alike. A ratio is the median over these rounds. `make bench-check` fails where a ratio is above the bound that
README.md has for it, after the sign ≤.
"""

import json
import math
import os
import platform
import re
import sys
import zipfile
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Mapping
from io import BytesIO
from operator import truediv
from pathlib import Path
from statistics import median
from subprocess import PIPE, run
from typing import NamedTuple

from infra.local import template
from infra.local.event import http_event
from tests.benchmarks.dynamodb import ALL_OPEN, serving

HERE = Path(__file__).parent
BUILDS = template.PATH.parent / ".aws-sam" / "bench"

ROUNDS = 15
CALLS = 50
"""Calls of a function in each round, to warm it, and as many again to be measured."""

OURS, FASTAPI, BARE = PROGRAMS = ("Incident API", "FastAPI + Mangum", "bare sample")
FOLDERS = {FASTAPI: "FastApiMangum", BARE: "Bare"}

# The functions' own Python, not this environment's, and without its site-packages: only what was built is on the path.
PYTHON = [f"{sys.base_prefix}/bin/python3.13", "-S"]

INCIDENT = "6a5cb7f0-4c5e-4f0a-9d51-0d2a5b1c7e38"
HEADERS = {
    "Authorization": f"Bearer inc_{'A' * 43}",
    "Content-Type": "application/json",
    "Host": "abcdefghij.execute-api.us-east-1.amazonaws.com",
    "User-Agent": "curl/8.5.0",
    "X-Amzn-Trace-Id": "Root=1-6a5cb7f0-4c5e4f0a9d510d2a5b1c7e38",
    "X-Forwarded-For": "192.0.2.1",
}


class Operation(NamedTuple):
    """What is done, and by which of our functions."""

    name: str
    function: str
    route: str
    query: str = ""
    body: Mapping[str, object] | None = None
    incidents: int = 0
    """How many are listed."""
    table: str = ""
    """How the name of the table ends."""
    outcome: str = ""
    """What becomes of every alert."""

    @property
    def event(self) -> dict[str, object]:
        """The request as HTTP API hands it to a function behind the authorizer."""
        method, path = self.route.split()
        return http_event(
            method,
            path.replace("{id}", INCIDENT),
            route_key=self.route,
            path_parameters={"id": INCIDENT} if "{id}" in path else None,
            query=self.query,
            headers=HEADERS,
            body=json.dumps(self.body, ensure_ascii=False).encode() if self.body else b"",
            authorizer={"lambda": {"caller": "monitoring"}},
        )

    def check(self, answer: Mapping[str, object]) -> None:
        """Raise `AssertionError` where the operation was not done."""
        assert answer.get("isAuthorized") or answer["statusCode"] in (200, 201), answer
        assert not self.incidents or len(json.loads(str(answer["body"]))) == self.incidents, answer
        assert not self.outcome or json.loads(str(answer["body"]))[self.outcome] == ALERTS, answer


REPORT = {"description": "Самокат #4567 не отвечает на запросы", "source": "monitoring"}
LIST = Operation("list of 50, one status", "ReadIncidents", "GET /incidents", query="status=open", incidents=50)
LIST_ALL = LIST._replace(name="list of 50, all statuses", query="")
LIST_UNEVEN = LIST_ALL._replace(name="list of 50, all statuses, every incident open", table=ALL_OPEN)
CHANGE = Operation("change status", "UpdateIncident", "PATCH /incidents/{id}", body={"status": "in_progress"})
COMMENT = CHANGE._replace(
    name="change status with a comment",
    body={"status": "in_progress", "comment": "Позвонили на точку, выехал механик."},
)
WARM_ALONE = (LIST_ALL, LIST_UNEVEN, COMMENT)
CREATE = Operation("create", "CreateIncident", "POST /incidents", body=REPORT)
OPERATIONS = (
    CREATE,  # first: the others get what it stores
    Operation("read one", "ReadIncidents", "GET /incidents/{id}"),
    LIST,
    LIST_ALL,
    LIST_UNEVEN,
    CHANGE,
    COMMENT,
    Operation("authorize", "Authorize", "POST /incidents"),
)


ALERTS = 2_000


def alerts(status: str, outcome: str, group: str) -> Operation:
    """A notification of Alertmanager's with 2,000 alerts of a group."""
    told = [
        {
            "status": status,
            "fingerprint": f"{group}-{number}",
            "startsAt": "2026-11-24T02:17:50.912Z",
            "endsAt": "2026-11-24T03:17:50.912Z",
            "labels": {"alertname": "ScooterOffline", "instance": f"scooter-{number}:9100", "severity": "critical"},
            "annotations": {"summary": f"Самокат #{number} не отвечает", "description": "Нет телеметрии 5 минут"},
            "generatorURL": "http://prometheus.example/graph?g0.expr=up%3D%3D0",
        }
        for number in range(ALERTS)
    ]
    return Operation("receive alerts", "ReceiveAlerts", "POST /alerts", body={"alerts": told}, outcome=outcome)


def package(program: str, operation: Operation) -> tuple[list[Path], str]:
    """What `sam build` made for the operation: its folders, as they lie on its path, and its handler."""
    if program != OURS:
        return [BUILDS / "peers" / FOLDERS[program]], "app.handler"
    function, build = f"{operation.function}Function", BUILDS / "functions"
    handler = template.load().functions(Alerts="enabled")[function].Handler
    return [build / function, build / "DependenciesLayer/python"], handler


def megabytes(folders: list[Path]) -> tuple[float, float]:
    """The size of a package, zipped and unzipped."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path)
    return packed.tell() / 1e6, sum(path.stat().st_size for path in files) / 1e6


def call(program: str, calls: list[tuple[Operation, int]], dynamodb: str, certificates: Path) -> list[dict[str, float]]:
    """Run a function in a process of its own, as Lambda does, for each operation so many times; return what runtime.py measures."""
    operation, _ = calls[0]
    folders, handler = package(program, operation)
    environment = template.load().environment(DynamoDBEndpoint=dynamodb) | {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_SESSION_TOKEN": "IQoJb3JpZ2luX2VjEXAMPLE" * 30,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": "function",
        "LANG": "en_US.UTF-8",
        # Lambda's file system is read-only: byte code that is not in the package is made again at every cold start.
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ":".join(map(str, folders)),
        # As many roots as botocore trusts by itself, and one: for botocore, and for the authorizer.
        "AWS_CA_BUNDLE": str(certificates),
        "SSL_CERT_FILE": str(certificates),
        "TABLE_NAME": f"{FOLDERS.get(program, 'Incidents')}{operation.table}",
    }
    commands = [json.dumps({"event": each.event, "times": times}) for each, times in calls]
    command = [*PYTHON, str(HERE / "runtime.py"), handler]
    done = run(command, input="\n".join(commands), stdout=PIPE, env=environment, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for (each, _), line in zip(calls, lines, strict=True):
        each.check(line["answer"])
    return lines


Figures = dict[str, dict[str, list[float]]]
"""What was measured, by name and program: a figure for each round, or the one where there is nothing to repeat."""


def measure(rounds: int) -> Figures:
    figures: Figures = defaultdict(lambda: defaultdict(list))
    with serving() as dynamodb:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            turn = PROGRAMS[number % 3 :] + PROGRAMS[: number % 3]
            for operation in OPERATIONS:
                for program in turn if operation.function != "Authorize" else [OURS]:
                    measure_operation(program, operation, dynamodb, figures)
            for program in PROGRAMS:
                first = figures["cold start, create, CPU ms"][program][-1]
                if program == OURS:  # the others have no authorizer
                    first += figures["cold start, authorize, CPU ms"][OURS][-1]
                figures["cold start, first request, CPU ms"][program].append(first)
            measure_alerts(number, dynamodb, figures)
    for program in PROGRAMS:
        for name, size in zip(("zipped", "unzipped"), megabytes(package(program, CREATE)[0]), strict=True):
            figures[f"package, {name}, MB"][program].append(size)
    return figures


def measure_operation(program: str, operation: Operation, dynamodb: tuple[str, Path], figures: Figures) -> None:
    cold, _, warm = call(program, [(operation, 1), (operation, CALLS), (operation, CALLS)], *dynamodb)
    if operation not in WARM_ALONE:
        figures[f"cold start, {operation.name}, CPU ms"][program].append(1e3 * cold["process"])
    if operation == CREATE:
        figures["peak memory, create, MB"][program].append(cold["peak"])
    figures[f"warm {operation.name}, CPU µs"][program].append(1e6 * warm["calls"] / CALLS)


def measure_alerts(number: int, dynamodb: tuple[str, Path], figures: Figures) -> None:
    warming, measured = f"{number} cold", f"{number} warm"
    told = {
        "new": alerts("firing", "created", measured),
        "repeated": alerts("firing", "unchanged", measured),
        "resolved": alerts("resolved", "resolved", measured),
    }
    calls = [(each, 1) for each in (alerts("firing", "created", warming), *told.values())]
    _, *lines = call(OURS, calls, *dynamodb)
    for what, line in zip(told, lines, strict=True):
        row = figures[f"warm {ALERTS:,} alerts, {what}, CPU ms"]
        row[OURS].append(1e3 * line["calls"])
        for peer in (FASTAPI, BARE):  # as many creates
            row[peer].append(figures["warm create, CPU µs"][peer][-1] * ALERTS / 1e3)
    figures["peak memory, alerts, MB"][OURS].append(lines[-1]["peak"])


def bounds() -> dict[str, list[float | None]]:
    """What our figure should not exceed, as a part of each peer's: README.md's, by the name of the row."""
    rows = re.findall(r"^\| (.+?) \|.*\|(.+)\|(.+)\|$", (HERE / "README.md").read_text(), re.MULTILINE)
    found = {name: [re.search(r"≤ ([\d.]+)", cell) for cell in cells] for name, *cells in rows}
    return {
        name: [float(each[1]) if each else None for each in limits] for name, limits in found.items() if any(limits)
    }


# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
FULL_PROCESSOR = 1769
"""MB. With less memory, a function has as much less of a processor."""
PRICE = 0.0000133334
"""US dollars for a GB-second on arm64 in us-east-1."""
WAIT = 4
"""Milliseconds in which a create waits for DynamoDB."""


def memory_table(ours: Mapping[str, float]) -> str:
    """What the memory of the functions brings and costs, by these CPU times."""
    first, create = ours["cold start, first request, CPU ms"], ours["warm create, CPU µs"] / 1e3
    many = ours[f"warm {ALERTS:,} alerts, new, CPU ms"]
    lines = [
        "| memory, MB | processor | first request, s | warm create, ms | 2,000 new alerts, s | a million creates, $ |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for memory in (128, 256, 512, 1024, FULL_PROCESSOR):
        share = memory / FULL_PROCESSOR
        billed = math.ceil(create / share + WAIT)
        cells = (f"{first / share / 1e3:.2f}", f"{create / share + WAIT:.1f}", f"{many / share / 1e3:.1f}")
        cost = billed / 1e3 * memory / 1024 * PRICE * 1e6
        lines.append(f"| {memory:,} | {share:.2f} | {' | '.join(cells)} | {cost:.2f} |")
    return "\n".join(["", *lines])


def main() -> None:
    parser = ArgumentParser(description="Measure the functions beside what one would build instead.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--check", action="store_true", help="fail where a ratio is above README.md's bound")
    options = parser.parse_args()
    figures = measure(options.rounds)
    published = bounds()
    above: list[str] = []
    unclear: list[str] = []
    print(f"{platform.processor()} {platform.platform()}, {os.cpu_count()} cores; medians of {options.rounds} rounds")
    print(f"| | {' | '.join(PROGRAMS)} | : {FASTAPI} | : {BARE} |\n|---|---|---|---|---|---|")
    for name in sorted(figures, key=lambda name: ("cold", "warm", "package,", "peak").index(name.split()[0])):
        cells = [f"{median(values):.{2 * (median(values) < 10)}f}" for values in figures[name].values()]
        for peer, limit in zip((FASTAPI, BARE), published.get(name, [None, None]), strict=True):
            if peer in figures[name]:
                ratios = sorted(map(truediv, figures[name][OURS], figures[name][peer]))
                value = median(ratios)
                cells.append(f"{value:.2f}" + (f" (≤ {limit:.2f})" if limit else ""))
                if limit and value > limit:
                    # A regression shows in every round, other load on the machine in some.
                    worse = above if ratios[len(ratios) // 4] > limit else unclear
                    worse.append(f"{name}: {value:.2f} of {peer}; at most {limit:.2f} is published")
        print(f"| {name} | {' | '.join(cells + [''] * (5 - len(cells)))} |")
    print(memory_table({name: median(values[OURS]) for name, values in figures.items()}))
    if missing := published.keys() - figures.keys():
        sys.exit(f"README.md has bounds for what is not measured: {', '.join(missing)}")
    if unclear:
        print("\n".join(["The machine is too busy to judge:", *unclear]))
    if options.check and above:
        sys.exit("\n".join(["Worse than published:", *above]))


if __name__ == "__main__":
    main()
