"""Cut the copy of botocore's data that the command line names down to the operations that the functions call."""

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

OPERATIONS = {
    "dynamodb": ("BatchGetItem", "GetItem", "PutItem", "Query", "TransactWriteItems", "UpdateItem"),
    "ssm": ("GetParameter",),
}
"""What the functions' roles allow. An unknown name fails the build."""

MODELS = {"dynamodb": Path("dynamodb", "2012-08-10"), "ssm": Path("ssm", "2014-11-06")}

Model = dict[str, dict[str, object]]


def trim_endpoints(path: Path) -> None:
    """Keep only the endpoints of these services."""
    endpoints = json.loads(path.read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: each for name, each in partition["services"].items() if name in OPERATIONS}
    path.write_text(json.dumps(endpoints))


def trim_model(path: Path, operations: Sequence[str]) -> None:
    """Keep only these operations and the shapes that they use, without documentation."""
    model: Model = json.loads(gzip.decompress(path.read_bytes()))
    model["operations"] = {name: model["operations"][name] for name in operations}
    shapes: dict[str, object] = {}
    missing = set(_shapes(model["operations"]))
    while missing:
        shapes |= {name: model["shapes"][name] for name in missing}
        missing = set(_shapes(shapes)) - shapes.keys()
    model["shapes"] = dict(sorted(shapes.items()))
    # mtime=0 makes the build reproducible.
    path.write_bytes(gzip.compress(json.dumps(_without_documentation(model)).encode(), mtime=0))


def _shapes(node: object) -> Iterator[str]:
    """The names of the shapes that a part of the model refers to."""
    if isinstance(node, dict):
        if isinstance(node.get("shape"), str):
            yield node["shape"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _shapes(each)


def _without_documentation(node: object) -> object:
    if isinstance(node, dict):
        return {name: _without_documentation(value) for name, value in node.items() if name != "documentation"}
    return node


if __name__ == "__main__":
    data = Path(sys.argv[1])
    trim_endpoints(data / "endpoints.json")
    for service, operations in OPERATIONS.items():
        trim_model(data / MODELS[service] / "service-2.json.gz", operations)
