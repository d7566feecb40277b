"""Run the API without AWS: `python -m infra.local`, or `make run`."""

import argparse
import os
import signal
from pathlib import Path


def main() -> None:
    signal.signal(signal.SIGINT, _exit)
    signal.signal(signal.SIGTERM, _exit)
    parser = argparse.ArgumentParser(prog="infra.local", description="Serve the API on this machine.")
    parser.add_argument("--port", type=int, default=8000, help="where the API answers (%(default)s)")
    parser.add_argument("--data", type=Path, default=".local", help="the folder that keeps the incidents (%(default)s)")
    parser.add_argument("--parameters", default="", help="the stack's parameters, such as 'StatusShards=2 LogDays=7'")
    options = parser.parse_args()
    # The import takes a second, in which Ctrl-C has to work.
    from infra.local.run import run

    run(options.port, options.data, options.parameters)


def _exit(*_: object) -> None:
    """End at once. Nothing is lost: every acknowledged write is on disk."""
    os.write(1, b"Stopped.\n")  # the signal may have interrupted a print
    os._exit(0)


if __name__ == "__main__":
    main()
