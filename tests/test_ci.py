"""In CI, a skipped test fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

IN_A_TEST = "import pytest\ndef test(): pytest.skip('no gadget')\n"
BY_A_MARK = "import pytest\n@pytest.mark.skipif(True, reason='no gadget')\ndef test(): pass\n"
OF_A_FILE = "import pytest\npytest.skip('no gadget', allow_module_level=True)\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail(reason='a gap', strict=True)\ndef test(): assert False\n"


def run(folder: Path, code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run pytest on a file with this code, with the project's hooks."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(code)
    inherited = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "tests.conftest", "-c", folder / "pytest.ini", folder],
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": str(ROOT / "functions")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("code", [IN_A_TEST, BY_A_MARK, OF_A_FILE])
def test_a_skip_fails_in_ci_and_says_what_is_missing(tmp_path: Path, code: str) -> None:
    ran = run(tmp_path, code, {"CI": "true"})
    assert ran.returncode not in (0, 5), ran.stdout
    assert "CI skips no test: no gadget" in ran.stdout


def test_a_skip_passes_elsewhere(tmp_path: Path) -> None:
    ran = run(tmp_path, IN_A_TEST, {})
    assert ran.returncode == 0
    assert "1 skipped" in ran.stdout


def test_a_known_emulator_gap_is_not_a_skip(tmp_path: Path) -> None:
    ran = run(tmp_path, EXPECTED_FAILURE, {"CI": "true"})
    assert ran.returncode == 0
    assert "1 xfailed" in ran.stdout
