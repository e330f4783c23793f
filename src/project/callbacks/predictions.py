"""The table that `predict` writes."""

import csv
import heapq
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import lightning as L
from torch import Tensor

from project.interface import Batch, image_classifier, image_data


class PredictionTable(L.Callback):
    """Writes predictions.csv into the run: path, class, and the probability of each class, in the order of the paths.

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
        self.file = folder / "predictions.csv"
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
        data, names = image_data(trainer), _class_names(trainer)
        for index, row in zip(batch.index.tolist(), probabilities, strict=True):
            writer.writerow([index, data.path(index), names[int(row.argmax())], *(f"{p:.6f}" for p in row.tolist())])

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Join the parts."""
        assert self._stream is not None and self.file is not None
        self._stream.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            parts = [self._part(rank) for rank in range(trainer.world_size)]
            join_parts(parts, self.file, ["path", "class", *_class_names(trainer)])
            for part in parts:
                part.unlink()


def _class_names(trainer: L.Trainer) -> list[str]:
    description = image_classifier(trainer).data_description
    assert description is not None
    return description.class_names


def join_parts(parts: Sequence[Path], file: Path, header: list[str]) -> None:
    """Merge CSV parts, each ascending in its first column (a row number, which is dropped), into one file."""
    streams = [part.open(newline="", encoding="utf-8", errors="surrogateescape") for part in parts]
    partial = file.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        merged = heapq.merge(*(csv.reader(stream) for stream in streams), key=lambda row: int(row[0]))
        writer.writerows(row[1:] for row in merged)
    for stream in streams:
        stream.close()
    shutil.move(partial, file)
