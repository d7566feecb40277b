"""The API under `sam local start-api`, as `make sam-local` starts it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
from botocore.config import Config

from infra.local import template
from infra.local.sam import ARCHITECTURE
from tests.e2e.aws import ROOT, SAM, free_port
from tests.telegram.fake_telegram import TOKEN

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

CONTAINERS = ["docker", "ps", "--all", "--quiet", "--filter", "label=sam.cli.container.type=lambda"]


@dataclass
class SamLocal:
    """The running API and its database."""

    address: str
    dynamodb: "DynamoDBClient"
    process: subprocess.Popen[bytes]
    found: set[str]
    """The containers of earlier programs."""
    table = template.TABLE

    def client(self) -> httpx.Client:
        """A client of the API, with time for a request that starts a container."""
        return httpx.Client(base_url=self.address, timeout=60)

    def invoke(self, function: str, event: dict[str, object], **parameters: str) -> None:
        """Run a function once with this event. It reaches this machine as host.docker.internal."""
        database = self.dynamodb.meta.endpoint_url.rpartition(":")[2]
        parameters |= {"DynamoDBEndpoint": f"http://host.docker.internal:{database}", "Architecture": ARCHITECTURE}
        overrides = [f'{name}="{value}"' for name, value in parameters.items()]
        command = [*SAM, "local", "invoke", function, "--event", "-", "--add-host", "host.docker.internal:host-gateway"]
        # The SAM CLI's own environment overrides the template's variables.
        declared = template.load().environment(**parameters)
        environment = {name: value for name, value in os.environ.items() if name not in declared}
        command += ["--parameter-overrides", *overrides]
        subprocess.run(command, cwd=ROOT, env=environment, input=json.dumps(event), text=True, check=True)

    def stop(self) -> int:
        """Terminate the program and return its exit status."""
        self.process.terminate()
        return self.process.wait()


def containers() -> set[str]:
    """The ids of all containers that the SAM CLI has started."""
    return set(subprocess.run(CONTAINERS, capture_output=True, text=True, check=True).stdout.split())


@contextmanager
def running() -> Iterator[SamLocal]:
    """Run the API on a free port."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    found = containers()
    with TemporaryDirectory() as data:
        port = free_port()
        command = [sys.executable, "-u", "-m", "infra.local.sam", "--sam", shlex.join(SAM), "--port", str(port)]
        command += ["--database-port", "0", "--data", data]
        log = Path(data) / "log"
        with log.open("wb") as output:
            environment = os.environ | {"TELEGRAM_TOKEN": TOKEN}
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment)
        try:
            # The build comes first. The pauses between the attempts grow to two minutes.
            with httpx.Client(transport=httpx.HTTPTransport(retries=9)) as client:
                client.get(f"http://127.0.0.1:{port}/incidents", timeout=60)
            (database,) = re.findall(r"DynamoDB answers on (\S+)", log.read_text())
            # Docker's bridge cannot be reached through a proxy.
            dynamodb = boto3.client("dynamodb", endpoint_url=database, config=Config(proxies={}))
            yield SamLocal(f"http://127.0.0.1:{port}", dynamodb, process, found)
        finally:
            process.terminate()
            process.wait()
            print(log.read_text())
