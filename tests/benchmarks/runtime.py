"""As much of Lambda's runtime as a function notices: it imports the handler and calls it with events.

`python runtime.py create_incident.handler`. Each line of the input is `{"event": {...}, "times": 100}`; each line of the
output has the last answer, the CPU seconds that the calls took, and those since the process began, all threads together.
"""

import importlib
import json
import os
import sys
import time


class Context:
    """What Lambda tells a function of its invocation."""

    function_name = "function"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:function"
    memory_limit_in_mb = 1024
    aws_request_id = "b3a1b2c4-5d6e-4f70-8a9b-0c1d2e3f4a5b"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        return 25_000


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
            answer = handler(event, Context())
        now = time.process_time()
        print(json.dumps({"calls": now - started, "process": now, "answer": answer}), file=answers, flush=True)
