"""What the API costs, measured: `make bench`. Here, what Lambda does before it imports a function: its environment."""

import os

from infra.local import environment, template

environment.isolate()
os.environ.update(template.load().environment())
