"""What the API costs, measured: `make bench`. Here, what Lambda does before it imports a function: its environment."""

import os

from infra.local import template

os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")
os.environ.update(template.load().environment())
