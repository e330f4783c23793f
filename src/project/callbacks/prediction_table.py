"""Prediction tables of `predict` and `test`."""

import csv
import heapq
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import lightning as L

from project.files import atomic_write
from project.interface import Batch, data_of, module_of, test_folder
from project.runs.folder import TEST_PREDICTIONS


class PredictionTable(L.Callback):
    """Callback that writes a CSV table of predictions, one row per sample in the order of the dataset.

    `predict` writes predictions.csv, `test` writes test_predictions.csv, with the path or text of the sample and the
    columns of the target.

    Rows are written batch by batch to keep memory constant. Each process writes its own part, and rank 0 merges them.
    """

    def __init__(self) -> None:
        self._stream: IO[str] | None = None
        self._file = Path()
        self._columns: Sequence[str] = ()
        self._row: Callable[[Any, Any], list[str]] = lambda scores, true: []

    def on_predict_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Open the part of this process."""
        folder = Path(trainer.strategy.broadcast(trainer.log_dir or "."))
        folder.mkdir(parents=True, exist_ok=True)
        target = module_of(trainer).data_description.target
        self._columns, self._row = target.columns, lambda scores, true: target.row(scores)
        self._open(trainer, folder / "predictions.csv")

    def on_test_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Open the part of this process if the test has an output folder."""
        if folder := test_folder(trainer):
            target = module_of(trainer).data_description.target
            self._columns, self._row = target.test_columns, target.test_row
            self._open(trainer, folder / TEST_PREDICTIONS)

    def _open(self, trainer: L.Trainer, file: Path) -> None:
        self._file = file
        self._stream = _open(self._part(trainer.global_rank), "w")

    def _part(self, rank: int) -> Path:
        return self._file.with_suffix(f".part{rank}")

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write the predictions of a batch."""
        if self._stream is not None:
            path, columns = data_of(trainer).path, (batch.index.tolist(), outputs.cpu().numpy(), batch.target.tolist())
            rows = ([i, path(i), *self._row(scores, true)] for i, scores, true in zip(*columns, strict=True))
            csv.writer(self._stream).writerows(rows)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Merge the parts, each sorted by its first column, the row in the index."""
        if self._stream is None:
            return
        self._stream.close()
        self._stream = None
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            parts = [self._part(rank) for rank in range(trainer.world_size)]
            with atomic_write(self._file) as partial, ExitStack() as stack:
                writer = csv.writer(stack.enter_context(_open(partial, "w")))
                writer.writerow([data_of(trainer).key, *self._columns])
                tables = [csv.reader(stack.enter_context(_open(part))) for part in parts]
                writer.writerows(row[1:] for row in heapq.merge(*tables, key=lambda row: int(row[0])))
            for part in parts:
                part.unlink()

    on_predict_batch_end = on_test_batch_end
    on_predict_end = on_test_end


def _open(file: Path, mode: str = "r") -> IO[str]:
    return file.open(mode, newline="", encoding="utf-8", errors="surrogateescape")
