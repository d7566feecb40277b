"""Parameters for an account of one's own, and the commands that check a stack and move its data."""

import json
import re
from dataclasses import replace
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from tests.e2e.aws import Aws, To
from tests.steps import report

DOMAIN = "incidents.example.com"


@pytest.fixture(scope="module")
def own(deployed: Aws) -> Aws:
    """A stack with the other one's table and default parameters, which the tests change in this order."""
    stack = replace(deployed, stack="incident-api-own")
    stack.deploy(Table=deployed.table)
    return stack


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"DomainName": DOMAIN}, "DomainName needs CertificateArn"),
        ({"AllowedOrigins": "*"}, "must be origins"),
        ({"BasePath": "/v1"}, "must be a path"),
    ],
)
def test_invalid_parameters_are_refused(own: Aws, parameters: dict[str, str], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        own.set_parameters(**parameters)


def test_a_domain_leads_to_one_stack_then_to_another(own: Aws, deployed: Aws) -> None:
    acm = boto3.client("acm", endpoint_url=own.endpoint)
    gateway = boto3.client("apigatewayv2", endpoint_url=own.endpoint)
    certificate = acm.request_certificate(DomainName=DOMAIN, ValidationMethod="DNS")["CertificateArn"]
    headers = {"Authorization": f"Bearer {own.operators_key}"}
    transport = To(own.endpoint)
    with httpx.Client(base_url=f"https://{DOMAIN}/v1", headers=headers, transport=transport, timeout=30) as client:
        own.set_parameters(DomainName=DOMAIN, CertificateArn=certificate, BasePath="v1")
        assert own.output("DomainUrl") == f"https://{DOMAIN}/v1"
        assert re.fullmatch(rf"{DOMAIN} -> d-\S+\.amazonaws\.com \(hosted zone Z\w+\)", own.output("DnsRecord"))
        path = f"/incidents/{report(client)['id']}"
        (mapping,) = gateway.get_api_mappings(DomainName=DOMAIN)["Items"]

        deployed.make("copy-keys", f"FROM={own.output('KeysTableName')}")
        own.set_parameters(MappedApi=deployed.resource("IncidentApi"))
        (moved,) = gateway.get_api_mappings(DomainName=DOMAIN)["Items"]
        assert moved == mapping | {"ApiId": deployed.resource("IncidentApi")}, "the mapping was replaced"
        assert client.get(path).status_code == 200, "the other stack does not accept the copied key"

    own.set_parameters(DomainName="", CertificateArn="", BasePath="", MappedApi="")
    with pytest.raises(StopIteration):
        own.output("DomainUrl")
    with own.client() as api:
        assert api.get(path).status_code == 200


def test_the_doctor_finds_the_stack(own: Aws) -> None:
    output = own.run_make("doctor").stdout
    missing = {line.split(maxsplit=1)[1][:12].strip() for line in output.splitlines() if line.startswith("missing")}
    assert missing <= {"AWS CLI"}
    assert "in account 000000000000" in output
    assert re.search(rf"^ok +stack +{own.stack}: \w+_COMPLETE", output, re.MULTILINE)


def test_incidents_are_imported_erased_and_exported(own: Aws, tmp_path: Path) -> None:
    file, exported = tmp_path / "old.csv", tmp_path / "new.jsonl"
    file.write_text("id,description,source,status,created_at\n1,Old,partner,open,2025-11-08 10:00:00\n")
    assert own.make("import", f"FILE={file}").startswith("1 imported, 0 already there, 0 left out.")
    incident_id = Path(f"{file}.ids.csv").read_text().splitlines()[1].split(",")[1]
    with own.client() as api:
        assert api.get(f"/incidents/{incident_id}").json()["description"] == "Old"
        own.make("erase", f"ID={incident_id}", "YES=1")
        assert api.get(f"/incidents/{incident_id}").json()["description"] == "[erased]"
    own.make("export", f"FILE={exported}", "UNTIL=2025-11-09T00:00:00Z")
    assert [json.loads(line)["id"] for line in exported.read_text().splitlines()] == [incident_id]


def test_the_smoke_test_passes_and_cleans_up(own: Aws) -> None:
    output = own.run_make("smoke", f"API={own.address}").stdout
    wrong = re.findall(r"^WRONG +(.*)$", output, re.MULTILINE)
    assert wrong == [f"/aws/vendedlogs/{own.stack}/access: make-smoke"], "the emulator writes no access log"
    assert "make-smoke" not in own.make("keys")
    with own.client() as api:
        smoked = [each for each in api.get("/incidents").json() if each["description"].startswith("make smoke")]
    assert [each["status"] for each in smoked] == ["closed", "closed"]
