"""Cut botocore's data, in the folder that is named on the command line, down to what the functions ask of DynamoDB."""

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

OPERATIONS = ("BatchGetItem", "GetItem", "PutItem", "Query", "UpdateItem")
"""All that the functions' roles allow. One that botocore does not know fails the build."""

MODEL = Path("dynamodb", "2012-08-10", "service-2.json.gz")

Model = dict[str, dict[str, object]]


def trim_endpoints(path: Path) -> None:
    """Leave DynamoDB's endpoints alone."""
    endpoints = json.loads(path.read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {"dynamodb": partition["services"]["dynamodb"]}
    path.write_text(json.dumps(endpoints))


def trim_model(path: Path, operations: Sequence[str]) -> None:
    """Leave these operations and the shapes that they consist of, without documentation."""
    model: Model = json.loads(gzip.decompress(path.read_bytes()))
    model["operations"] = {name: model["operations"][name] for name in operations}
    shapes: dict[str, object] = {}
    missing = set(_shapes(model["operations"]))
    while missing:
        shapes |= {name: model["shapes"][name] for name in missing}
        missing = set(_shapes(shapes)) - shapes.keys()
    model["shapes"] = dict(sorted(shapes.items()))
    # Without the time of the build: the same layer is the same bytes.
    path.write_bytes(gzip.compress(json.dumps(_without_documentation(model)).encode(), mtime=0))


def _shapes(node: object) -> Iterator[str]:
    """The names of all shapes that a part of the model refers to."""
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
    trim_model(data / MODEL, OPERATIONS)
