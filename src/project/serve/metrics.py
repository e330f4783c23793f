"""Prometheus metrics, aggregated over all workers."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REQUESTS = Counter("predict_requests_total", "Requests to /predict by status code", ["status"])
LATENCY = Histogram(
    *("predict_seconds", "Latency of requests to /predict"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BATCH_SIZE = Histogram("model_batch_images", "Batch size of the model", buckets=(1, 2, 4, 8, 16, 32))
IN_FLIGHT = Gauge("images_in_flight", "Images accepted and not yet predicted", multiprocess_mode="livesum")
PREDICTIONS = Counter("predicted_total", "Predictions by class or label", ["class_name"])


def exposition() -> bytes:
    """Return all metrics in the Prometheus text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # set by `project.serve.serve` for several workers
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
