"""Incidents in the style of AWS's samples: boto3 and json, without validation, idempotency or error handling."""

import json
import os
import uuid
from datetime import UTC, datetime
from typing import NotRequired, TypedDict

import boto3


class Event(TypedDict):
    """The parts of an HTTP API's event that are used here."""

    routeKey: str
    body: str
    pathParameters: dict[str, str]
    queryStringParameters: NotRequired[dict[str, str]]


TABLE = os.environ["TABLE_NAME"]
dynamodb = boto3.client("dynamodb")


def handler(event: Event, context: object) -> dict[str, object]:  # noqa: ARG001 (Lambda passes it)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    if event["routeKey"] == "POST /incidents":
        incident = {"id": str(uuid.uuid4()), "status": "open", "created_at": now, "updated_at": now}
        incident |= json.loads(event["body"])
        stored = incident | {"status_shard": f"{incident['status']}#0", "position": f"{now}#{incident['id']}"}
        dynamodb.put_item(TableName=TABLE, Item={name: {"S": value} for name, value in stored.items()})
        return {"statusCode": 201, "body": json.dumps(incident)}
    if event["routeKey"] == "GET /incidents":
        asked = event.get("queryStringParameters", {}).get("status")
        incidents = []
        for status in [asked] if asked else ["open", "in_progress", "resolved", "closed"]:
            found = dynamodb.query(
                TableName=TABLE,
                IndexName="by-status",
                KeyConditionExpression="status_shard = :status",
                ExpressionAttributeValues={":status": {"S": f"{status}#0"}},
                ScanIndexForward=False,
                Limit=50,
            )
            incidents += [{name: next(iter(value.values())) for name, value in item.items()} for item in found["Items"]]
        newest = sorted(incidents, key=lambda incident: str(incident["created_at"]), reverse=True)[:50]
        return {"statusCode": 200, "body": json.dumps(newest)}
    key = {"id": {"S": event["pathParameters"]["id"]}}
    if event["routeKey"] == "GET /incidents/{id}":
        item = dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"]
    else:
        item = dynamodb.update_item(
            TableName=TABLE,
            Key=key,
            UpdateExpression="SET #status = :status, updated_at = :now",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": json.loads(event["body"])["status"]}, ":now": {"S": now}},
            ReturnValues="ALL_NEW",
        )["Attributes"]
    return {"statusCode": 200, "body": json.dumps({name: next(iter(value.values())) for name, value in item.items()})}
