"""Our functions beside what a user would build instead: cold start, warm requests, memory, package, cost: `make bench`.

Every program is run as `sam build` left it, by the runtime's own Python, with nothing else on its path, against a DynamoDB
on loopback that answers at once, over TLS as on AWS unless a row says otherwise. The programs take turns in every round, so
that whatever else the machine does affects them alike. A ratio is the median over these rounds.

`make bench-check` fails where a ratio is above its published bound. `python -m tests.benchmarks.speed --publish` adds a run
to speed.json and draws speed.svg.
"""

import json
import os
import platform
import sys
import zipfile
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from io import BytesIO
from math import ceil
from pathlib import Path
from statistics import median, quantiles
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple, Self, TypedDict
from urllib.request import urlopen

import matplotlib as mpl
from matplotlib.figure import Figure

from infra.local import template
from infra.local.event import http_event
from tests.benchmarks.dynamodb import INCIDENT, ONE_STATUS

HERE = Path(__file__).parent
BUILDS = template.PATH.parent / ".aws-sam" / "bench"
RESULTS = HERE / "speed.json"
PICTURE = HERE / "speed.svg"

ROUNDS = 15
CALLS = 50
"""Calls of a function in each round, to warm it, and as many again to be measured."""

OURS = "Incident API"
FASTAPI = "FastAPI + Mangum"
BARE = "bare sample"
PROGRAMS = (OURS, FASTAPI, BARE)

# The functions' own Python, not this environment's, and without its site-packages: only what was built is on the path.
PYTHON = [f"{sys.base_prefix}/bin/python3.13", "-S"]


HEADERS = {
    "Accept": "*/*",
    "Authorization": f"Bearer inc_{'A' * 43}",
    "Content-Length": "120",
    "Content-Type": "application/json",
    "Host": "abcdefghij.execute-api.us-east-1.amazonaws.com",
    "User-Agent": "curl/8.5.0",
    "X-Amzn-Trace-Id": "Root=1-6a5cb7f0-4c5e4f0a9d510d2a5b1c7e38",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Proto": "https",
}


def request(route: str, query: str = "", body: Mapping[str, str] | None = None) -> dict[str, object]:
    """A request as HTTP API hands it to a function behind the authorizer."""
    method, path = route.split()
    return http_event(
        method,
        path.replace("{id}", INCIDENT),
        route_key=route,
        path_parameters={"id": INCIDENT} if "{id}" in path else None,
        query=query,
        headers=HEADERS,
        body=json.dumps(body, ensure_ascii=False).encode() if body else b"",
        authorizer={"lambda": {"caller": "monitoring"}},
    )


class Operation(NamedTuple):
    """What is done, by which of our functions, and what its answer holds."""

    name: str
    handler: str
    event: Mapping[str, object]
    answer: Mapping[str, object]
    incidents: int = 1
    table: str = template.TABLE
    programs: Sequence[str] = PROGRAMS

    def check(self, answer: Mapping[str, object]) -> None:
        """Raise `AssertionError` where the operation was not done."""
        assert answer.items() >= self.answer.items(), answer
        if self.incidents > 1:
            assert len(json.loads(str(answer["body"]))) == self.incidents


CREATE = Operation(
    "create",
    "create_incident.handler",
    request("POST /incidents", body={"description": "Самокат #4567 не отвечает на запросы", "source": "monitoring"}),
    {"statusCode": 201},
)
READ = Operation("read one", "read_incidents.handler", request("GET /incidents/{id}"), {"statusCode": 200})
LIST = Operation(
    "list of 50, one status",
    "read_incidents.handler",
    request("GET /incidents", query="status=open"),
    {"statusCode": 200},
    incidents=50,
)
LIST_ALL = Operation(
    "list of 50, all statuses",
    "read_incidents.handler",
    request("GET /incidents"),
    {"statusCode": 200},
    incidents=50,
)
LIST_UNEVEN = LIST_ALL._replace(name="list of 50, all statuses, every incident open", table=ONE_STATUS)
CHANGE = Operation(
    "change status",
    "update_incident.handler",
    request("PATCH /incidents/{id}", body={"status": "in_progress"}),
    {"statusCode": 200},
)
AUTHORIZE = Operation(
    "authorize",
    "authorize.handler",
    request("POST /incidents"),
    {"isAuthorized": True},
    programs=(OURS,),
)
OPERATIONS = (CREATE, READ, LIST, LIST_ALL, LIST_UNEVEN, CHANGE, AUTHORIZE)
COLD = (CREATE, READ, LIST, CHANGE, AUTHORIZE)
"""Those whose cold start is measured: every function, and everything that takes one request to DynamoDB."""

