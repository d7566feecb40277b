"""Runs Debian's or Ubuntu's Alertmanager, with the receiver documented in infra/integrations.md, and Prometheus."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import yaml

from tests.steps import examples, until

PROGRAM = "prometheus-alertmanager"
PROMETHEUS = "prometheus"
needed = pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"{PROGRAM} is not installed")


def configuration(url: str, key_file: Path) -> str:
    """The documented configuration with this URL and key, and a route with short intervals."""
    block, _ = examples("yaml")
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


def post(alertmanager: httpx.Client, *alerts: dict[str, object]) -> None:
    """Post alerts as Prometheus does."""
    alertmanager.post("/api/v2/alerts", json=alerts).raise_for_status()


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
def running(url: str, key: str = "none") -> Iterator[httpx.Client]:
    """Run an Alertmanager that sends to this URL with this access key; yield its client."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_text(key + "\n")
        (folder / "alertmanager.yml").write_text(configuration(url, folder / "key"))
        command = [
            PROGRAM,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            "--cluster.listen-address=",  # no cluster port
        ]
        with started(command, folder / "log") as client:
            yield client


def reports(prometheus: httpx.Client) -> int:
    """How many alerts it has sent, repetitions included. Resolved alerts are repeated, too."""
    metrics = prometheus.get("/metrics").text
    return sum(map(int, re.findall(r"^prometheus_notifications_sent_total\{.*\} (\d+)$", metrics, re.MULTILINE)))


@contextmanager
def prometheus(
    folder: Path, replica: str, exporter: str, group: str, alertmanager: httpx.Client
) -> Iterator[httpx.Client]:
    """Run a Prometheus whose alert fires while the exporter's `scooter_offline` is 1, with its data in this folder."""
    rule = {
        "alert": "ScooterOffline",
        "expr": "last_over_time(scooter_offline[1m]) == 1",  # a failed scrape does not end the alert
        "labels": {"group": group},
        "annotations": {"summary": "Самокат {{ $labels.instance }} не отвечает"},
    }
    every = ("scrape_interval", "scrape_timeout", "evaluation_interval")
    configuration = {
        "global": {"external_labels": {"replica": replica}} | dict.fromkeys(every, "200ms"),
        "scrape_configs": [
            {"job_name": "scooters", "static_configs": [{"targets": [httpx.URL(exporter).netloc.decode()]}]}
        ],
        "rule_files": ["rules.yml"],
        "alerting": {
            "alert_relabel_configs": [{"regex": "replica", "action": "labeldrop"}],
            "alertmanagers": [{"static_configs": [{"targets": [alertmanager.base_url.netloc.decode()]}]}],
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "scooters", "rules": [rule]}]}))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [
        PROMETHEUS,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        # Alertmanager considers an alert resolved if it is not sent for four times as long.
        "--rules.alert.resend-delay=5s",
    ]
    with started(command, folder / "log") as client:
        yield client


@contextmanager
def started(command: list[str], log: Path) -> Iterator[httpx.Client]:
    """Run a server on a free port of this machine; yield a client once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (
        log.open("wb") as output,
        httpx.Client(base_url=f"http://{address}", trust_env=False) as client,
        subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=output, stderr=output) as process,
    ):

        def ready() -> bool:
            try:
                return client.get("/-/ready").is_success
            except httpx.TransportError:
                return False

        try:
            until(lambda: process.poll() is not None or ready(), f"{command[0]} is ready")
            assert process.poll() is None, log.read_text()
            yield client
        finally:
            process.terminate()
