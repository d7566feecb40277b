"""Our functions beside what a user would build instead: cold start, warm requests, memory, package, cost: `make bench`.

Every program is run as `sam build` left it, by the runtime's own Python, with nothing else on its path, against a DynamoDB
on loopback that answers at once and without TLS. The runs go round: one of each program, then the next of each, so that
whatever else the machine does meets them alike. A ratio is the median over these rounds.
"""

import json
import os
import platform
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from http import HTTPStatus
from io import BytesIO
from math import ceil
from pathlib import Path
from statistics import median, quantiles
from subprocess import PIPE, Popen
from time import perf_counter
from typing import NamedTuple, Self, TypedDict
from urllib.request import urlopen

import matplotlib as mpl
from matplotlib.figure import Figure

from infra.local import template
from tests.benchmarks.dynamodb import INCIDENT

HERE = Path(__file__).parent
BUILDS = template.PATH.parent / ".aws-sam" / "bench"
RESULTS = HERE / "speed.json"
PICTURE = HERE / "speed.svg"

RUNS = 15
CALLS = 50
"""Calls of a function in each run, to warm it, and then to be measured."""

OURS = "Incident API"
FASTAPI = "FastAPI + Mangum"
BARE = "bare sample"
PROGRAMS = (OURS, FASTAPI, BARE)

# The functions' own Python, not this environment's, and without its site-packages: only what was built is on the path.
PYTHON = [f"{sys.base_prefix}/bin/python3.13", "-S"]


class Operation(NamedTuple):
    """What a client asks for, and which of our functions answers."""

    name: str
    route: str
    status: HTTPStatus
    query: dict[str, str]
    body: dict[str, str] | None

    def event(self) -> dict[str, object]:
        """The request as HTTP API hands it over, payload format 2.0."""
        method, path = self.route.split()
        path = path.replace("{id}", INCIDENT)
        event: dict[str, object] = {
            "version": "2.0",
            "routeKey": self.route,
            "rawPath": path,
            "rawQueryString": "&".join(f"{name}={value}" for name, value in self.query.items()),
            "headers": {
                "accept": "*/*",
                "content-length": "120",
                "content-type": "application/json",
                "host": "abcdefghij.execute-api.us-east-1.amazonaws.com",
                "user-agent": "curl/8.5.0",
                "x-amzn-trace-id": "Root=1-6a5cb7f0-4c5e4f0a9d510d2a5b1c7e38",
                "x-forwarded-for": "192.0.2.1",
                "x-forwarded-port": "443",
                "x-forwarded-proto": "https",
            },
            "requestContext": {
                "accountId": "123456789012",
                "apiId": "abcdefghij",
                "authorizer": {"iam": {"userArn": "arn:aws:iam::123456789012:user/monitoring"}},
                "domainName": "abcdefghij.execute-api.us-east-1.amazonaws.com",
                "domainPrefix": "abcdefghij",
                "http": {
                    "method": method,
                    "path": path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": "192.0.2.1",
                    "userAgent": "curl/8.5.0",
                },
                "requestId": "JKJaXmPLvHcESHA=",
                "routeKey": self.route,
                "stage": "$default",
                "time": "23/Nov/2026:10:00:00 +0000",
                "timeEpoch": 1795428000000,
            },
            "isBase64Encoded": False,
        }
        if self.query:
            event["queryStringParameters"] = self.query
        if "{id}" in self.route:
            event["pathParameters"] = {"id": INCIDENT}
        if self.body:
            event["body"] = json.dumps(self.body, ensure_ascii=False)
        return event


CREATE = Operation(
    "create",
    "POST /incidents",
    HTTPStatus.CREATED,
    {},
    {"description": "Самокат #4567 не отвечает на запросы", "source": "monitoring"},
)
READ = Operation("read one", "GET /incidents/{id}", HTTPStatus.OK, {}, None)
LIST = Operation("list of 50", "GET /incidents", HTTPStatus.OK, {"status": "open"}, None)
CHANGE = Operation("change status", "PATCH /incidents/{id}", HTTPStatus.OK, {}, {"status": "in_progress"})
OPERATIONS = (CREATE, READ, LIST, CHANGE)


class Package(NamedTuple):
    """What of a build one function runs: its folders, as they lie on its path, and its handler."""

    folders: tuple[Path, ...]
    handler: str

    def files(self) -> list[Path]:
        return [path for folder in self.folders for path in sorted(folder.rglob("*")) if path.is_file()]

    def unzipped(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.files())

    def zipped(self) -> int:
        """Bytes."""
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in self.files():
                archive.write(path)
        return packed.tell()

    def forget_files(self) -> None:
        """Drop the files from the system's cache."""
        for path in self.files():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def package(program: str, operation: Operation) -> Package:
    """What `sam build` made for the operation."""
    if program == OURS:
        (route,) = (route for route in template.load().routes() if route.key == operation.route)
        build = BUILDS / "functions"
        layer = build / "DependenciesLayer" / "python"
        return Package((build / route.function, layer) if layer.exists() else (build / route.function,), route.handler)
    folder = {FASTAPI: "FastApiMangum", BARE: "Bare"}[program]
    return Package((BUILDS / "peers" / folder,), "app.handler")


