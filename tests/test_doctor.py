"""`make doctor`, with AWS answering over HTTP, and the checks that begin `make deploy`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.wrappers import Request, Response

from infra.doctor import main

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
FULL = ("--stack", "incident-api")
Finding = tuple[str, str]
"""The first word of a line, and its text."""
Doctor = Callable[..., dict[str, Finding]]


def stack(state: str, at_once: int = 200) -> Response:
    return Response(STACK.format(state, at_once))


GOOD = {
    "GetCallerIdentity": Response(IDENTITY),
    "DescribeStacks": stack("UPDATE_COMPLETE"),
    "account-settings": Response(LIMIT, content_type="application/json"),
}


@pytest.fixture
def doctor(
    serve: Callable[["WSGIApplication"], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Doctor:
    """Run it with these programs, responses and variables; return its lines by their subject, or its last words."""

    def run(*arguments: str, programs: dict[str, str] = PROGRAMS, **changes: str | Response) -> dict[str, Finding]:
        answers = GOOD | {name: each for name, each in changes.items() if isinstance(each, Response)}
        environment = {name: each for name, each in changes.items() if isinstance(each, str)}

        def aws(request: Request) -> Response:
            return answers[request.form.get("Action") or request.path.rstrip("/").rpartition("/")[2]]

        for name, version in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\necho '{version}'\n")
            (tmp_path / name).chmod(0o755)
        settings = {"PATH": str(tmp_path), "AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"}
        settings |= {"AWS_ENDPOINT_URL": serve(Request.application(aws))} | environment
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["doctor", "--runtime", "python", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = capsys.readouterr()
        assert errors == ""
        if "--stack" not in arguments:
            assert output == ""
            return {"exit": ("", str(ended.value.code))}
        lines = [line.split(maxsplit=1) for line in output.splitlines()]
        assert ended.value.code == any(word == "missing" for word, _ in lines)
        return {text[:12].strip(): (word, text[13:]) for word, text in lines}

    return run


def test_a_complete_environment_is_described(doctor: Doctor) -> None:
    assert doctor(*FULL) == {
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
    ("changes", "subject", "advice"),
    [
        ({"programs": without("python")}, "Python 3.13", "Install Python 3.13, or name it"),
        ({"programs": PROGRAMS | {"python": "Python 3.12.1"}}, "Python 3.13", "Install Python 3.13, or name it"),
        ({"programs": without("sam")}, "SAM CLI", "sam does not run: install it, or name it"),
        ({"programs": without("aws")}, "AWS CLI", "Install version 2 (there is none)"),
        ({"programs": PROGRAMS | {"aws": "aws-cli/1.45.11"}}, "AWS CLI", "Install version 2 (aws-cli/1.45.11)"),
        ({"AWS_REGION": ""}, "region", "set AWS_REGION"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "identity", "http://127.0.0.1:9"),
        ({"GetCallerIdentity": EXPIRED}, "identity", "aws sso login"),
        ({"DescribeStacks": DENIED}, "stack", "not authorized"),
        ({"DescribeStacks": stack("ROLLBACK_COMPLETE")}, "stack", "Run sam delete"),
        ({"DescribeStacks": stack("UPDATE_IN_PROGRESS")}, "stack", "wait for it to finish"),
        ({"DescribeStacks": stack("UPDATE_ROLLBACK_FAILED")}, "stack", "rollback --stack-name incident-api"),
        ({"DescribeStacks": stack("UPDATE_COMPLETE", 301)}, "concurrency", "RequestsAtOnce=300"),
        ({"account-settings": DENIED}, "concurrency", "cannot be read"),
    ],
)
def test_one_thing_missing_is_one_line(doctor: Doctor, changes: dict[str, object], subject: str, advice: str) -> None:
    found = doctor(*FULL, **changes)
    assert [name for name, (word, _) in found.items() if word == "missing"] == [subject]
    assert advice in found[subject][1]
    assert ("stack" in found) == (subject not in ("region", "identity"))


@pytest.mark.parametrize(("answer", "text"), [(NO_STACK, "none yet"), (stack("REVIEW_IN_PROGRESS"), "REVIEW")])
def test_a_missing_stack_is_no_problem(doctor: Doctor, answer: Response, text: str) -> None:
    word, found = doctor(*FULL, DescribeStacks=answer)["stack"]
    assert (word, text in found) == ("ok", True)


def test_parameters_of_the_command_line_are_checked(doctor: Doctor) -> None:
    found = doctor(*FULL, "--parameters", "RequestsAtOnce=400 Nonsense=1")
    assert (found["concurrency"][0], found["parameters"][0]) == ("missing", "missing")


STREAM = "arn:aws:dynamodb:eu-central-1:123456789012:table/old/stream/2026"


@pytest.mark.parametrize(
    ("parameters", "environment", "message"),
    [
        ("AlarmEmail=ops@example.com LogDays=7", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "0"),
        ("LogDays", {}, "The parameter LogDays cannot be ''."),
        ("LogDays='7", {}, "The parameters cannot be read (No closing quotation)"),
        ("AlarmEmail=ops", {}, "The parameter AlarmEmail cannot be 'ops'."),
        (f"Table=new TableStream={STREAM}", {}, "TableStream is not a stream of new"),
        ("", {"AWS_REGION": ""}, "There is no region: set AWS_REGION"),
        ("", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "There are no AWS credentials: set AWS_PROFILE"),
        ("", {"AWS_PROFILE": "lost"}, "The config profile (lost) could not be found"),
    ],
)
def test_make_deploy_stops_before_the_build(
    doctor: Doctor, parameters: str, environment: dict[str, str], message: str
) -> None:
    _, text = doctor("--parameters", parameters, **environment)["exit"]
    assert text.startswith(message)
    assert "\n" not in text
