"""The access keys of a deployed stack: `make key`, `make keys`, `make revoke`, `make copy-keys`.

They use the AWS credentials in the environment, which need cloudformation:DescribeStacks, and dynamodb:PutItem, Scan or
DeleteItem on the keys' table. A key is printed once, when it is made, alone on the standard output; the table has its SHA-256.
"""

import argparse
import os
import re
import secrets
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from types_boto3_cloudformation.type_defs import StackTypeDef
    from types_boto3_dynamodb import DynamoDBClient

NAME_PATTERN = r"[a-z0-9-]{1,64}"
ROLES = ("reporter", "observer", "operator", "telegram")
SOURCES = ("operator", "monitoring", "partner")

Key = dict[str, str]
"""An item of the table: `key_hash`, `name`, `role`, `created_at`, perhaps `source` and `expires_at`."""


CONFIG = Config(connect_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})


class KeysError(Exception):
    """Why a command did nothing: one line for the person who gave it."""


class Keys:
    """The access keys in one table."""

    def __init__(self, dynamodb: "DynamoDBClient", table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def create(self, name: str, role: str, source: str = "", days: float | None = None) -> str:
        """Store a new key, which expires after so many days or never; return it."""
        key = f"inc_{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC)
        item = {
            "key_hash": sha256(key.encode()).hexdigest(),
            "name": name,
            "role": role,
            "created_at": _timestamp(now),
        }
        if source:
            item["source"] = source
        if days is not None:
            item["expires_at"] = _timestamp(now + timedelta(days=days))
        self.store(item)
        return key

    def store(self, item: Key) -> None:
        self._dynamodb.put_item(
            TableName=self._table, Item={attribute: {"S": value} for attribute, value in item.items()}
        )

    def all(self) -> list[Key]:
        """Every key, by name, the oldest of a name first."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True)
        items = [
            {attribute: value["S"] for attribute, value in item.items()} for page in pages for item in page["Items"]
        ]
        return sorted(items, key=lambda key: (key["name"], key["created_at"]))

    def revoke(self, key: Key) -> None:
        """Delete a key. The gateway may accept it for another minute."""
        self._dynamodb.delete_item(TableName=self._table, Key={"key_hash": {"S": key["key_hash"]}})


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def connect() -> boto3.Session:
    """AWS, in the region and with the credentials of the environment."""
    # boto3 does not read AWS_REGION, as other tools do.
    return boto3.Session(region_name=os.environ.get("AWS_REGION") or None)


def describe(session: boto3.Session, stack: str) -> "StackTypeDef":
    """What CloudFormation knows of a stack. Raises `KeysError`."""
    try:
        (found,) = session.client("cloudformation", config=CONFIG).describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise KeysError(
            f"There is no stack {stack} in {session.region_name}: name the stack with STACK, its region with AWS_REGION."
        ) from None
    return found


def find(stack: str) -> Keys:
    """The access keys of a stack. Raises `KeysError`."""
    session = connect()
    outputs = {output["OutputKey"]: output["OutputValue"] for output in describe(session, stack).get("Outputs", [])}
    if "KeysTableName" not in outputs:
        raise KeysError(f"The stack {stack} has no access keys: deploy this version of it first.")
    return Keys(session.client("dynamodb", config=CONFIG), outputs["KeysTableName"])


def listing(keys: Iterable[Key]) -> str:
    """The keys as a table for people."""
    columns = ("name", "role", "source", "created_at", "expires_at")
    rows = [
        ("NAME", "ROLE", "SOURCE", "CREATED", "EXPIRES"),
        *(tuple(key.get(column, "-") for column in columns) for key in keys),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def create(stack: str, name: str, role: str, source: str, days: str) -> None:
    """Make a key and print it."""
    broken = []
    if not re.fullmatch(NAME_PATTERN, name):
        broken.append("NAME has 1 to 64 of the characters a-z, 0-9 and -.")
    if role not in ROLES:
        broken.append(f"ROLE is one of {', '.join(ROLES)}.")
    if source and source not in SOURCES:
        broken.append(f"SOURCE is one of {', '.join(SOURCES)}, or is left out.")
    if days and not re.fullmatch("[1-9][0-9]{0,3}", days):
        broken.append("DAYS is a number from 1 to 9999, or is left out.")
    if broken:
        raise KeysError(" ".join(broken))
    key = find(stack).create(name, role, source, int(days) if days else None)
    print(key)
    print("This is the only time that the key is shown. It works at once.", file=sys.stderr)


def copy(stack: str, source: str) -> None:
    """Store the keys of another stack's table here, so that its clients' keys work here too."""
    session = connect()
    there = Keys(session.client("dynamodb", config=CONFIG), source).all()
    here = find(stack)
    for key in there:
        here.store(key)
    print(listing(there))


def revoke(stack: str, name: str, created: str, *, agreed: bool) -> None:
    """Delete the keys of a name, or of these the one made at this moment, once the person at the terminal agrees."""
    keys = find(stack)
    found = [key for key in keys.all() if key["name"] == name and created in ("", key["created_at"])]
    if not found:
        raise KeysError(f"There is no such key in {stack}: make keys shows those there are.")
    print(listing(found), file=sys.stderr)
    if not agreed:
        if not sys.stdin.isatty():
            raise KeysError("Nothing was revoked: without a terminal, YES=1 confirms.")
        print("Revoke? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise KeysError("Nothing was revoked.")
    for key in found:
        keys.revoke(key)
    print("Revoked. The gateway may accept a key for another minute.", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.keys", description="The access keys of a deployed stack.")
    parser.add_argument("--stack", required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    creating = commands.add_parser("create")
    creating.add_argument("--name", required=True)
    creating.add_argument("--role", required=True)
    creating.add_argument("--source", default="")
    creating.add_argument("--days", default="", help="after how many days the key expires; it never does without")
    commands.add_parser("list")
    copying = commands.add_parser("copy")
    copying.add_argument("--table", required=True, help="the table of the other stack's keys, its output KeysTableName")
    revoking = commands.add_parser("revoke")
    revoking.add_argument("--name", required=True)
    revoking.add_argument("--created", default="", help="when the one key to revoke was made, as `list` shows it")
    revoking.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args()
    try:
        match options.command:
            case "create":
                create(options.stack, options.name, options.role, options.source, options.days)
            case "list":
                print(listing(find(options.stack).all()))
            case "copy":
                copy(options.stack, options.table)
            case "revoke":
                revoke(options.stack, options.name, options.created, agreed=options.yes)
    except (KeysError, BotoCoreError, ClientError) as error:
        sys.exit(" ".join(str(error).split()))


if __name__ == "__main__":
    main()
