"""A deployed stack, found with the AWS credentials in the environment, which need cloudformation:DescribeStacks."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

CONFIG = Config(connect_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})


class CommandError(Exception):
    """Why a command did nothing, or stopped: one line for the person who ran it."""


class Stack(NamedTuple):
    status: str
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]

    @property
    def url(self) -> str:
        """The URL that clients use: under the stack's own domain name, if it has one."""
        return self.outputs.get("DomainUrl", self.outputs["ApiUrl"])


def connect() -> boto3.Session:
    """A session in the environment's region, with its credentials."""
    # boto3 does not read AWS_REGION, as other tools do.
    return boto3.Session(region_name=os.environ.get("AWS_REGION") or None)


def describe(session: boto3.Session, name: str) -> Stack:
    """The stack with this name. Raises `CommandError`."""
    try:
        (found,) = session.client("cloudformation", config=CONFIG).describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise CommandError(
            f"There is no stack {name} in {session.region_name}: name the stack with STACK, its region with AWS_REGION."
        ) from None
    return Stack(
        status=found["StackStatus"],
        outputs={each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])},
        parameters={each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])},
    )


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def exit_on_error(*others: type[Exception]) -> Iterator[None]:
    """Turn a `CommandError`, an error of boto3's, or one of these others into one line and exit status 1."""
    errors: tuple[type[Exception], ...] = (CommandError, BotoCoreError, ClientError, *others)
    try:
        yield
    except errors as error:
        sys.exit(one_line(error))
