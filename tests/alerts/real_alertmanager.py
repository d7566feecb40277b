"""Runs Debian's or Ubuntu's Alertmanager with the receiver documented in infra/integrations.md."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import yaml

PROGRAM = "prometheus-alertmanager"
PAGE = Path(__file__).parents[2] / "infra" / "integrations.md"
PATIENCE = 60
"""Seconds to wait for a condition, enough for a busy machine."""

needed = pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"{PROGRAM} is not installed")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} seconds: {what}"
        time.sleep(0.05)


def configuration(url: str, key_file: Path) -> str:
    """The documented configuration with this URL and key, and a route with short intervals."""
    section = PAGE.read_text().partition("\n## Alertmanager\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert block.count("https://…/alerts") == block.count("/etc/alertmanager/incident-api.key") == 1
    receivers = yaml.safe_load(
        block.replace("https://…/alerts", url).replace("/etc/alertmanager/incident-api.key", str(key_file))
    )
    route = {
        "receiver": "incidents",
        "group_by": ["group"],
        "group_wait": "200ms",
        "group_interval": "500ms",
        "repeat_interval": "500ms",
    }
    return yaml.safe_dump(receivers | {"route": route}, allow_unicode=True)


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ready(self) -> bool:
        """Whether it accepts alerts."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def post(self, *alerts: dict[str, object]) -> None:
        """Post alerts as Prometheus does."""
        self._client.post("/api/v2/alerts", json=list(alerts)).raise_for_status()


def alert(
    group: str, name: str, starts: datetime, ends: datetime | None = None, summary: str = "Самокат не отвечает"
) -> dict[str, object]:
    """An alert in Prometheus's format, in which a firing alert has a future end."""
    return {
        "labels": {"alertname": "ScooterOffline", "group": group, "instance": name},
        "annotations": {"summary": summary},
        "startsAt": starts.isoformat(),
        "endsAt": (ends or datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        "generatorURL": "http://prometheus.example/graph",
    }


@contextmanager
def running(url: str, key: str = "none") -> Iterator[Alertmanager]:
    """Run an Alertmanager that sends to this URL with this access key."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_text(key + "\n")
        (folder / "alertmanager.yml").write_text(configuration(url, folder / "key"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [
            PROGRAM,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",  # no cluster port
        ]
        with (
            (folder / "log").open("wb") as log,
            httpx.Client(base_url=f"http://{address}", trust_env=False) as client,
            subprocess.Popen(command, stdout=log, stderr=log) as process,
        ):
            try:
                alertmanager = Alertmanager(client)
                until(lambda: process.poll() is not None or alertmanager.ready(), "Alertmanager accepts alerts")
                assert process.poll() is None, (folder / "log").read_text()
                yield alertmanager
            finally:
                process.terminate()
