"""Pictures of many requests through the model together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from project.deploy.load import Probabilities
from project.images import Pixels

LARGEST = 32
"""Pictures in a batch, at most."""


class Batcher:
    """Asks a model about pictures, in one thread: what came while it was busy goes through it together.

    There is no time to wait: a lone picture is answered at once, and under load batches grow by themselves.

    Args:
        probabilities: uint8 (N, 3, size, size) to float32 (N, classes).
        seen: Is told the size of each batch.
    """

    def __init__(self, probabilities: Callable[[Pixels], Probabilities], seen: Callable[[int], None]) -> None:
        self.probabilities, self.seen = probabilities, seen
        self.waiting: deque[tuple[Pixels, asyncio.Future[Probabilities]]] = deque()
        self.thread = ThreadPoolExecutor(1)
        self.running: asyncio.Task[None] | None = None

    async def __call__(self, square: Pixels) -> Probabilities:
        """The probabilities of one picture, uint8 (3, size, size); float32 (classes,)."""
        answer: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        self.waiting.append((square, answer))
        if self.running is None or self.running.done():
            self.running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            some = [self.waiting.popleft() for _ in range(min(LARGEST, len(self.waiting)))]
            some = [(square, answer) for square, answer in some if not answer.done()]  # its request may have given up
            if not some:
                continue
            self.seen(len(some))
            try:
                batch = np.stack([square for square, _ in some])
                rows = await loop.run_in_executor(self.thread, self.probabilities, batch)
            except Exception as error:  # theirs to answer, and the next batch is not to wait for ever
                for _, answer in some:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), row in zip(some, rows, strict=True):
                if not answer.done():
                    answer.set_result(row)
