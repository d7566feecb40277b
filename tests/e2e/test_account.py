"""A stack in an account of one's own: its parameters that are empty by default, on and off, and `make doctor` and `make smoke`."""

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from tests.e2e.aws import ROOT, Aws, To
from tests.steps import report

DOMAIN = "incidents.example.com"
ORIGIN = "https://ops.example"


@pytest.fixture(scope="module")
def own(deployed: Aws) -> Aws:
    """A stack on the other one's table, with no other parameter. The tests change it in this order."""
    stack = replace(deployed, stack="incident-api-own")
    stack.deploy(Table=deployed.table)
    return stack


@pytest.fixture(scope="module")
def certificate(deployed: Aws) -> str:
    acm = boto3.client("acm", endpoint_url=deployed.endpoint)
    return str(acm.request_certificate(DomainName=DOMAIN, ValidationMethod="DNS")["CertificateArn"])


def status(stack: Aws, key: str, host: str, path: str) -> int:
    """The status of the response to GET of this host's path."""
    with httpx.Client(transport=To(stack.endpoint)) as client:
        return client.get(f"https://{host}{path}", headers={"Authorization": f"Bearer {key}"}).status_code


def test_by_default_there_is_no_domain_no_budget_and_no_browser(own: Aws) -> None:
    processed = own.processed()
    for kind in ("AWS::ApiGatewayV2::DomainName", "AWS::ApiGatewayV2::ApiMapping", "AWS::Budgets::Budget"):
        assert processed.of(kind) == {}
    body = processed.Resources["IncidentApi"].Properties["Body"]
    assert isinstance(body, dict)
    assert sorted(body) == ["components", "info", "openapi", "paths", "servers", "tags"]
    # What is API Gateway's default has to be written out.
    assert body["servers"] == [{"x-amazon-apigateway-endpoint-configuration": {"disableExecuteApiEndpoint": False}}]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"DomainName": DOMAIN}, "DomainName needs CertificateArn"),
        ({"CertificateArn": "arn:aws:acm:eu-central-1:000000000000:certificate/x"}, "for a DomainName"),
        ({"BasePath": "v1"}, "below a DomainName"),
        ({"MappedApi": "abc"}, "for a DomainName"),
        ({"DisableExecuteApiEndpoint": "true"}, "the only address"),
        ({"AllowedOrigins": "*"}, "must be origins"),
        ({"AllowedOrigins": f"{ORIGIN}/"}, "must be origins"),
        ({"BasePath": "/v1"}, "must be a path"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(own: Aws, parameters: dict[str, str], says: str) -> None:
    with pytest.raises(ClientError, match=says):
        own.set_parameters(**parameters)


def test_a_domain_leads_to_the_api_and_then_to_another_stack_s(own: Aws, deployed: Aws, certificate: str) -> None:
    here = own.operators_key
    own.set_parameters(DomainName=DOMAIN, CertificateArn=certificate, BasePath="v1")
    assert own.output("DomainUrl") == f"https://{DOMAIN}/v1"
    assert re.fullmatch(rf"{DOMAIN} -> d-\S+\.amazonaws\.com \(hosted zone Z\w+\)", own.output("DnsRecord"))
    with own.client() as api:
        path = f"/v1/incidents/{report(api)['id']}"
    assert status(own, here, DOMAIN, path) == 200

    (mapping,) = boto3.client("apigatewayv2", endpoint_url=own.endpoint).get_api_mappings(DomainName=DOMAIN)["Items"]
    deployed.make("copy-keys", f"FROM={own.output('KeysTableName')}")
    own.set_parameters(MappedApi=deployed.resource("IncidentApi"))
    (moved,) = boto3.client("apigatewayv2", endpoint_url=own.endpoint).get_api_mappings(DomainName=DOMAIN)["Items"]
    assert moved == mapping | {"ApiId": deployed.resource("IncidentApi")}, "the mapping was replaced"
    assert status(own, here, DOMAIN, path) == 200, "the copied key is not accepted there"

    own.set_parameters(DomainName="", CertificateArn="", BasePath="", MappedApi="")
    with pytest.raises(StopIteration):
        own.output("DomainUrl")
    with own.client() as api:
        assert api.get(path.removeprefix("/v1")).status_code == 200


def test_browsers_of_allowed_origins_need_no_key_for_the_preflight(own: Aws) -> None:
    own.set_parameters(AllowedOrigins=f"{ORIGIN},http://localhost:3000")
    body = own.processed().Resources["IncidentApi"].Properties["Body"]
    assert isinstance(body, dict)
    declared = body["x-amazon-apigateway-cors"]
    assert isinstance(declared, dict)
    # The emulator does not read it there.
    cors = {name[0].upper() + name[1:]: value for name, value in declared.items()} | {"AllowOrigins": [ORIGIN]}
    gateway = boto3.client("apigatewayv2", endpoint_url=own.endpoint)
    gateway.update_api(ApiId=own.resource("IncidentApi"), CorsConfiguration=cors)  # type: ignore[arg-type]  # from JSON
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
    with own.anonymous_client(asked) as browser:
        preflight = browser.options("/incidents")
        assert preflight.status_code in (200, 204)
        assert preflight.headers["Access-Control-Allow-Methods"] == "GET,POST,PATCH"
        assert "idempotency-key" in preflight.headers["Access-Control-Allow-Headers"]
        assert browser.get("/incidents").status_code == 401
    with own.client() as api:
        response = api.get("/incidents", headers=asked)
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "etag" in response.headers["Access-Control-Expose-Headers"]
    own.set_parameters(AllowedOrigins="")


def test_the_doctor_finds_the_stack(own: Aws) -> None:
    ran = subprocess.run(
        ["make", "--silent", "doctor", f"STACK={own.stack}"],
        cwd=ROOT,
        env=os.environ | {"AWS_ENDPOINT_URL": own.endpoint, "AWS_REGION": "eu-central-1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    missing = {line.split(maxsplit=1)[1][:12].strip() for line in ran.stdout.splitlines() if line.startswith("missing")}
    assert missing <= {"AWS CLI"}
    assert "in account 000000000000" in ran.stdout
    assert re.search(rf"^ok +stack +{own.stack}: \w+_COMPLETE", ran.stdout, re.MULTILINE)


def test_incidents_move_in_and_out_and_are_erased(own: Aws, tmp_path: Path) -> None:
    file, out = tmp_path / "old.csv", tmp_path / "new.jsonl"
    rows = [f"{number},Old {number},partner,open,2025-11-08 10:00:00" for number in range(300)]
    file.write_text("\n".join(["id,description,source,status,created_at", *rows]))
    assert own.make("import", f"FILE={file}").startswith("300 imported, 0 already there, 0 left out.")
    assert own.make("import", f"FILE={file}").startswith("0 imported, 300 already there, 0 left out.")
    first = Path(f"{file}.ids.csv").read_text().splitlines()[1].split(",")[1]
    with own.client() as api:
        assert api.get(f"/incidents/{first}").json()["description"] == "Old 0"
        own.make("erase", f"ID={first}", "YES=1")
        assert api.get(f"/incidents/{first}").json()["description"] == "[erased]"
    own.make("export", f"FILE={out}", "UNTIL=2025-11-09T00:00:00Z")
    exported = {json.loads(line)["description"] for line in out.read_text().splitlines()}
    assert exported == {"[erased]"} | {f"Old {number}" for number in range(1, 300)}


def test_the_first_ten_minutes_are_as_expected_and_leave_nothing_open(own: Aws) -> None:
    ran = subprocess.run(
        ["make", "--silent", "smoke", f"STACK={own.stack}", f"API={own.address}"],
        cwd=ROOT,
        env=os.environ | {"AWS_ENDPOINT_URL": own.endpoint},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    wrong = re.findall(r"^WRONG +(.*)$", ran.stdout, re.MULTILINE)
    assert wrong == [f"/aws/vendedlogs/{own.stack}/access: make-smoke"], "the emulator writes no access log"
    assert "make-smoke" not in own.make("keys")
    with own.client() as api:
        smoked = [each for each in api.get("/incidents").json() if each["description"].startswith("make smoke")]
    assert [each["status"] for each in smoked] == ["closed", "closed"]
