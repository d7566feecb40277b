"""Run the API under the SAM CLI, in Lambda's own containers, on the database of `make run`: `make sam-local`.

The containers reach this machine as host.docker.internal, which samconfig.toml names to them.
"""

import argparse
import ipaddress
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

from infra.local import template
from infra.local.__main__ import HOST, serve
from infra.local.database import Database, Unusable

# arm64 containers do not run on a PC; x86_64 ones would run on Apple silicon, but slowly.
ARCHITECTURE = {"arm64": "arm64", "aarch64": "arm64"}.get(platform.machine(), "x86_64")
DATABASE_PORT = 8001
"""What samconfig.toml says too, for a bare `sam local start-api`."""


def _host() -> str:
    """The address of this machine that containers reach, and nobody outside: on Linux, its end of Docker's bridge."""
    if sys.platform != "linux":
        return HOST
    command = ["docker", "network", "inspect", "bridge", "--format", "{{json .IPAM.Config}}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if found.returncode:
        sys.exit(f"Docker is needed, and does not answer: {found.stderr.strip()}")
    config: dict[str, str] = json.loads(found.stdout)[0]
    return config.get("Gateway") or str(ipaddress.ip_network(config["Subnet"])[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.local.sam", description="Serve the API with sam local start-api.")
    parser.add_argument("--sam", default="sam", help="the SAM CLI; empty for the database alone")
    parser.add_argument("--port", type=int, default=8000, help="where the API answers (%(default)s)")
    parser.add_argument("--database-port", type=int, default=DATABASE_PORT, help="where DynamoDB answers (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path(".local"), help="the folder with the incidents (%(default)s)")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not shutil.which("docker"):
        sys.exit("Docker is needed, and is not installed.")
    host = _host()
    declared = template.load()
    try:
        database = serve(Database(options.data, declared), options.database_port, host)
    except Unusable as error:
        sys.exit(str(error))
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {options.database_port} of {host} cannot be used: {error}.")
    Thread(target=database.serve_forever, daemon=True).start()
    print(f"DynamoDB answers on http://{host}:{database.port}", flush=True)
    parameters = [f"Architecture={ARCHITECTURE}", f"DynamoDBEndpoint=http://host.docker.internal:{database.port}"]
    overrides = ["--parameter-overrides", *parameters]
    # What stands in this environment would go before what the template says; nobody's real keys are needed.
    environment = {name: value for name, value in os.environ.items() if name not in declared.environment()}
    environment |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        if not options.sam:
            signal.pause()
        subprocess.run([options.sam, "build", *overrides], env=environment, check=True)  # noqa: S603
    except KeyboardInterrupt:
        return
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    # In a session of its own, so that Ctrl-C, which goes to all of the terminal's, comes here alone, and is handed on once.
    command = [options.sam, "local", "start-api", "--port", str(options.port), *overrides]
    sam = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
    try:
        sys.exit(sam.wait())
    except KeyboardInterrupt:
        sam.terminate()  # on which it removes its containers
        sam.wait()


if __name__ == "__main__":
    main()
