"""The API under `sam local start-api`, as `make sam-local` starts it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest

from infra.local import template
from tests.e2e.aws import ROOT, SAM

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

CONTAINERS = ["docker", "ps", "--all", "--quiet", "--filter", "label=sam.cli.container.type=lambda"]


@dataclass
class SamLocal:
    """The running API and its database."""

    address: str
    dynamodb: "DynamoDBClient"
    table = template.TABLE

    def client(self) -> httpx.Client:
        """A client of the API; a request that starts a container takes its time."""
        return httpx.Client(base_url=self.address, timeout=60)


def containers() -> set[str]:
    """The containers that the SAM CLI has started on this machine."""
    return set(subprocess.run(CONTAINERS, capture_output=True, text=True, check=True).stdout.split())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def sam_local() -> Iterator[SamLocal]:
    """The API on a free port of this machine; gone with all its containers in the end, on a SIGTERM."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    before = containers()
    with TemporaryDirectory() as data:
        port = free_port()
        command = [sys.executable, "-u", "-m", "infra.local.sam", "--sam", SAM, "--port", str(port)]
        command += ["--database-port", "0", "--data", data]
        local = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
        try:
            assert local.stdout
            endpoint = local.stdout.readline().split()[-1]
            dynamodb = boto3.client("dynamodb", endpoint_url=endpoint)
            address = f"http://127.0.0.1:{port}"
            # The build comes first: some ten attempts, each after twice as long as the one before.
            with httpx.Client(transport=httpx.HTTPTransport(retries=9)) as client:
                client.get(f"{address}/incidents", timeout=60)
            yield SamLocal(address, dynamodb)
        finally:
            local.send_signal(signal.SIGTERM)
            print(local.communicate()[0])
    assert local.returncode == 0
    assert containers() <= before
