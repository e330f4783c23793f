"""One pass over many images, on every core, with a progress bar."""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")
CHUNK = 64
"""Images handed to a process at a time."""

_work: Callable[[int], object]


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(work: Callable[[int], object]) -> None:
    global _work
    _work = work
    torch.set_num_threads(1)


def _run(start: int, stop: int) -> list[object]:
    return [_work(number) for number in range(start, stop)]


def each(work: Callable[[int], Result], count: int, title: str) -> Iterator[Result]:
    """`work(0)` to `work(count - 1)`, in order, computed on all cores.

    Args:
        work: Can be pickled.
        count: How many.
        title: What the progress bar says; there is none where the output is not a terminal.
    """
    from rich.console import Console
    from rich.progress import track

    starts = range(0, count, CHUNK)
    stops = [min(start + CHUNK, count) for start in starts]
    with ProcessPoolExecutor(cores(), initializer=_start, initargs=(work,)) as pool:
        chunks = pool.map(_run, starts, stops)
        quiet = count < 10 * CHUNK or not sys.stderr.isatty()
        for chunk in track(chunks, title, len(starts), console=Console(stderr=True), disable=quiet, transient=True):
            yield from chunk  # type: ignore[misc]
