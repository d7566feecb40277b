"""The access keys of a deployed stack: `make key`, `make keys`, `make revoke`, `make copy-keys`.

The AWS credentials in the environment need cloudformation:DescribeStacks, and dynamodb:PutItem, Scan or DeleteItem on the table of
the keys. A new key is printed once, alone on the standard output; the table has its SHA-256.
"""

import argparse
import re
import secrets
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from infra.stack import CONFIG, CommandError, connect, describe, exit_on_error

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

NAME_PATTERN = r"[a-z0-9-]{1,64}"
ROLES = ("reporter", "observer", "operator", "telegram")
SOURCES = ("operator", "monitoring", "partner")

Key = dict[str, str]
"""An item of the table: `key_hash`, `name`, `role`, `created_at`, perhaps `source` and `expires_at`."""


class Keys:
    def __init__(self, dynamodb: "DynamoDBClient", table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def create(self, name: str, role: str, source: str = "", days: float | None = None) -> str:
        """Store a new key, which expires after so many days or never; return it."""
        key = f"inc_{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC)
        key_hash = sha256(key.encode()).hexdigest()
        item = {"key_hash": key_hash, "name": name, "role": role, "created_at": _timestamp(now)}
        if source:
            item["source"] = source
        if days is not None:
            item["expires_at"] = _timestamp(now + timedelta(days=days))
        self.store(item)
        return key

    def store(self, item: Key) -> None:
        self._dynamodb.put_item(TableName=self._table, Item={name: {"S": value} for name, value in item.items()})

    def all(self) -> list[Key]:
        """Every key, by name, the oldest of a name first."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True)
        items = [{name: value["S"] for name, value in item.items()} for page in pages for item in page["Items"]]
        return sorted(items, key=lambda key: (key["name"], key["created_at"]))

    def revoke(self, key: Key) -> None:
        """Delete a key. The gateway may accept it for another minute."""
        self._dynamodb.delete_item(TableName=self._table, Key={"key_hash": {"S": key["key_hash"]}})


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def find(stack: str) -> Keys:
    session = connect()
    outputs = describe(session, stack).outputs
    if "KeysTableName" not in outputs:
        raise CommandError(f"The stack {stack} has no table of access keys: deploy this version first.")
    return Keys(session.client("dynamodb", config=CONFIG), outputs["KeysTableName"])


def listing(keys: Iterable[Key]) -> str:
    columns = ("name", "role", "source", "created_at", "expires_at")
    rows = [
        ("NAME", "ROLE", "SOURCE", "CREATED", "EXPIRES"),
        *(tuple(key.get(column, "-") for column in columns) for key in keys),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def create(stack: str, name: str, role: str, source: str, days: str) -> None:
    rules = {
        "NAME must be 1 to 64 characters from a-z, 0-9 and -.": re.fullmatch(NAME_PATTERN, name),
        f"ROLE must be one of {', '.join(ROLES)}.": role in ROLES,
        f"SOURCE, if given, must be one of {', '.join(SOURCES)}.": source in ("", *SOURCES),
        "DAYS, if given, must be a number from 1 to 9999.": re.fullmatch("([1-9][0-9]{0,3})?", days),
    }
    if broken := [rule for rule, met in rules.items() if not met]:
        raise CommandError(" ".join(broken))
    key = find(stack).create(name, role, source, int(days) if days else None)
    print(key)
    print("This is the only time that the key is shown. It works at once.", file=sys.stderr)


def show(stack: str) -> None:
    print(listing(find(stack).all()))


def copy(stack: str, table: str) -> None:
    """Store the keys of another stack's table here, so that they work here too."""
    there = Keys(connect().client("dynamodb", config=CONFIG), table).all()
    here = find(stack)
    for key in there:
        here.store(key)
    print(listing(there))


def revoke(stack: str, name: str, created: str, *, yes: bool) -> None:
    """Delete the keys of a name, or the one created at this time; ask first, unless `yes`."""
    keys = find(stack)
    found = [key for key in keys.all() if key["name"] == name and created in ("", key["created_at"])]
    if not found:
        raise CommandError(f"There is no such key in {stack}: make keys lists the existing ones.")
    print(listing(found), file=sys.stderr)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("Nothing was revoked: without a terminal, YES=1 confirms.")
        print("Revoke? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was revoked.")
    for key in found:
        keys.revoke(key)
    print("Revoked. The gateway may accept a key for another minute.", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="infra.keys", description="The access keys of a deployed stack.")
    parser.add_argument("--stack", required=True)
    commands = parser.add_subparsers(required=True)
    creating = commands.add_parser("create")
    creating.set_defaults(run=create)
    creating.add_argument("--name", required=True)
    creating.add_argument("--role", required=True)
    creating.add_argument("--source", default="")
    creating.add_argument("--days", default="", help="days until the key expires; by default, it never does")
    commands.add_parser("list").set_defaults(run=show)
    copying = commands.add_parser("copy")
    copying.set_defaults(run=copy)
    copying.add_argument("--table", required=True, help="the table of the other stack's keys, its output KeysTableName")
    revoking = commands.add_parser("revoke")
    revoking.set_defaults(run=revoke)
    revoking.add_argument("--name", required=True)
    revoking.add_argument("--created", default="", help="when the one key to revoke was made, as `list` shows it")
    revoking.add_argument("--yes", action="store_true", help="do not ask")
    options = vars(parser.parse_args())
    run = options.pop("run")
    with exit_on_error():
        run(**options)


if __name__ == "__main__":
    main()
