"""Cut the copy of botocore's data that the command line names down to the operations that the functions call."""

import gzip
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

OPERATIONS = {
    "dynamodb": ("BatchGetItem", "GetItem", "PutItem", "Query", "TransactWriteItems", "UpdateItem"),
    "ssm": ("GetParameter",),
}
"""What the functions' roles allow. An unknown name fails the build."""

Model = dict[str, dict[str, object]]


def trim_endpoints(path: Path) -> None:
    """Keep only the endpoints of these services."""
    endpoints = json.loads(path.read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: each for name, each in partition["services"].items() if name in OPERATIONS}
    path.write_text(json.dumps(endpoints))


def trim_model(path: Path, operations: Sequence[str]) -> None:
    """Keep only these operations and the shapes that they use, without documentation."""
    model: Model = json.loads(gzip.decompress(path.read_bytes()), object_hook=_without_documentation)
    model["operations"] = {name: model["operations"][name] for name in operations}
    shapes: dict[str, object] = {}
    missing = _shapes(model["operations"])
    while missing:
        shapes |= {name: model["shapes"][name] for name in missing}
        missing = _shapes(shapes) - shapes.keys()
    model["shapes"] = dict(sorted(shapes.items()))
    # mtime=0 makes the build reproducible.
    path.write_bytes(gzip.compress(json.dumps(model).encode(), mtime=0))


def _without_documentation(node: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in node.items() if name != "documentation"}


def _shapes(part: dict[str, object]) -> set[str]:
    """The names of the shapes that a part of the model refers to."""
    return set(re.findall(r'"shape": "(\w+)"', json.dumps(part)))


if __name__ == "__main__":
    data = Path(sys.argv[1])
    trim_endpoints(data / "endpoints.json")
    for service, operations in OPERATIONS.items():
        (model,) = (data / service).glob("*/service-2.json.gz")
        trim_model(model, operations)
