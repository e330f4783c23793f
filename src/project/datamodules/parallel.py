"""One pass over many images, on every core, with a progress bar."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")
CHUNK = 64  # images handed to a process at a time
AHEAD = 4  # chunks that each process may be ahead of what is taken

_work: Callable[[int], object]


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(devices: int) -> int:
    """Processes that read images for one of so many devices: none on a lone core, else up to one a core."""
    return 0 if cores() == 1 else max(1, min(cores() // devices, 16))


def _start(work: Callable[[int], object]) -> None:
    global _work
    _work = work
    torch.set_num_threads(1)


def _run(start: int, stop: int) -> list[object]:
    return [_work(number) for number in range(start, stop)]


def each(work: Callable[[int], Result], count: int, title: str) -> Iterator[Result]:
    """`work(0)` to `work(count - 1)`, in order, computed on all cores; on a terminal the title has a progress bar."""
    from rich.console import Console
    from rich.progress import track

    quiet = count < 10 * CHUNK or not sys.stderr.isatty()
    starts = track(range(0, count, CHUNK), title, console=Console(stderr=True), disable=quiet, transient=True)
    pool = ProcessPoolExecutor(cores(), initializer=_start, initargs=(work,))
    ahead: deque[Future[list[object]]] = deque()
    try:
        for start in starts:
            ahead.append(pool.submit(_run, start, min(start + CHUNK, count)))
            if len(ahead) > AHEAD * cores():  # no further, so that a slow taker does not fill the memory
                yield from ahead.popleft().result()  # type: ignore[misc]
        while ahead:
            yield from ahead.popleft().result()  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