class Response(TypedDict):
    """What a function answers."""

    statusCode: int
    body: str


class Line(TypedDict):
    """A line of runtime.py's output."""

    calls: float
    process: float
    answer: Response


class Instance:
    """A function in a process of its own, as Lambda runs it."""

    def __init__(self, program: str, operation: Operation, dynamodb: str) -> None:
        built = package(program, operation)
        environment = {
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
            "PYTHONPATH": ":".join(map(str, built.folders)),
        } | template.load().environment(DynamoDBEndpoint=dynamodb)
        command = [*PYTHON, str(HERE / "runtime.py"), built.handler]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, env=environment, text=True)

    def call(self, operation: Operation, times: int) -> tuple[float, float]:
        """Call the function and check its last answer; return the CPU seconds of these calls, and of the process's life."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"event": operation.event(), "times": times}) + "\n")
        self._process.stdin.flush()
        line: Line = json.loads(self._process.stdout.readline())
        assert line["answer"]["statusCode"] == operation.status, line
        if operation is LIST:
            assert len(json.loads(line["answer"]["body"])) == 50
        return line["calls"], line["process"]

    def peak_memory(self) -> int:
        """Bytes. Not getrusage's, which has this process's own memory from before the other began to run."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(None, None, None)  # closes its input, at which it ends


