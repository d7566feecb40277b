"""Uses a client generated from infra/openapi.json: `python generated.py URL`, on an API without incidents."""

import re
import sys

from incident_api_client import Client
from incident_api_client.api.incidents import create_incident, get_incident, list_incidents, update_incident
from incident_api_client.models import Change, Incident, Problem, Report, Source, Status


def create(client: Client, number: int) -> Incident:
    new = Report(description=f"Самокат {number}", source=Source.MONITORING)
    first, again = (create_incident.sync(client=client, body=new, idempotency_key=f"key-{number}") for _ in range(2))
    assert isinstance(first, Incident), first
    assert again == first
    return first


def pages(client: Client) -> list[list[str]]:
    """The ids of the open incidents, page by page, two to a page."""
    found = []
    cursor: dict[str, str] = {}
    while True:
        response = list_incidents.sync_detailed(client=client, status=[Status.OPEN], limit=2, **cursor)
        found.append([incident.id for incident in response.parsed])
        following = re.search(r"[?&]cursor=([^&>]+)", response.headers.get("Link", ""))
        if not following:
            return found
        cursor = {"cursor": following[1]}


with Client(base_url=sys.argv[1], raise_on_unexpected_status=True) as client:
    ids = [create(client, number).id for number in range(5)]
    listed = pages(client)
    assert [len(page) for page in listed] == [2, 2, 1]
    assert sorted(each for page in listed for each in page) == sorted(ids)

    changed = update_incident.sync(
        ids[0], client=client, body=Change(status=Status.RESOLVED, comment="Заменили модем"), if_match='"1"'
    )
    assert isinstance(changed, Incident), changed
    assert (changed.status, changed.version) == (Status.RESOLVED, 2)
    assert get_incident.sync(ids[0], client=client) == changed

    refused = update_incident.sync(ids[0], client=client, body=Change(status=Status.CLOSED), if_match='"1"')
    unknown = get_incident.sync("9999", client=client)
    assert isinstance(refused, Problem)
    assert isinstance(unknown, Problem)
    assert (refused.status, unknown.status) == (412, 404)
