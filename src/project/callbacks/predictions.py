"""The tables that `predict` and a test write."""

import csv
import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
from torch import Tensor

from project.files import whole
from project.interface import Batch, class_names, image_classifier, image_data, test_folder

TESTED = "test_predictions.csv"


class PredictionTable(L.Callback):
    """Writes what is predicted into the run, a row an image, in the order of the paths.

    `predict` writes predictions.csv: path, class, and the probability of each class; between them `sure`, yes or no,
    of a model that was told how sure to be. A test writes test_predictions.csv: path, true class, predicted class, and
    the probability of either.

    Rows go to disk batch by batch, so that a million images need no memory; with several processes each writes its
    own part and the first one joins them.
    """

    def __init__(self) -> None:
        self._stream: IO[str] | None = None
        self.file: Path | None = None

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open this process's part."""
        folder = Path(trainer.strategy.broadcast(trainer.log_dir or "."))
        folder.mkdir(parents=True, exist_ok=True)
        self._open(trainer, folder / "predictions.csv")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open this process's part, if the test has a folder."""
        if folder := test_folder(trainer):
            self._open(trainer, folder / TESTED)

    def _open(self, trainer: L.Trainer, file: Path) -> None:
        self.file = file
        self._stream = self._part(trainer.global_rank).open("w", newline="", encoding="utf-8", errors="surrogateescape")

    def _part(self, rank: int) -> Path:
        assert self.file is not None
        return self.file.with_suffix(f".part{rank}")

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch."""
        probabilities: Tensor = outputs.cpu()
        assert self._stream is not None
        writer = csv.writer(self._stream)
        data, names = image_data(trainer), class_names(trainer)
        least = image_classifier(trainer).sure_above
        for index, row in zip(batch.index.tolist(), probabilities, strict=True):
            sure = [] if least is None else ["yes" if float(row.max()) >= least else "no"]
            columns = [names[int(row.argmax())], *sure, *(f"{p:.6f}" for p in row.tolist())]
            writer.writerow([index, data.path(index), *columns])

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch."""
        if self._stream is None:
            return
        probability, predicted = outputs.max(1)
        label_probability = outputs.gather(1, batch.label[:, None])[:, 0]
        columns = torch.stack([batch.index, batch.label, predicted]).tolist()
        certainties = torch.stack([probability, label_probability]).tolist()
        path, names = image_data(trainer).path, class_names(trainer)
        csv.writer(self._stream).writerows(
            [index, path(index), names[label], names[guess], f"{p:.6f}", f"{q:.6f}"]
            for index, label, guess, p, q in zip(*columns, *certainties, strict=True)
        )

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Join the parts."""
        sure = [] if image_classifier(trainer).sure_above is None else ["sure"]
        self._join(trainer, ["path", "class", *sure, *class_names(trainer)])

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Join the parts."""
        if self._stream is not None:
            self._join(trainer, ["path", "class", "predicted", "probability", "class_probability"])

    def _join(self, trainer: L.Trainer, header: list[str]) -> None:
        assert self._stream is not None and self.file is not None
        self._stream.close()
        self._stream = None
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            parts = [self._part(rank) for rank in range(trainer.world_size)]
            join_parts(parts, self.file, header)
            for part in parts:
                part.unlink()


def join_parts(parts: Sequence[Path], file: Path, header: list[str]) -> None:
    """Merge CSV parts, each ascending in its first column (a row number, which is dropped), into one file."""
    streams = [part.open(newline="", encoding="utf-8", errors="surrogateescape") for part in parts]
    with whole(file) as partial, partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        merged = heapq.merge(*(csv.reader(stream) for stream in streams), key=lambda row: int(row[0]))
        writer.writerows(row[1:] for row in merged)
    for stream in streams:
        stream.close()
