"""Parallel map over images on all CPU cores, with a progress bar."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")
CHUNK = 64  # images in a task
AHEAD = 4  # tasks per process that may be submitted before their results are consumed

_function: Callable[[int], object]


def cores() -> int:
    """Return the number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(devices: int) -> int:
    """Return the default number of workers per device: 0 on a single core, otherwise up to one per core, at most 16."""
    return 0 if cores() == 1 else max(1, min(cores() // devices, 16))


def _init_process(function: Callable[[int], object]) -> None:
    global _function
    _function = function
    torch.set_num_threads(1)


def _run(start: int, stop: int) -> list[object]:
    return [_function(number) for number in range(start, stop)]


def parallel_map(function: Callable[[int], Result], count: int, title: str) -> Iterator[Result]:
    """Yield `function(0)` to `function(count - 1)`, in order, computed on all cores; in a terminal, show progress."""
    from rich.console import Console
    from rich.progress import track

    quiet = count < 10 * CHUNK or not sys.stderr.isatty()
    starts = track(range(0, count, CHUNK), title, console=Console(stderr=True), disable=quiet, transient=True)
    pool = ProcessPoolExecutor(cores(), initializer=_init_process, initargs=(function,))
    tasks: deque[Future[list[object]]] = deque()
    try:
        for start in starts:
            tasks.append(pool.submit(_run, start, min(start + CHUNK, count)))
            if len(tasks) > AHEAD * cores():  # bounds the memory of results that are not consumed yet
                yield from tasks.popleft().result()  # type: ignore[misc]
        while tasks:
            yield from tasks.popleft().result()  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
