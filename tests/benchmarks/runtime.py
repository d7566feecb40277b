"""As much of Lambda's runtime as a function notices: it imports the handler and calls it with events.

`python runtime.py create_incident.handler`. Each line of the input is `{"event": {...}, "times": 100}`; each line of the output has
the last answer, the CPU seconds that the calls took, those since the process began, all threads together, and its peak memory in MB.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

CONTEXT = SimpleNamespace(get_remaining_time_in_millis=lambda: 25_000)

if __name__ == "__main__":
    del sys.path[0]  # this file's own folder, which Lambda does not have
    # What the function logs is written, and goes nowhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    module, _, name = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        command = json.loads(line)
        # A fresh event for each call, as a function may change it.
        events = [json.loads(json.dumps(command["event"])) for _ in range(command["times"])]
        started = time.process_time()
        for event in events:
            answer = handler(event, CONTEXT)
        now = time.process_time()
        # Not getrusage's, which has the memory of the process that started this one.
        peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
        figures = {"calls": now - started, "process": now, "peak": peak}
        print(json.dumps(figures | {"answer": answer}), file=answers, flush=True)