# What no run on any machine should exceed: our figure as a part of each peer's. Further above what is measured than ratios
# move from run to run, and below what a regression such as the loss of the byte code brings.
BOUNDS: dict[str, dict[str, float]] = {
    "cold start": {FASTAPI: 0.28, BARE: 0.66},
    "warm list of 50, one status": {FASTAPI: 0.45, BARE: 0.75},
    "warm list of 50, all statuses, every": {FASTAPI: 0.80, BARE: 1.30},
    "warm list of 50, all statuses": {FASTAPI: 0.40, BARE: 0.60},
    "warm": {FASTAPI: 0.70, BARE: 1.30},
    "package, zipped": {FASTAPI: 0.40, BARE: 0.48},
    "package": {FASTAPI: 0.65, BARE: 0.92},
    "peak memory": {FASTAPI: 0.80, BARE: 1.15},
    "DynamoDB requests, list of 50, all statuses, every": {FASTAPI: 1.25, BARE: 1.25},
    "DynamoDB requests": {FASTAPI: 1.00, BARE: 1.00},
}
"""By the beginning of a row's name, the first that fits; a row that none fits is not judged."""


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
        functions = template.load().functions()
        (function,) = (name for name in functions if functions[name].Handler == operation.handler)
        build = BUILDS / "functions"
        return Package((build / function, build / "DependenciesLayer" / "python"), operation.handler)
    folder = {FASTAPI: "FastApiMangum", BARE: "Bare"}[program]
    return Package((BUILDS / "peers" / folder,), "app.handler")


class Line(TypedDict):
    """A line of runtime.py's output."""

    calls: float
    process: float
    answer: dict[str, object]


class Instance:
    """A function in a process of its own, as Lambda runs it."""

    def __init__(self, program: str, operation: Operation, dynamodb: str, certificates: Path) -> None:
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
            # As many roots as botocore trusts by itself, and one: for botocore, and for the authorizer.
            "AWS_CA_BUNDLE": str(certificates),
            "SSL_CERT_FILE": str(certificates),
        }
        environment |= template.load().environment(DynamoDBEndpoint=dynamodb) | {"TABLE_NAME": operation.table}
        command = [*PYTHON, str(HERE / "runtime.py"), built.handler]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, env=environment, text=True)

    def call(self, operation: Operation, times: int) -> tuple[float, float]:
        """Call the function and check its last answer; return the CPU seconds of these calls, and of the process's life."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"event": operation.event, "times": times}) + "\n")
        self._process.stdin.flush()
        line: Line = json.loads(self._process.stdout.readline())
        operation.check(line["answer"])
        return line["calls"], line["process"]

    def peak_memory(self) -> int:
        """Bytes. Not getrusage's, which has this process's own memory from before the other began to run."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.__exit__(None, None, None)  # closes its input, at which it ends


class Stub(NamedTuple):
    """The DynamoDB that answers at once: its addresses, and a file with the certificates to trust."""

    plain: str
    tls: str
    certificates: Path

    def requests(self) -> int:
        """How many requests it has had since this was last called."""
        with urlopen(self.plain) as response:  # noqa: S310 (it is http)
            counts: dict[str, int] = json.load(response)
        return sum(counts.values())


@contextmanager
def stub() -> Iterator[Stub]:
    with TemporaryDirectory() as folder:
        certificates = Path(folder) / "certificates.pem"
        command = [sys.executable, "-m", "tests.benchmarks.dynamodb", str(certificates)]
        with Popen(command, stdout=PIPE, text=True) as process:
            assert process.stdout
            try:
                plain, tls = process.stdout.readline().split()
                yield Stub(plain, tls, certificates)
            finally:
                process.terminate()


Figures = dict[str, dict[str, list[float]]]
"""What was measured, by name and program: a figure for each round, or the one where there is nothing to repeat."""


