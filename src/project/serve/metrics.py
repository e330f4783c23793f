"""What Prometheus is told; over all workers, if there are several."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REQUESTS = Counter("predict_requests_total", "Requests to /predict", ["status"])
SECONDS = Histogram(
    *("predict_seconds", "From the head of a request to /predict to its answer"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BATCH = Histogram("model_batch_pictures", "Pictures that went through the model together", buckets=(1, 2, 4, 8, 16, 32))
IN_WORK = Gauge("pictures_in_work", "Pictures admitted and not yet answered", multiprocess_mode="livesum")
CLASSES = Counter("predicted_total", "Answers by class", ["class_name"])


def exposition() -> bytes:
    """All of it as text."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # see `project.serve.serve`
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
