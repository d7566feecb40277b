"""The local run: the gateway, the functions and the database in one process, until a signal."""

import logging
import signal
import sys
from pathlib import Path

from infra.local import environment, template
from infra.local.database import Database
from infra.local.gateway import Gateway
from infra.local.journal import DataFolderError
from infra.local.server import HOST, Server

SIGNALS = {signal.SIGINT, signal.SIGTERM}


def run(port: int, data: Path, parameters: dict[str, str]) -> None:
    """Serve until SIGINT or SIGTERM. If that is not possible, print the reason in one line and exit with status 1."""
    environment.isolate()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("infra.local").setLevel(logging.INFO)
    declared = template.load()
    try:
        declared.check(parameters)
        database = Server(Database(data, declared), 0)
        functions_log = (data / "functions.log").open("a", buffering=1)
        gateway = Gateway(functions_log, **parameters, DynamoDBEndpoint=f"http://{HOST}:{database.port}")
        server = Server(gateway, port)
    except (DataFolderError, template.ParameterError) as error:
        sys.exit(str(error))
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {port} cannot be used ({error}). Another one: make run PORT=8001")
    # From here on signals wait for sigwait: none interrupts a request, or a line of this program.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # Before a function runs, which takes the standard output for itself. Both ports accept connections already.
    print(f"The API answers on http://localhost:{server.port}/incidents/")
    print(f"It can be tried out on http://localhost:{server.port}/docs")
    print(f"The incidents are kept in {data.resolve()}. Ctrl-C stops.", flush=True)
    database.start()
    server.start()
    signal.sigwait(SIGNALS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a second signal ends the program at once
    server.stop()
    database.stop()
    print("Stopped.")
