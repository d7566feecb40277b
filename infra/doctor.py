"""What a deployment needs, and what is there: `make doctor`. Each line says what was found, or what to do.

`make deploy` runs its first half before the build, which prints only what stops a deployment and calls no AWS service.
The exit status is 1 if something is missing.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from infra.keys import CONFIG, KeysError, connect, describe
from infra.local import template

if TYPE_CHECKING:
    import boto3

CLI = "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
WHAT_TO_DO = {
    "REVIEW_IN_PROGRESS": "",  # a change set was made and not executed: the next deployment makes another
    "ROLLBACK_COMPLETE": "The first deployment failed. Run sam delete, and delete the two tables (infra/README.md, Removing).",
    "ROLLBACK_FAILED": "The first deployment failed. Run sam delete, and delete the two tables (infra/README.md, Removing).",
    "UPDATE_ROLLBACK_FAILED": "Run aws cloudformation continue-update-rollback --stack-name {stack}, then make doctor again.",
    "DELETE_FAILED": "Run sam delete again; aws cloudformation describe-stack-events --stack-name {stack} says what failed.",
}
"""By a state of the stack in which it cannot be deployed as it is. `{stack}` is its name."""


class Finding(NamedTuple):
    """One line: what was looked at, whether it is good, and what was found or what to do."""

    what: str
    good: bool
    text: str


def tools(runtime: str, sam: str) -> Iterator[Finding]:
    """The programs that build, deploy and look after a stack."""
    found = _version(shlex.quote(runtime)) if runtime else ""
    good = found.startswith("Python 3.13")
    install = "Install Python 3.13, or name it: make doctor RUNTIME=/path/to/python3.13"
    yield Finding("Python 3.13", good, f"{runtime} ({found})" if good else install)
    found = _version(sam)
    yield Finding(
        "SAM CLI", bool(found), found or f"{sam} does not run: install it, or name it: make doctor SAM=/path/to/sam"
    )

    found = _version("aws")
    good = found.startswith("aws-cli/2.")
    yield Finding("AWS CLI", good, found if good else f"Install version 2 ({found or 'there is none'}): {CLI}")


def _version(program: str) -> str:
    try:
        ran = subprocess.run(  # noqa: S603 (the person's own programs)
            [*shlex.split(program), "--version"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip()


def settings(parameters: Mapping[str, str]) -> Iterator[Finding]:
    """The parameters, and where and with what credentials a deployment would act, without asking AWS."""
    try:
        template.load().check(parameters)
    except template.ParameterError as error:
        yield Finding("parameters", good=False, text=str(error))
    table, stream = parameters.get("Table"), parameters.get("TableStream")
    if table and stream and f":table/{table}/stream/" not in stream:
        yield Finding(
            "parameters", good=False, text=f"TableStream is not a stream of {table}: make table-stream TABLE={table}"
        )
    try:
        session = connect()
        where = session.region_name or "There is no region: set AWS_REGION, such as AWS_REGION=eu-central-1."
        yield Finding("region", good=bool(session.region_name), text=where)
        found = session.get_credentials()
    except BotoCoreError as error:  # such as a profile that does not exist
        yield Finding("profile", good=False, text=f"{error}.")
        return
    none = "There are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    yield Finding("credentials", good=found is not None, text=f"from {found.method}" if found else none)


def identity(session: "boto3.Session") -> Finding:
    """Whose the credentials are."""
    try:
        caller = session.client("sts", config=CONFIG).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        return Finding(
            "identity", good=False, text=f"No answer to these credentials (aws sso login renews some). {_line(error)}"
        )
    return Finding("identity", good=True, text=f"{caller['Arn']} in account {caller['Account']}")


def account(session: "boto3.Session", stack: str, parameters: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the account can take the load that the stack admits, and the stack a deployment."""
    at_once = str(template.load().Parameters["RequestsAtOnce"].Default)
    try:
        deployed = describe(session, stack)
        state = deployed["StackStatus"]
        advice = WHAT_TO_DO.get(state, "")
        if not advice and state.endswith("_IN_PROGRESS") and state not in WHAT_TO_DO:
            advice = "A deployment is running: wait for its end."
        yield Finding("stack", not advice, f"{stack}: {state}. {advice.format(stack=stack)}".strip())
        values = {each["ParameterKey"]: each["ParameterValue"] for each in deployed.get("Parameters", [])}
        at_once = values.get("RequestsAtOnce", at_once)
    except KeysError:
        yield Finding("stack", good=True, text=f"{stack}: none yet, make deploy creates it")
    except ClientError as error:
        yield Finding("stack", good=False, text=f"Its state cannot be read. {_line(error)}")
    yield _concurrency(session, int(parameters.get("RequestsAtOnce", at_once)))


def _concurrency(session: "boto3.Session", at_once: int) -> Finding:
    try:
        limit = session.client("lambda", config=CONFIG).get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    except ClientError as error:
        return Finding("concurrency", good=False, text=f"The account's limit cannot be read. {_line(error)}")
    text = f"{limit} functions at once, RequestsAtOnce admits {at_once}"
    if limit < at_once:
        text += (
            f': make deploy PARAMETERS="RequestsAtOnce={limit}", or aws service-quotas request-service-quota-increase '
            f"--service-code lambda --quota-code L-B99A9384 --desired-value {max(1000, at_once)}"
        )
    return Finding("concurrency", good=limit >= at_once, text=text)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def everything(runtime: str, sam: str, stack: str, parameters: Mapping[str, str]) -> Iterator[Finding]:
    """Every line, in order. Where there are no region and credentials, AWS is not asked."""
    yield from tools(runtime, sam)
    found = list(settings(parameters))
    yield from found
    if not all(each.good for each in found if each.what != "parameters"):
        return
    session = connect()
    caller = identity(session)
    yield caller
    if caller.good:
        try:
            yield from account(session, stack, parameters)
        except BotoCoreError as error:
            yield Finding("account", good=False, text=_line(error))


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.doctor", description="What a deployment needs, and what is there.")
    parser.add_argument("--parameters", default="", help="values for the stack's parameters, as for make deploy")
    parser.add_argument("--stack", default="", help="say everything, for this stack; else only what stops a deployment")
    parser.add_argument("--runtime", default="", help="Python 3.13, as make found it")
    parser.add_argument("--sam", default="sam", help="the SAM CLI, as make calls it")
    options = parser.parse_args()
    values = [value.partition("=") for value in shlex.split(options.parameters)]
    parameters = {name: value for name, _, value in values}
    if not options.stack:
        wrong = [finding.text for finding in settings(parameters) if not finding.good]
        sys.exit("\n".join(wrong) or 0)
    good = True
    for finding in everything(options.runtime, options.sam, options.stack, parameters):
        good = good and finding.good
        print(f"{'ok' if finding.good else 'missing':<8} {finding.what:<12} {finding.text}", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
