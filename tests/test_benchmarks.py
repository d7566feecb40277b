"""What tests/benchmarks/README.md says, held to what was measured."""

import json
import re
import subprocess
import sys

from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "benchmarks"


def rows(section: str) -> list[list[str]]:
    """The cells of the section's tables, without their headings."""
    text = (FOLDER / "README.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    tables = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for lines in tables for line in lines.splitlines()]


def test_the_speed_is_what_was_measured_and_within_its_bounds() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.speed", "--published"]
    published = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    measured = [[cell.strip() for cell in line.strip("|").split("|")] for line in published]
    shown = [row for row in rows("Speed") if len(row) == 6]
    assert len(shown) > 10
    assert all(row in measured for row in shown)
    for cell in (cell for row in measured for cell in row if "≤" in cell):
        *ratios, bound = map(float, re.findall(r"[\d.]+", cell))
        assert max(ratios) <= bound


def test_the_pages_cost_what_was_measured() -> None:
    measured = json.loads((FOLDER / "paging.json").read_text())
    for section, table in (("Paging", "pages"), ("Shards", "by_shards")):
        shown = {name: [cell for cell in cells if cell] for name, *cells in rows(section)}
        for name, costs in measured[table].items():
            assert shown[name] == [f"{cost['read_units']:g} ({cost['requests']})" for cost in costs.values()]
