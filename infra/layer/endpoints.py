"""Cut botocore's endpoints.json, which is named on the command line, down to DynamoDB."""

import json
import sys
from pathlib import Path

path = Path(sys.argv[1])
endpoints = json.loads(path.read_text())
for partition in endpoints["partitions"]:
    partition["services"] = {"dynamodb": partition["services"]["dynamodb"]}
path.write_text(json.dumps(endpoints))
