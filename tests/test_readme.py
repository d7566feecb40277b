"""The README's commands, run word for word, answer what the README shows, and the Russian README shows the same."""

import re
import shutil
import subprocess
from itertools import zip_longest
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, TEMPLATE

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


def sections(name: str) -> list[tuple[str, list[str]]]:
    """Each section's heading, and what of the section is the same in every language."""
    parts = re.split(r"^## (.+)\n", (ROOT / name).read_text(), flags=re.MULTILINE)
    return list(zip(["the beginning", *parts[1::2]], map(untranslated, parts[::2]), strict=True))


def untranslated(section: str) -> list[str]:
    """Blocks of code, the code and the numbers of tables' first columns, what programs and files are called, addresses."""
    blocks = re.findall(r"^```.*?^```", section, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", section, flags=re.DOTALL | re.MULTILINE)
    subsections = re.findall(r"^###+", prose, re.MULTILINE)
    cells = re.findall(r"^\| *([^|]*)\|", prose, re.MULTILINE)
    keys = [
        key for cell in cells for key in ("|", *re.findall(r"`.*?`|\d+", re.sub(r"(?<=\d)[,\u00a0](?=\d)", "", cell)))
    ]
    lines = re.findall(r"^ {4,8}(\S.*?)(?:  .*)?$", prose, re.MULTILINE)
    addresses = [address for address in re.findall(r"\]\((.+?)\)", prose) if not address.startswith("README")]
    return blocks + subsections + keys + lines + addresses


def test_the_russian_readme_has_the_same_sections_commands_and_tables() -> None:
    for (english, here), (russian, there) in zip_longest(
        sections("README.md"), sections("README.ru.md"), fillvalue=("nothing", [""])
    ):
        assert here == there, f"README.md, {english} and README.ru.md, {russian}"


def test_the_deployment_page_lists_every_parameter_with_its_default() -> None:
    page = (ROOT / "infra/README.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|", page, re.MULTILINE))
    defaults = {name: str(each.Default) for name, each in TEMPLATE.Parameters.items() if name != "DynamoDBEndpoint"}
    assert listed == defaults | {"Architecture": "arm64"}  # as samconfig.toml sets it


def test_a_sam_command_by_hand_names_the_region() -> None:
    # The SAM CLI does not read AWS_REGION: https://github.com/aws/aws-sam-cli/issues/6037
    commands = re.findall(r"^ {4}.*\bsam (?:deploy|delete) .*$", (ROOT / "infra/README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 2
    assert [command for command in commands if '--region "$AWS_REGION"' not in command] == []


@pytest.mark.parametrize("name", ["README.md", "README.ru.md", "CONTRIBUTING.md", "infra/README.md"])
def test_every_verb_is_one_of_make(name: str) -> None:
    verbs = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^ {4}make ([a-z0-9-]+)|`make ([a-z0-9-]+)", (ROOT / name).read_text(), re.MULTILINE))
    assert {verb or other for verb, other in named} <= verbs
