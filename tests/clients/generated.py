"""A client generated from infra/openapi.json at work: `python generated.py URL`, on an API without incidents."""

import re
import sys

from incident_api_client import Client
from incident_api_client.api.incidents import create_incident, get_incident, list_incidents, update_incident
from incident_api_client.models import Incident, Problem, Report, Source, Status, StatusChange


def create(client: Client, number: int) -> Incident:
    new = Report(description=f"Самокат {number}", source=Source.MONITORING)
    first, again = (create_incident.sync(client=client, body=new, idempotency_key=f"key-{number}") for _ in range(2))
    assert isinstance(first, Incident), first
    assert again == first
    return first


def pages(client: Client, limit: int) -> list[list[Incident]]:
    found = []
    cursor: dict[str, str] = {}
    while True:
        response = list_incidents.sync_detailed(client=client, status=[Status.OPEN], limit=limit, **cursor)
        assert isinstance(response.parsed, list), response
        found.append(response.parsed)
        following = re.search(r"[?&]cursor=([^&>]+)", response.headers.get("Link", ""))
        if not following:
            return found
        cursor = {"cursor": following[1]}


def main() -> None:
    with Client(base_url=sys.argv[1], raise_on_unexpected_status=True) as client:
        created = [create(client, number) for number in range(5)]
        listed = pages(client, limit=2)
        assert [len(page) for page in listed] == [2, 2, 1]
        assert {incident.id for page in listed for incident in page} == {incident.id for incident in created}

        first = created[0].id
        changed = update_incident.sync(first, client=client, body=StatusChange(status=Status.RESOLVED), if_match='"1"')
        assert isinstance(changed, Incident), changed
        assert (changed.status, changed.version) == (Status.RESOLVED, 2)
        assert get_incident.sync(first, client=client) == changed
        assert sum(len(page) for page in pages(client, limit=2)) == 4

        refused = update_incident.sync(first, client=client, body=StatusChange(status=Status.CLOSED), if_match='"1"')
        assert isinstance(refused, Problem), refused
        assert refused.status == 412
        unknown = get_incident.sync("9999", client=client)
        assert isinstance(unknown, Problem), unknown
        assert unknown.status == 404
        print(f"{len(created)} created, {len(listed)} pages read, 1 updated")


if __name__ == "__main__":
    main()
