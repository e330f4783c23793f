"""Training that tells little of any single image, chosen by class path: a callback and a sampler."""

from importlib import import_module
from typing import Any

HOMES = {"DifferentialPrivacy": "differential", "PoissonBatchSampler": "poisson"}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    raise AttributeError(name)
