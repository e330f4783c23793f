"""Tests, in the same structure as src/project."""

import os

# pytest-xdist runs a process on each core: with more threads than that, most of the time is spent waiting.
os.environ.setdefault("OMP_NUM_THREADS", "1")
