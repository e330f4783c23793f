"""Differentially private training (DP-SGD): a callback and a Poisson batch sampler, chosen by class path."""

from importlib import import_module
from typing import Any

MODULES = {"DifferentialPrivacy": "differential", "PoissonBatchSampler": "poisson"}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(name)