@contextmanager
def stub() -> Iterator[str]:
    """The address of the DynamoDB that answers at once."""
    with Popen([sys.executable, "-m", "tests.benchmarks.dynamodb"], stdout=PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


Figures = dict[str, dict[str, list[float]]]
"""What was measured, by name and program: a figure for each round, or the one where there is nothing to repeat."""


def measure(dynamodb: str) -> Figures:
    """Everything, in rounds."""
    figures: Figures = {}

    def note(name: str, program: str, value: float) -> None:
        figures.setdefault(name, {}).setdefault(program, []).append(value)

    for round_ in range(RUNS):
        print(f"\rround {round_ + 1} of {RUNS}", end="", file=sys.stderr, flush=True)
        turn = PROGRAMS[round_ % 3 :] + PROGRAMS[: round_ % 3]
        for operation in OPERATIONS:
            for program in turn:
                started = perf_counter()
                with Instance(program, operation, dynamodb) as instance:
                    _, cpu = instance.call(operation, 1)
                    note(f"cold start, {operation.name}, CPU ms", program, 1000 * cpu)
                    note(f"cold start, {operation.name}, wall ms", program, 1000 * (perf_counter() - started))
                    note(f"peak memory, {operation.name}, MB", program, instance.peak_memory() / 1e6)
                    instance.call(operation, CALLS)
                    asked(dynamodb)
                    cpu, _ = instance.call(operation, CALLS)
                    note(f"warm {operation.name}, CPU µs", program, 1e6 * cpu / CALLS)
                    note(f"DynamoDB requests, {operation.name}", program, asked(dynamodb) / CALLS)
        for program in turn:
            package(program, CREATE).forget_files()
            started = perf_counter()
            with Instance(program, CREATE, dynamodb) as instance:
                instance.call(CREATE, 1)
                note("cold start, create, files not cached, wall ms", program, 1000 * (perf_counter() - started))
    print(file=sys.stderr)
    for program in PROGRAMS:
        note("package, zipped, MB", program, package(program, CREATE).zipped() / 1e6)
        note("package, unzipped, MB", program, package(program, CREATE).unzipped() / 1e6)
    return dict(sorted(figures.items(), key=lambda figure: KINDS.index(figure[0].split()[0])))


KINDS = ("cold", "warm", "package,", "peak", "DynamoDB")
"""The order of the table, by a row's first word."""


def asked(dynamodb: str) -> int:
    """How many requests DynamoDB has had since it was last asked that."""
    with urlopen(dynamodb) as response:  # noqa: S310 (it is http)
        counts: dict[str, int] = json.load(response)
    return sum(counts.values())


# US East (N. Virginia), arm64, dollars, as published in May 2026; without free tiers.
PRICES = {"a request of Lambda": 0.20e-6, "a GB-second of Lambda": 13.3334e-6}
MEMORY = 0.5
"""GB, as in the template. Lambda gives a function a CPU for each 1,769 MB."""
CPU_SHARE = 512 / 1769
DYNAMODB_WAIT = 0.005
"""Seconds that a request to DynamoDB takes, within a region: assumed, the same for all."""
COLD_CALLS = 0.01
"""The part of the calls that meet a cold start: assumed. Lambda bills it as any other call."""


def cost(figures: Figures, program: str, operation: Operation) -> float:
    """Dollars that Lambda asks for a million calls: CPU time as measured here, stretched to the function's share of a CPU.

    The gateway's dollar and DynamoDB's requests come on top, the same for all.
    """
    cold = median(figures[f"cold start, {operation.name}, CPU ms"][program]) / 1000
    warm = median(figures[f"warm {operation.name}, CPU µs"][program]) / 1e6
    billed = [ceil(1000 * (cpu / CPU_SHARE + DYNAMODB_WAIT)) / 1000 for cpu in (cold, warm)]
    seconds = COLD_CALLS * billed[0] + (1 - COLD_CALLS) * billed[1]
    return 1e6 * (PRICES["a request of Lambda"] + seconds * MEMORY * PRICES["a GB-second of Lambda"])


class Row(TypedDict):
    """A line of the table: a median for each program, and ours by each peer's as [lower quartile, median, upper]."""

    medians: dict[str, float]
    ratios: dict[str, list[float]]


def rows(figures: Figures) -> dict[str, Row]:
    return {
        name: {
            "medians": {program: round(median(values), 3) for program, values in of_program.items()},
            "ratios": {peer: ratio(of_program[OURS], of_program[peer]) for peer in (FASTAPI, BARE)},
        }
        for name, of_program in figures.items()
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The quartiles of the rounds' ratios."""
    each = [our / their for our, their in zip(ours, theirs, strict=True)]
    return [round(quartile, 3) for quartile in (quantiles(each) if len(each) > 1 else each * 3)]


def regressions(now: Mapping[str, Row], committed: Mapping[str, Row]) -> list[str]:
    """The ratios that have grown beyond noise: by more than a twentieth, and their quartiles clear of the committed ones.

    Not those of wall time, which is the machine's affair, nor of the price, which follows from the others.
    """
    found = []
    for name, row in now.items():
        if "wall" in name or "price" in name:
            continue
        for peer, (low, middle, _) in row["ratios"].items():
            if name not in committed:
                continue
            _, before, high = committed[name]["ratios"][peer]
            if low > high and middle > 1.05 * before:
                found.append(f"{name}: {middle:.2f} of {peer}, was {before:.2f}")
    return found


def print_table(table: Mapping[str, Row]) -> None:
    """As Markdown, for the README."""
    print(f"| | {' | '.join(PROGRAMS)} | : {FASTAPI} | : {BARE} |\n|---|---|---|---|---|---|")
    for name, row in table.items():
        cells = [f"{row['medians'][program]:.{2 if row['medians'][program] < 10 else 0}f}" for program in PROGRAMS]
        cells += [f"{row['ratios'][peer][1]:.2f}" for peer in (FASTAPI, BARE)]
        print(f"| {name} | {' | '.join(cells)} |")


def machine() -> str:
    """What this was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {date.today()}"  # noqa: DTZ011


CHART = (
    ("Cold start, CPU ms", [(operation.name, f"cold start, {operation.name}, CPU ms") for operation in OPERATIONS]),
    ("Warm request, CPU µs", [(operation.name, f"warm {operation.name}, CPU µs") for operation in OPERATIONS]),
    ("Package, MB", [("zipped", "package, zipped, MB"), ("unzipped", "package, unzipped, MB")]),
)


def draw(table: Mapping[str, Row]) -> None:
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "speed", "font.family": "sans-serif", "font.size": 9})
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, (title, bars) in zip(figure.subplots(1, 3, width_ratios=[3, 4, 2]), CHART, strict=True):
        for place, program in enumerate(PROGRAMS):
            heights = [table[name]["medians"][program] for _, name in bars]
            drawn = axes.bar([x + 0.28 * (place - 1) for x in range(len(bars))], heights, 0.26, label=program)
            axes.bar_label(drawn, fmt=lambda height: f"{height:,.0f}", fontsize=7, padding=1)
        axes.set_xticks(range(len(bars)), [label for label, _ in bars])
        axes.set_title(title)
        axes.margins(y=0.1)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    os.sync()  # or the files cannot leave the cache
    with stub() as dynamodb:
        figures = measure(dynamodb)
    for operation in OPERATIONS:
        name = f"Lambda's price of a million calls, {operation.name}, $"
        figures[name] = {program: [cost(figures, program, operation)] for program in PROGRAMS}
    table = rows(figures)
    print(f"{machine()}; medians of {RUNS} runs; ours to each peer's as the ratio")
    print_table(table)
    if RESULTS.exists():
        worse = regressions(table, json.loads(RESULTS.read_text())["rows"])
        if worse:
            sys.exit("\n".join(["Worse than the committed figures, which stay as they are:", *worse]))
    RESULTS.write_text(
        json.dumps(
            {"command": "make bench", "machine": machine(), "runs": RUNS, "rows": table}, indent=1, ensure_ascii=False
        )
        + "\n"
    )
    draw(table)


if __name__ == "__main__":
    main()