def measure(dynamodb: Stub, rounds: int) -> Figures:
    """Everything, in rounds."""
    figures: Figures = {}

    def note(name: str, program: str, value: float) -> None:
        figures.setdefault(name, {}).setdefault(program, []).append(value)

    for round_ in range(rounds):
        print(f"\rround {round_ + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        turn = PROGRAMS[round_ % 3 :] + PROGRAMS[: round_ % 3]
        for operation in COLD:
            for program in filter(operation.programs.__contains__, turn):
                with Instance(program, operation, dynamodb.plain, dynamodb.certificates) as instance:
                    _, cpu = instance.call(operation, 1)
                    note(f"cold start without TLS, {operation.name}, CPU ms", program, 1000 * cpu)
        for operation in OPERATIONS:
            for program in filter(operation.programs.__contains__, turn):
                started = perf_counter()
                with Instance(program, operation, dynamodb.tls, dynamodb.certificates) as instance:
                    first, cpu = instance.call(operation, 1)
                    if operation in COLD:
                        note(f"cold start, {operation.name}, CPU ms", program, 1000 * cpu)
                        note(f"cold start, {operation.name}, wall ms", program, 1000 * (perf_counter() - started))
                        note(f"peak memory, {operation.name}, MB", program, instance.peak_memory() / 1e6)
                    note(f"first request, {operation.name}, CPU ms", program, 1000 * first)
                    instance.call(operation, CALLS)
                    dynamodb.requests()
                    cpu, _ = instance.call(operation, CALLS)
                    note(f"warm {operation.name}, CPU µs", program, 1e6 * cpu / CALLS)
                    note(f"DynamoDB requests, {operation.name}", program, dynamodb.requests() / CALLS)
        for program in turn:
            package(program, CREATE).forget_files()
            started = perf_counter()
            with Instance(program, CREATE, dynamodb.tls, dynamodb.certificates) as instance:
                instance.call(CREATE, 1)
                note("cold start, create, files not cached, wall ms", program, 1000 * (perf_counter() - started))
    print(file=sys.stderr)
    for program in PROGRAMS:
        note("package, zipped, MB", program, package(program, CREATE).zipped() / 1e6)
        note("package, unzipped, MB", program, package(program, CREATE).unzipped() / 1e6)
    return dict(sorted(figures.items(), key=lambda figure: KINDS.index(figure[0].split()[0])))


KINDS = ("cold", "first", "warm", "package,", "peak", "DynamoDB")
"""The order of the table, by a row's first word."""


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


class Run(TypedDict):
    """A line of speed.json."""

    machine: str
    rounds: int
    rows: dict[str, Row]


def rows(figures: Figures) -> dict[str, Row]:
    return {
        name: {
            "medians": {program: round(median(values), 3) for program, values in of_program.items()},
            "ratios": {
                peer: ratio(of_program[OURS], of_program[peer]) for peer in (FASTAPI, BARE) if peer in of_program
            },
        }
        for name, of_program in figures.items()
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The quartiles of the rounds' ratios."""
    each = [our / their for our, their in zip(ours, theirs, strict=True)]
    return [round(quartile, 3) for quartile in (quantiles(each) if len(each) > 1 else each * 3)]


def bound(name: str, peer: str) -> float | None:
    """What our figure should never exceed, as a part of the peer's; None where nothing is promised."""
    for start, bounds in BOUNDS.items():
        if name.startswith(start) and "wall" not in name:
            return bounds[peer]
    return None


def above_bounds(rows: Mapping[str, Row]) -> list[str]:
    """The ratios that are above their bound."""
    found = []
    for name, row in rows.items():
        for peer, (_, middle, _) in row["ratios"].items():
            limit = bound(name, peer)
            if limit is not None and middle > limit:
                found.append(f"{name}: {middle:.2f} of {peer}; at most {limit:.2f} is published")
    return found


def table(runs: Sequence[Run]) -> list[str]:
    """In Markdown: the last run's figures, each ratio's range over the runs, and its bound."""
    lines = [f"| | {' | '.join(PROGRAMS)} | : {FASTAPI} | : {BARE} |", "|---|---|---|---|---|---|"]
    for name, row in runs[-1]["rows"].items():
        cells = [_rounded(row["medians"].get(program)) for program in PROGRAMS]
        for peer in (FASTAPI, BARE):
            ratios = sorted({f"{run['rows'][name]['ratios'][peer][1]:.2f}" for run in runs if peer in row["ratios"]})
            limit = bound(name, peer) if ratios else None
            cells.append("–".join(ratios[:1] + ratios[1:][-1:]) + (f" (≤ {limit:.2f})" if limit is not None else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.{2 if value < 10 else 0}f}"


def machine() -> str:
    """What this was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {date.today()}"  # noqa: DTZ011


CHART = (
    ("Cold start, CPU ms", [(operation.name, f"cold start, {operation.name}, CPU ms") for operation in COLD[:4]]),
    ("Warm request, CPU µs", [(operation.name, f"warm {operation.name}, CPU µs") for operation in OPERATIONS[:6]]),
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
    parser = ArgumentParser(description="Measure the functions beside what one would build instead.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--check", action="store_true", help="fail where a ratio is above its published bound")
    parser.add_argument("--publish", action="store_true", help="add this run to speed.json, and draw speed.svg")
    parser.add_argument("--published", action="store_true", help="measure nothing; print what speed.json has")
    options = parser.parse_args()
    published: list[Run] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if options.published:
        print("\n".join(table(published)))
        return
    os.sync()  # or the files cannot leave the cache
    with stub() as dynamodb:
        figures = measure(dynamodb, options.rounds)
    for operation in COLD:
        name = f"Lambda's price of a million calls, {operation.name}, $"
        figures[name] = {program: [cost(figures, program, operation)] for program in operation.programs}
    run: Run = {"machine": machine(), "rounds": options.rounds, "rows": rows(figures)}
    runs = [*published, run] if options.publish else [run]
    if options.publish:
        RESULTS.write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
        draw(run["rows"])
    print(f"{run['machine']}; medians of {run['rounds']} rounds; ours to each peer's as the ratio")
    print("\n".join(table(runs)))
    if options.check and (above := above_bounds(run["rows"])):
        sys.exit("\n".join(["Worse than published:", *above]))


if __name__ == "__main__":
    main()
