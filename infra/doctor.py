"""What a deployment needs, and what is there: `make doctor`. Each line says what was found, or what to do.

`make deploy` runs it without a stack before the build: it then prints only what stops a deployment, and calls no AWS service.
The exit status is 1 if something is missing.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from infra.local import template
from infra.stack import CONFIG, CommandError, connect, describe, one_line

if TYPE_CHECKING:
    import boto3

CLI = "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
_FIRST = "The first deployment failed. Run sam delete, and delete the two tables (infra/README.md, Removing)."
WHAT_TO_DO = {
    "REVIEW_IN_PROGRESS": "",  # a change set was made and not executed: the next deployment makes another
    "ROLLBACK_COMPLETE": _FIRST,
    "ROLLBACK_FAILED": _FIRST,
    "UPDATE_ROLLBACK_FAILED": "Run aws cloudformation continue-update-rollback --stack-name {stack}, then make doctor again.",
    "DELETE_FAILED": "Run sam delete again; aws cloudformation describe-stack-events --stack-name {stack} says what failed.",
}
"""What to do before the next deployment, by the state of the stack. `{stack}` is its name."""


class Finding(NamedTuple):
    """What was looked at, what was found or what to do, and whether it is good."""

    what: str
    text: str
    good: bool = False


def tools(runtime: str, sam: str) -> Iterator[Finding]:
    found = _version(shlex.quote(runtime)) if runtime else ""
    good = found.startswith("Python 3.13")
    install = "Install Python 3.13, or name it: make doctor RUNTIME=/path/to/python3.13"
    yield Finding("Python 3.13", f"{runtime} ({found})" if good else install, good)
    found = _version(sam)
    install = f"{sam} does not run: install it, or name it: make doctor SAM=/path/to/sam"
    yield Finding("SAM CLI", found or install, bool(found))
    found = _version("aws")
    good = found.startswith("aws-cli/2.")
    yield Finding("AWS CLI", found if good else f"Install version 2 ({found or 'there is none'}): {CLI}", good)


def _version(program: str) -> str:
    command = [*shlex.split(program), "--version"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip()


def settings(parameters: Mapping[str, str]) -> Iterator[Finding]:
    """The parameters, the region and the credentials of a deployment, without a call to AWS."""
    try:
        template.load().check(parameters)
    except template.ParameterError as error:
        yield Finding("parameters", str(error))
    table, stream = parameters.get("Table"), parameters.get("TableStream")
    if table and stream and f":table/{table}/stream/" not in stream:
        yield Finding("parameters", f"TableStream is not a stream of {table}: make table-stream TABLE={table}")
    try:
        session = connect()
        region = session.region_name
        none = "There is no region: set AWS_REGION, such as AWS_REGION=eu-central-1."
        yield Finding("region", region or none, bool(region))
        found = session.get_credentials()
    except BotoCoreError as error:  # such as a profile that does not exist
        yield Finding("profile", f"{error}.")
        return
    none = "There are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    yield Finding("credentials", f"from {found.method}" if found else none, found is not None)


def identity(session: "boto3.Session") -> Finding:
    try:
        caller = session.client("sts", config=CONFIG).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        refused = "AWS could not be asked, or did not accept these credentials (aws sso login renews some)."
        return Finding("identity", f"{refused} {one_line(error)}")
    return Finding("identity", f"{caller['Arn']} in account {caller['Account']}", good=True)


def account(session: "boto3.Session", stack: str, parameters: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the stack can be deployed, and the account can take the load that the stack admits."""
    at_once = str(template.load().Parameters["RequestsAtOnce"].Default)
    try:
        deployed = describe(session, stack)
    except CommandError:
        yield Finding("stack", f"{stack}: none yet, make deploy creates it", good=True)
    except ClientError as error:
        yield Finding("stack", f"Its state cannot be read. {one_line(error)}")
    else:
        state = deployed.status
        running = "A deployment is running: wait for it to finish." if state.endswith("_IN_PROGRESS") else ""
        advice = WHAT_TO_DO.get(state, running)
        yield Finding("stack", f"{stack}: {state}. {advice.format(stack=stack)}".strip(), not advice)
        at_once = deployed.parameters.get("RequestsAtOnce", at_once)
    yield _concurrency(session, int(parameters.get("RequestsAtOnce", at_once)))


def _concurrency(session: "boto3.Session", at_once: int) -> Finding:
    try:
        limit = session.client("lambda", config=CONFIG).get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    except ClientError as error:
        return Finding("concurrency", f"The account's limit cannot be read. {one_line(error)}")
    text = f"{limit} functions at once, RequestsAtOnce admits {at_once}"
    if limit < at_once:
        text += (
            f': make deploy PARAMETERS="RequestsAtOnce={limit}", or aws service-quotas request-service-quota-increase '
            f"--service-code lambda --quota-code L-B99A9384 --desired-value {max(1000, at_once)}"
        )
    return Finding("concurrency", text, limit >= at_once)


def everything(runtime: str, sam: str, stack: str, parameters: Mapping[str, str]) -> Iterator[Finding]:
    """Every line, in order. Without a region and credentials, AWS is not called."""
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
            yield Finding("account", one_line(error))


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.doctor", description="What a deployment needs, and what is there.")
    parser.add_argument("--parameters", default="", help="values for the stack's parameters, as for make deploy")
    parser.add_argument(
        "--stack", default="", help="report everything, for this stack; by default, only what prevents a deployment"
    )
    parser.add_argument("--runtime", default="", help="Python 3.13, as make found it")
    parser.add_argument("--sam", default="sam", help="the SAM CLI, as make calls it")
    options = parser.parse_args()
    try:
        parameters = template.parse_parameters(options.parameters)
    except template.ParameterError as error:
        sys.exit(str(error))
    if not options.stack:
        sys.exit("\n".join(each.text for each in settings(parameters) if not each.good) or 0)
    good = True
    for finding in everything(options.runtime, options.sam, options.stack, parameters):
        good = good and finding.good
        print(f"{'ok' if finding.good else 'missing':<8} {finding.what:<12} {finding.text}", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
