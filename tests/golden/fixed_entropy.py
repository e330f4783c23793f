"""train.py with what it draws from the operating system drawn from fixed seeds: only so can private runs repeat."""

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
    """NumPy's generator; without a seed, the next fixed one."""
    return default_rng(next(draws) if seed is None else seed)


secrets.randbits = lambda bits: next(draws)
np.random.default_rng = seeded  # type: ignore[assignment]
sys.path.insert(0, str(Path(sys.argv[1]).parent))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
