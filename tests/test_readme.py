"""The README's commands, run word for word, answer what the README shows."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT

ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def session() -> list[tuple[str, str]]:
    """Each command of the README's console blocks, and what it prints there."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [
        (command, output)
        for block in blocks
        for command, output in re.findall(r"^\$ (.+)\n((?:[^$].*\n)*)", block, re.M)
    ]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_readme_shows_what_its_commands_answer(api: httpx.Client, tmp_path: Path) -> None:
    # The commands say localhost:8000; curl is told where that is today.
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
        assert without_particulars(ran.stdout) == without_particulars(shown), command


def without_particulars(output: str) -> str:
    """What differs from run to run, made the same: ids, times, cursors, line ends."""
    output = re.sub(ID, "ID", output)
    output = re.sub(TIME, "TIME", output)
    return re.sub(r"cursor=[\w-]+", "cursor=CURSOR", output).strip()
