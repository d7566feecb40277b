"""`make doctor`, with each thing missing, and an account that answers over HTTP. tests/test_deploy.py has its first half."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.wrappers import Request, Response

from tests.conftest import ROOT

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LIMIT = json.dumps({"AccountLimit": {"ConcurrentExecutions": 300}})
IDENTITY = """<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ops</Arn>
<Account>123456789012</Account><UserId>x</UserId></GetCallerIdentityResult></GetCallerIdentityResponse>"""
STACK = """<DescribeStacksResponse><DescribeStacksResult><Stacks><member><StackName>incident-api</StackName>
<StackStatus>{}</StackStatus><CreationTime>2026-11-24T00:00:00Z</CreationTime><Parameters><member>
<ParameterKey>RequestsAtOnce</ParameterKey><ParameterValue>{}</ParameterValue></member></Parameters></member></Stacks>
</DescribeStacksResult></DescribeStacksResponse>"""
ERROR = "<ErrorResponse><Error><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"
DENIED = Response(ERROR.format("AccessDenied", "not authorized"), 403)
EXPIRED = Response(ERROR.format("ExpiredToken", "The security token is expired"), 403)
NO_STACK = Response(ERROR.format("ValidationError", "Stack with id incident-api does not exist"), 400)
PROGRAMS = {"python": "Python 3.13.0", "sam": "SAM CLI, version 1.170.0", "aws": "aws-cli/2.30.1 Python/3.13"}
GOOD = {"GetCallerIdentity": Response(IDENTITY), "DescribeStacks": Response(STACK.format("UPDATE_COMPLETE", 200))}
GOOD |= {"account-settings": Response(LIMIT, content_type="application/json")}


def stack(state: str, at_once: int = 200) -> dict[str, Response]:
    return {"DescribeStacks": Response(STACK.format(state, at_once))}


Doctor = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def doctor(tmp_path: Path, serve: Callable[["WSGIApplication"], str]) -> Doctor:
    """Run it with these programs and answers of AWS; the first word and the text of each line, by what it is about."""

    def run(
        *arguments: str,
        programs: dict[str, str] = PROGRAMS,
        answers: dict[str, Response] | None = None,
        **environment: str,
    ) -> dict[str, tuple[str, str]]:
        def aws(request: Request) -> Response:
            operation = request.form.get("Action") or request.path.rstrip("/").rpartition("/")[2]
            return (GOOD | (answers or {}))[operation]

        for name, version in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{version}'\n")
            (tmp_path / name).chmod(0o755)
        ran = subprocess.run(
            [sys.executable, "-m", "infra.doctor", "--stack", "incident-api", "--runtime", "python", *arguments],
            cwd=ROOT,
            env={
                "PATH": str(tmp_path),
                "AWS_ENDPOINT_URL": serve(Request.application(aws)),
                "AWS_REGION": "eu-central-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "AWS_EC2_METADATA_DISABLED": "true",
            }
            | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stderr == ""
        lines = [line.split(maxsplit=1) for line in ran.stdout.splitlines()]
        assert ran.returncode == any(word == "missing" for word, _ in lines)
        return {rest[:12].strip(): (word, rest[13:]) for word, rest in lines}

    return run


def test_where_everything_is_there_each_line_says_what(doctor: Doctor) -> None:
    assert doctor() == {
        "Python 3.13": ("ok", "python (Python 3.13.0)"),
        "SAM CLI": ("ok", "SAM CLI, version 1.170.0"),
        "AWS CLI": ("ok", "aws-cli/2.30.1 Python/3.13"),
        "region": ("ok", "eu-central-1"),
        "credentials": ("ok", "from env"),
        "identity": ("ok", "arn:aws:iam::123456789012:user/ops in account 123456789012"),
        "stack": ("ok", "incident-api: UPDATE_COMPLETE."),
        "concurrency": ("ok", "300 functions at once, RequestsAtOnce admits 200"),
    }


def without(name: str) -> dict[str, str]:
    return {program: version for program, version in PROGRAMS.items() if program != name}


@pytest.mark.parametrize(
    ("programs", "about", "says"),
    [
        (without("python"), "Python 3.13", "Install Python 3.13, or name it"),
        (PROGRAMS | {"python": "Python 3.12.1"}, "Python 3.13", "Install Python 3.13, or name it"),
        (without("sam"), "SAM CLI", "sam does not run: install it, or name it"),
        (without("aws"), "AWS CLI", "Install version 2 (there is none)"),
        (PROGRAMS | {"aws": "aws-cli/1.45.11"}, "AWS CLI", "Install version 2 (aws-cli/1.45.11)"),
    ],
)
def test_a_missing_program_is_one_line(doctor: Doctor, programs: dict[str, str], about: str, says: str) -> None:
    lines = doctor(programs=programs)
    assert lines[about][0] == "missing"
    assert lines[about][1].startswith(says)
    assert [word for word, _ in lines.values()].count("missing") == 1


@pytest.mark.parametrize(
    ("environment", "about", "says"),
    [
        ({"AWS_REGION": ""}, "region", "set AWS_REGION"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "credentials", "set AWS_PROFILE"),
        ({"AWS_PROFILE": "lost"}, "profile", "lost"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "identity", "http://127.0.0.1:9"),
    ],
)
def test_without_region_or_credentials_aws_is_not_asked(
    doctor: Doctor, environment: dict[str, str], about: str, says: str
) -> None:
    lines = doctor(**environment)
    assert lines[about][0] == "missing"
    assert says in lines[about][1]
    assert not lines.keys() & {"stack", "concurrency"}


@pytest.mark.parametrize(
    ("answers", "about", "says"),
    [
        ({"GetCallerIdentity": EXPIRED}, "identity", "aws sso login"),
        ({"DescribeStacks": DENIED}, "stack", "not authorized"),
        ({"account-settings": DENIED}, "concurrency", "cannot be read"),
        (stack("UPDATE_COMPLETE", at_once=301), "concurrency", "RequestsAtOnce=300"),
        (stack("ROLLBACK_COMPLETE"), "stack", "Run sam delete"),
        (stack("UPDATE_IN_PROGRESS"), "stack", "wait for its end"),
        (stack("UPDATE_ROLLBACK_FAILED"), "stack", "continue-update-rollback --stack-name incident-api"),
    ],
)
def test_what_the_account_lacks_is_one_line(
    doctor: Doctor, answers: dict[str, Response], about: str, says: str
) -> None:
    lines = doctor(answers=answers)
    assert lines[about][0] == "missing"
    assert says in lines[about][1]
    assert [word for word, _ in lines.values()].count("missing") == 1


@pytest.mark.parametrize(
    ("answer", "says"), [(NO_STACK, "none yet"), (stack("REVIEW_IN_PROGRESS")["DescribeStacks"], "REVIEW")]
)
def test_a_stack_that_does_not_exist_yet_is_no_fault(doctor: Doctor, answer: Response, says: str) -> None:
    word, text = doctor(answers={"DescribeStacks": answer})["stack"]
    assert (word, says in text) == ("ok", True)


def test_a_parameter_of_the_command_line_counts(doctor: Doctor) -> None:
    assert doctor("--parameters", "RequestsAtOnce=400")["concurrency"][0] == "missing"
    assert doctor("--parameters", "Nonsense=1")["parameters"][0] == "missing"
