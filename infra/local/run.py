"""The local run: the gateway, the functions and the database in one process, until a signal."""

import logging
import os
import signal
import sys
from contextlib import redirect_stdout, suppress
from io import TextIOWrapper
from pathlib import Path

from infra.local import environment, telegram, template
from infra.local.database import Database
from infra.local.gateway import Gateway
from infra.local.items import DataFolderError
from infra.local.server import HOST, Server

SIGNALS = {signal.SIGINT, signal.SIGTERM}


class _Log(TextIOWrapper):
    """A log that drops lines when the disk is full, so that no request fails because of it."""

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)


def run(port: int, data: Path, values: str) -> None:
    """Serve, with these values of the stack's parameters, until SIGINT or SIGTERM. If it cannot start, exit with a line that says why."""
    environment.isolate()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("infra.local").setLevel(logging.INFO)
    try:
        parameters = template.parse_parameters(values)
        declared = template.load()
        chats = telegram.start(parameters)
        declared.check(parameters)
        declared.check_rules(parameters)
        declared.environment(**parameters)  # raises if it cannot be evaluated
        database = Database(data, declared)
        database.attach()
        log_file = (data / "functions.log").open("ab", buffering=0)
        gateway = Gateway(**parameters)
        # From here on, signals wait for sigwait and interrupt neither this thread nor the server's.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        server = Server(gateway, port)
    except (DataFolderError, template.TemplateError) as error:
        sys.exit(str(error))
    except (OSError, OverflowError) as error:
        sys.exit(f"Port {port} cannot be used ({error}). Another one: make run PORT=8001")
    print(f"The API answers on http://localhost:{server.port}{declared.base_path(**parameters)}/incidents/")
    print(f"It can be tried out on http://localhost:{server.port}/docs")
    print(f"The incidents are kept in {data.resolve()}. Ctrl-C stops.", flush=True)
    terminal = sys.stdout
    with redirect_stdout(_Log(log_file, encoding="utf-8", write_through=True)):  # what the functions print
        server.start()
        if chats:
            chats.start(database, gateway, f"http://{HOST}:{server.port}{declared.base_path(**parameters)}/telegram")
        signal.sigwait(SIGNALS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a second signal ends the program at once
        server.stop()
        if chats:
            chats.stop()
        print("Stopped.", file=terminal, flush=True)
        database.close()
        if chats:
            os._exit(0)  # a function may be waiting for Telegram to take more
