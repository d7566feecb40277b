"""Run the API without AWS: `python -m infra.local`, or `make run`."""

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from infra.local import template
from infra.local.database import Database, Unusable
from infra.local.gateway import Gateway

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOST = "127.0.0.1"


class _Connection(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the gateway logs a line a request, and the database's are its own affair."""


def serve(app: "WSGIApplication", port: int, host: str = HOST) -> BaseWSGIServer:
    """A server that listens on this port, 0 for a free one, of one address alone. Raises `OSError` if the port is taken."""
    with socket.create_server((host, port), backlog=128) as listening:
        # werkzeug listens on a duplicate; had it been left to open the port, it would answer a busy one in its own words.
        return make_server(host, port, app, threaded=True, request_handler=_Connection, fd=listening.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.local", description="Serve the API on this machine.")
    parser.add_argument("--port", type=int, default=8000, help="where the API answers (%(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path(".local"), help="the folder that keeps the incidents (%(default)s)"
    )
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("infra.local").setLevel(logging.INFO)
    # boto3 asks for all three; this database looks at none.
    os.environ.update(AWS_ACCESS_KEY_ID="local", AWS_SECRET_ACCESS_KEY="local", AWS_DEFAULT_REGION="us-east-1")
    # A shell that starts a program in the background has it ignore Ctrl-C's signal: whoever sends one means it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        database = serve(Database(options.data, template.load()), 0)
        functions_log = (options.data / "functions.log").open("a", buffering=1)
        gateway = Gateway(functions_log, DynamoDBEndpoint=f"http://{HOST}:{database.port}")
        server = serve(gateway, options.port)
    except Unusable as error:
        sys.exit(str(error))
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {options.port} cannot be used ({error}). Another one: make run PORT=8001")
    Thread(target=database.serve_forever, daemon=True).start()
    print(f"The API answers on http://localhost:{server.port}/incidents/")
    print(f"It can be tried out on http://localhost:{server.port}/docs")
    print(f"The incidents are kept in {options.data.resolve()}. Ctrl-C stops.", flush=True)
    server.serve_forever()  # werkzeug takes Ctrl-C for the end, and returns
    print("Stopped.")


if __name__ == "__main__":
    main()
