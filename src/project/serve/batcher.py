"""Dynamic batching of concurrent requests."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from project.deploy.load import PredictFunction
from project.runs.predictor import Scores

MAX_BATCH_SIZE = 32
Stack = Callable[[Sequence[NDArray[Any]]], NDArray[Any]]


class Batcher:
    """Runs a model in one thread; samples that arrive while it is busy form the next batch.

    There is no batching delay: a single sample is predicted immediately, and batches grow with the load.

    Args:
        scores: The model: raw inputs, with a leading batch dimension, to float32 (N, outputs).
        stack: Makes one array of raw inputs.
        on_batch: Called with the size of each batch.
    """

    def __init__(self, scores: PredictFunction, stack: Stack, on_batch: Callable[[int], None]) -> None:
        self.scores, self.stack, self.on_batch = scores, stack, on_batch
        self.queue: list[tuple[NDArray[Any], asyncio.Future[Scores]]] = []
        self.executor = ThreadPoolExecutor(1)
        self.task: asyncio.Task[None] | None = None

    async def __call__(self, sample: NDArray[Any]) -> Scores:
        """Return the scores of one raw input, float32 (outputs,)."""
        future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self.queue.append((sample, future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self.queue:
            pending = [item for item in self.queue if not item[1].done()]  # requests may have been canceled
            batch, self.queue = pending[:MAX_BATCH_SIZE], pending[MAX_BATCH_SIZE:]
            if not batch:
                return
            self.on_batch(len(batch))
            try:
                samples = self.stack([sample for sample, _ in batch])
                rows = await asyncio.get_running_loop().run_in_executor(self.executor, self.scores, samples)
            except Exception as error:  # the requests of this batch fail, later ones are still served
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)
