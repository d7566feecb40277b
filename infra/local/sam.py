"""Serve the API from Lambda's containers, through the SAM CLI, with the database of `make run`: `make sam-local`.

The containers reach this machine as host.docker.internal, a name that samconfig.toml gives them.
"""

import argparse
import ipaddress
import json
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from infra.local import environment, telegram, template
from infra.local.database import Database
from infra.local.items import DataFolderError
from infra.local.server import HOST, Server

# arm64 containers do not run on x86_64 hosts; x86_64 containers run on Apple silicon, but slowly.
ARCHITECTURE = {"arm64": "arm64", "aarch64": "arm64"}.get(platform.machine(), "x86_64")
DATABASE_PORT = 8001
"""The port in samconfig.toml."""


def _host() -> str:
    """An address of this machine that containers can reach, and other machines cannot: on Linux, that of Docker's bridge."""
    if sys.platform != "linux":
        return HOST
    command = ["docker", "network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode:
        sys.exit(f"Docker is needed, but does not answer: {found.stderr.strip()}")
    config: dict[str, str] = json.loads(found.stdout)[0]
    return config.get("Gateway") or str(ipaddress.ip_network(config["Subnet"])[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.local.sam", description="Serve the API with sam local start-api.")
    parser.add_argument("--sam", type=shlex.split, default=["sam"], help="the SAM CLI; empty for the database alone")
    parser.add_argument("--port", type=int, default=8000, help="where the API answers (%(default)s)")
    parser.add_argument("--database-port", type=int, default=DATABASE_PORT, help="where DynamoDB answers (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path(".local"), help="the folder with the incidents (%(default)s)")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if not shutil.which("docker"):
        sys.exit("Docker is needed, but not installed.")
    environment.isolate()
    host = _host()
    try:
        declared = template.load()
        # The SAM CLI prefers values from its own environment to the template's.
        for name in declared.environment():
            os.environ.pop(name, None)
        database = Database(options.data, declared)
        server = Server(telegram.with_token(database), options.database_port, host)
    except (DataFolderError, template.TemplateError) as error:
        sys.exit(str(error))
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {options.database_port} of {host} cannot be used: {error}.")
    server.start()
    print(f"DynamoDB answers on http://{host}:{server.port}", flush=True)
    try:
        if not options.sam:
            signal.pause()
        sys.exit(_start_api(options.sam, options.port, server.port))
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
        database.close()


def _start_api(sam: list[str], port: int, database_port: int) -> int:
    """Build, and serve until the SAM CLI or a signal ends it; return its exit status."""
    parameters = [f"Architecture={ARCHITECTURE}", f"DynamoDBEndpoint=http://host.docker.internal:{database_port}"]
    overrides = ["--parameter-overrides", *parameters]
    built = subprocess.run([*sam, "build", *overrides], check=False)  # noqa: S603
    if built.returncode:
        return built.returncode
    # In a new session: otherwise Ctrl-C would reach the SAM CLI twice, from the terminal and from here.
    command = [*sam, "local", "start-api", "--port", str(port), *overrides]
    serving = subprocess.Popen(command, start_new_session=True)  # noqa: S603
    try:
        return serving.wait()
    except KeyboardInterrupt:
        serving.terminate()  # it then removes its containers
        serving.wait()
        raise


if __name__ == "__main__":
    main()
