"""Incidents as a FastAPI user would write them for Lambda: one application in Mangum, on boto3's resource."""

import os
import uuid
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

import boto3
from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError
from fastapi import FastAPI, HTTPException, Query
from mangum import Mangum
from pydantic import BaseModel, Field

Status = Literal["open", "in_progress", "resolved", "closed"]


class NewIncident(BaseModel):
    """A report."""

    description: Annotated[str, Field(min_length=1, max_length=10_000)]
    source: Literal["operator", "monitoring", "partner"]
    status: Status = "open"


class StatusChange(BaseModel):
    """A change by a client."""

    status: Status


class Incident(NewIncident):
    """A recorded incident."""

    id: uuid.UUID
    created_at: datetime
    updated_at: datetime


app = FastAPI()
table = boto3.resource("dynamodb").Table(os.environ["TABLE_NAME"])


@app.post("/incidents", status_code=201)
def create_incident(new: NewIncident) -> Incident:
    now = datetime.now(UTC)
    incident = Incident(**new.model_dump(), id=uuid.uuid4(), created_at=now, updated_at=now)
    item = incident.model_dump(mode="json")
    table.put_item(Item={**item, "status_shard": f"{new.status}#0", "position": f"{now}#{incident.id}"})
    return incident


@app.get("/incidents")
def list_incidents(status: Status | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> list[Incident]:
    incidents: list[Incident] = []
    for wanted in [status] if status else get_args(Status):
        found = table.query(
            IndexName="by-status",
            KeyConditionExpression=Key("status_shard").eq(f"{wanted}#0"),
            ScanIndexForward=False,
            Limit=limit,
        )
        incidents += [Incident.model_validate(item) for item in found["Items"]]
    return sorted(incidents, key=lambda incident: incident.created_at, reverse=True)[:limit]


@app.get("/incidents/{incident_id}")
def get_incident(incident_id: uuid.UUID) -> Incident:
    found = table.get_item(Key={"id": str(incident_id)}, ConsistentRead=True)
    if "Item" not in found:
        raise HTTPException(404, "There is no incident with this id.")
    return Incident.model_validate(found["Item"])


@app.patch("/incidents/{incident_id}")
def update_incident(incident_id: uuid.UUID, change: StatusChange) -> Incident:
    try:
        updated = table.update_item(
            Key={"id": str(incident_id)},
            UpdateExpression="SET #status = :status, status_shard = :shard, updated_at = :now",
            ConditionExpression=Attr("id").exists(),
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={
                ":status": change.status,
                ":shard": f"{change.status}#0",
                ":now": datetime.now(UTC).isoformat(),
            },
            ReturnValues="ALL_NEW",
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        raise HTTPException(404, "There is no incident with this id.") from error
    return Incident.model_validate(updated["Attributes"])


handler = Mangum(app, lifespan="off")
