"""Run train.py with fixed seeds in place of operating-system entropy, to make private training reproducible."""

import itertools
import runpy
import secrets
import sys
from pathlib import Path
from typing import Any

import numpy as np

draws = itertools.count(1)
default_rng = np.random.default_rng


def seeded(seed: Any = None) -> np.random.Generator:
    """Return a NumPy generator; without a seed, use the next fixed one."""
    return default_rng(next(draws) if seed is None else seed)


secrets.randbits = lambda bits: next(draws)
np.random.default_rng = seeded  # type: ignore[assignment]
sys.path.insert(0, str(Path(sys.argv[1]).parent))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
