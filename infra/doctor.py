"""What stops a deployment, told before the build: `make deploy` runs this first.

It calls no AWS service: whether the credentials are valid, the deployment itself will say.
"""

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping

from botocore.exceptions import BotoCoreError

from infra.keys import connect
from infra.local import template


def problems(parameters: Mapping[str, str]) -> Iterator[str]:
    """A line for each thing that is missing or wrong, which says what to do."""
    try:
        template.load().check(parameters)
    except template.ParameterError as error:
        yield str(error)
    try:
        session = connect()
        if not session.region_name:
            yield "There is no region: set AWS_REGION, such as AWS_REGION=eu-central-1."
        if not session.get_credentials():
            yield "There are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    except BotoCoreError as error:  # such as a profile that does not exist
        yield f"{error}."


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.doctor", description="What stops a deployment.")
    parser.add_argument("--parameters", default="", help="values for the stack's parameters, as for make deploy")
    values = [value.partition("=") for value in shlex.split(parser.parse_args().parameters)]
    parameters = {name: value for name, _, value in values}
    if found := list(problems(parameters)):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
