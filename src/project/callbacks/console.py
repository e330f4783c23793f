"""What a person reads while a run goes on."""

import csv
import time
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from rich.console import Console as RichConsole
from rich.table import Table

from project.callbacks.describe import choice_lines, data_line
from project.interface import Split, class_names, image_classifier, image_data
from project.words import counted, duration

FEW = 5
"""Predictions that are shown on the screen."""


class ProgressBar(RichProgressBar):
    """Lightning's bar with loss and images a second; it vanishes at the end, the lines of the epochs stay."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self._loss: Any = None
        self._images, self._started = 0, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Begin to count."""
        self._images, self._started = 0, time.monotonic()
        super().on_train_epoch_start(trainer, *args)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the loss; it is fetched from the device only when the bar is redrawn."""
        self._loss = outputs["loss"]
        self._images += len(batch.index) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs if (self.trainer.max_epochs or -1) >= 0 else "-"
        return f"epoch {current_epoch + 1}/{last}".ljust(len(self.validation_description))  # counted as in the lines

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What stands to the right of the bar."""
        speed = self._images / (time.monotonic() - self._started)
        return {} if self._loss is None else {"loss": f"{float(self._loss):.4f}", "images/s": f"{speed:,.0f}"}


class Console(L.Callback):
    """Says what was found and chosen, then a line an epoch, and the table of a test; nothing on other processes."""

    def __init__(self) -> None:
        self._out = RichConsole(highlight=False, soft_wrap=True)
        self._epoch = 0
        self._best: float | None = None
        self._best_epoch = 0
        self._started = 0.0

    def _say(self, trainer: L.Trainer, *lines: Any) -> None:
        if trainer.is_global_zero:
            bar = trainer.progress_bar_callback
            out = getattr(bar, "_console", None) or self._out  # a bar that is being drawn must know of the line
            for line in lines:
                out.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what was found in the data and what was chosen."""
        self._started = time.monotonic()
        self._best = _best(trainer)  # of a run that continues
        if trainer.fit_loop.restarted_mid_epoch:
            self._epoch = trainer.current_epoch + 1  # no start of it will be told
        self._say(trainer, data_line(image_data(trainer)), *choice_lines(trainer), "")
        self._say(trainer, f"{'epoch':>9} {'train loss':>11} {'acc':>8} {'val loss':>9} {'acc':>8} {'images/s':>9}")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how the epoch before went; by now its checkpoint is written."""
        self._epoch_line(trainer)
        self._epoch = trainer.current_epoch + 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how the last epoch went, and why it was the last."""
        self._epoch_line(trainer)
        for callback in trainer.early_stopping_callbacks:
            if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
                waited = counted(callback.patience, "epoch")
                self._say(trainer, f"stopped early: {callback.monitor} did not improve for {waited}")
        watched = getattr(trainer.checkpoint_callback, "monitor", None)
        best = f", best at epoch {self._best_epoch} by {watched}" if self._best_epoch else ""
        self._say(trainer, f"trained for {duration(time.monotonic() - self._started)}{best}", "")

    def _epoch_line(self, trainer: L.Trainer) -> None:
        if self._epoch == 0:
            return
        value = {name: float(metric) for name, metric in trainer.callback_metrics.items()}
        last = trainer.max_epochs if (trainer.max_epochs or -1) >= 0 else "-"

        def cell(name: str, form: str) -> str:
            return format(value[name], form) if name in value else "-"

        before, self._best = self._best, _best(trainer)
        mark = " best" if self._best != before else ""
        self._best_epoch = self._epoch if mark else self._best_epoch
        if "privacy/epsilon" in value:
            mark = f" epsilon {value['privacy/epsilon']:.2f}{mark}"
        self._say(
            trainer,
            f"{f'{self._epoch}/{last}':>9} {cell('train/loss', '.4f'):>11} {cell('train/acc', '.2%'):>8}"
            f" {cell('val/loss', '.4f'):>9} {cell('val/acc', '.2%'):>8}"
            f" {cell('train/images_per_second', ',.0f'):>9}{mark}",
        )
        self._epoch = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the table of `validate`."""
        if trainer.state.fn == "validate":
            self._say_result(trainer, "val", "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the table of a test, and say so where val stood in."""
        self._say_result(trainer, "test", "test" if image_data(trainer).split_sizes()["test"] else "val")

    def _say_result(self, trainer: L.Trainer, stage: Split, split: Split) -> None:
        model = image_classifier(trainer)
        assert model.data_description is not None
        result, names = model.results[stage], model.data_description.class_names
        images = int(result.per_class["images"].sum())
        table = Table(title=f"{stage}: {counted(images, 'image')} of the {split} split", title_justify="left")
        table.add_column("class")
        for heading in ("precision", "recall", "f1", "images"):
            table.add_column(heading, justify="right")
        for row, name in enumerate(names):
            scores = [f"{float(result.per_class[key][row]):.1%}" for key in ("precision", "recall", "f1")]
            table.add_row(name, *scores, f"{int(result.per_class['images'][row]):,}", end_section=row == len(names) - 1)
        means = [f"{float(result.scalars[key]):.1%}" for key in ("precision", "recall", "f1")]
        table.add_row("mean of classes", *means, f"{images:,}")
        self._say(trainer, table)
        if stage != split:
            self._say(trainer, "no test split: these are the val images, which also chose the best checkpoint")
        found = [f"accuracy {float(result.scalars['acc']):.2%}", f"loss {float(result.scalars['loss']):.4f}"]
        for name, words in {"test/calibration_error": "calibration error", "test/brier": "Brier score"}.items():
            if stage == "test" and name in trainer.callback_metrics:
                found.append(f"{words} {float(trainer.callback_metrics[name]):.4f}")
        self._say(trainer, ", ".join(found))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what was predicted, of a few images, and where the table is."""
        file = Path(trainer.log_dir or ".") / "predictions.csv"
        if trainer.is_global_zero and file.is_file():
            with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
                _, *rows = islice(csv.reader(stream), FEW + 2)
            if len(rows) <= FEW:
                classes = len(class_names(trainer))  # a class may be called as another column is
                self._say(trainer, *(f"{row[0]}: {row[1]} {max(map(float, row[-classes:])):.1%}" for row in rows))
        data = image_data(trainer)
        self._say(trainer, f"predictions: {file}, {counted(data.size, 'image')} of {data.folder}")


def _best(trainer: L.Trainer) -> float | None:
    """The best val score so far."""
    score = getattr(trainer.checkpoint_callback, "best_model_score", None)
    return None if score is None else float(score)
