"""Run the API without AWS: `python -m infra.local`, or `make run`."""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path


def main() -> None:
    signal.signal(signal.SIGINT, _exit)
    signal.signal(signal.SIGTERM, _exit)
    parser = argparse.ArgumentParser(prog="infra.local", description="Serve the API on this machine.")
    parser.add_argument("--port", type=int, default=8000, help="where the API answers (%(default)s)")
    parser.add_argument(
        "--data", type=Path, default=Path(".local"), help="the folder that keeps the incidents (%(default)s)"
    )
    parser.add_argument(
        "--parameters", default="", help='values for the stack\'s parameters, such as "StatusShards=2 LogDays=7"'
    )
    options = parser.parse_args()
    try:
        values = [value.partition("=") for value in shlex.split(options.parameters)]
    except ValueError as error:
        sys.exit(f"The parameters cannot be read ({error}): {options.parameters}")
    # Imported this late because it takes a second, in which Ctrl-C has to work.
    from infra.local.run import run

    run(options.port, options.data, {name: value for name, _, value in values})


def _exit(*_: object) -> None:
    """End at once, which loses nothing: every acknowledged write is on the disk."""
    os.write(1, b"Stopped.\n")  # print may be what the signal has interrupted
    os._exit(0)


if __name__ == "__main__":
    main()
