"""One line of JSON for each event that a function handles, with its metrics in CloudWatch's embedded metric format.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

# Not Powertools' Logger and Metrics: CONTRIBUTING.md, "One log line".
import json
import os
import time

METRICS_NAMESPACE = os.environ["METRICS_NAMESPACE"]
"""The CloudWatch namespace of this stack's metrics, so that two stacks in one account are counted separately."""

MAX_VALUES = 100
"""Values of one metric in a line: CloudWatch's limit. Further values go into further lines."""


class Line:
    """The log line of one event. It must contain no text from the client."""

    def __init__(self, **fields: object) -> None:
        self._fields = fields
        self._metrics: list[dict[str, object]] = []

    def add(self, **fields: object) -> None:
        self._fields |= fields

    def count(self, metric: str, *values: float, unit: str = "Count", **dimensions: str) -> None:
        """Add values, by default 1, to a CloudWatch metric with these dimensions when the line is written."""
        directive: dict[str, object] = {
            "Namespace": METRICS_NAMESPACE,
            "Dimensions": [list(dimensions)],
            "Metrics": [{"Name": metric, "Unit": unit}],
        }
        self._metrics.append(directive)
        if len(values) > MAX_VALUES:
            rest = Line(request_id=self._fields.get("request_id"))
            rest.count(metric, *values[MAX_VALUES:], unit=unit, **dimensions)
            rest.write()
            values = values[:MAX_VALUES]
        self.add(**{metric: list(values) if len(values) > 1 else next(iter(values), 1)}, **dimensions)

    def write(self) -> None:
        """Print the line without buffering: Lambda may freeze the process as soon as the event is handled."""
        if self._metrics:
            self.add(_aws={"Timestamp": time.time_ns() // 1_000_000, "CloudWatchMetrics": self._metrics})
        print(json.dumps(self._fields), flush=True)
