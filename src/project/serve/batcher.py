"""Pictures of many requests through the model together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from project.deploy.load import Answers, Probabilities
from project.images import Pixels

LARGEST = 32  # pictures in a batch, at most


class Batcher:
    """Asks a model about pictures, in one thread: what came while it was busy goes through it together.

    There is no time to wait: a lone picture is answered at once, and under load batches grow by themselves. The model
    maps uint8 (N, 3, size, size) to float32 (N, classes); `seen` is told the size of each batch.
    """

    def __init__(self, probabilities: Answers, seen: Callable[[int], None]) -> None:
        self.probabilities, self.seen = probabilities, seen
        self.waiting: list[tuple[Pixels, asyncio.Future[Probabilities]]] = []
        self.thread = ThreadPoolExecutor(1)
        self.running: asyncio.Task[None] | None = None

    async def __call__(self, square: Pixels) -> Probabilities:
        """Return the probabilities of one picture, uint8 (3, size, size): float32 (classes,)."""
        answer: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        self.waiting.append((square, answer))
        if self.running is None or self.running.done():
            self.running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        while self.waiting:
            wanted = [pair for pair in self.waiting if not pair[1].done()]  # its request may have given up
            some, self.waiting = wanted[:LARGEST], wanted[LARGEST:]
            if not some:
                return
            self.seen(len(some))
            try:
                batch = np.stack([square for square, _ in some])
                rows = await asyncio.get_running_loop().run_in_executor(self.thread, self.probabilities, batch)
            except Exception as error:  # theirs to answer, and the next batch is not to wait for ever
                for _, answer in some:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), row in zip(some, rows, strict=True):
                if not answer.done():
                    answer.set_result(row)
