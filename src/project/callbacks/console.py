"""Progress bar and console output."""

import csv
import time
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from rich.console import Console as RichConsole
from rich.table import Table
from typing_extensions import override

from project.callbacks.describe import describe_run
from project.interface import SPLITS, Split, data_of, module_of
from project.output import format_duration, pluralize, shorten


class ProgressBar(RichProgressBar):
    """Progress bar of an epoch with loss and samples per second; it is removed at the end of training."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self._loss: Any = None
        self._samples, self._started = 0, 0.0

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self._samples, self._started = 0, time.monotonic()
        super().on_train_epoch_start(trainer, *args)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        self._loss = outputs["loss"]  # copied from the device only when the bar is redrawn
        self._samples += len(batch.index) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, *args)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {_format_epoch(self.trainer, current_epoch + 1)}".ljust(len(self.validation_description))

    def get_metrics(self, *_: Any) -> dict[str, Any]:
        """Return the loss and the samples per second."""
        speed, kind = self._samples / (time.monotonic() - self._started), module_of(self.trainer).task.sample
        return {} if self._loss is None else {"loss": f"{float(self._loss):.4f}", f"{kind}s/s": f"{speed:,.0f}"}


class Console(L.Callback):
    """Callback that prints a summary of the run, one line per epoch and the results of a test, on rank 0 only."""

    def __init__(self) -> None:
        self._out = RichConsole()
        self._epoch, self._best_epoch, self._started = 0, 0, 0.0
        self._best: tuple[float, float | None] | None = None

    def _print(self, trainer: L.Trainer, *lines: Any) -> None:
        if trainer.is_global_zero:
            # Printing to another console would break an active progress bar.
            out = getattr(trainer.progress_bar_callback, "_console", None) or self._out
            for line in lines:
                out.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Print the summary of the run and the header of the epoch table."""
        self._started = time.monotonic()
        self._best = _best(trainer)  # not None in a resumed run
        if trainer.fit_loop.restarted_mid_epoch:
            self._epoch = trainer.current_epoch + 1  # on_train_epoch_start is not called for it
        self._print(trainer, *describe_run(trainer), "")
        name = f" {headline[0]:>8}" if (headline := module_of(trainer).task.headline) else ""
        own = f" {monitor:>9}" if (monitor := _own_monitor(trainer)) else ""
        speed = f"{module_of(trainer).task.sample}s/s"
        self._print(trainer, f"{'epoch':>9} {'train loss':>11}{name} {'val loss':>9}{name}{own} {speed:>9}")

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Print the line of the previous epoch, whose checkpoint has been written by now."""
        self._epoch_line(trainer)
        self._epoch = trainer.current_epoch + 1

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Print the line of the last epoch, the reason for stopping and the duration."""
        self._epoch_line(trainer)
        for callback in trainer.early_stopping_callbacks:
            if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
                patience = pluralize(callback.patience, "epoch")
                self._print(trainer, f"stopped early: {callback.monitor} did not improve for {patience}")
        monitor = getattr(trainer.checkpoint_callback, "monitor", None)
        best = f", best epoch {self._best_epoch} by {monitor}" if self._best_epoch else ""
        self._print(trainer, f"trained for {format_duration(time.monotonic() - self._started)}{best}", "")

    def _epoch_line(self, trainer: L.Trainer) -> None:
        if self._epoch == 0:
            return
        value = {name: float(metric) for name, metric in trainer.callback_metrics.items()}
        task = module_of(trainer).task
        headline, speed = task.headline, f"train/{task.sample}s_per_second"

        def cell(name: str, spec: str) -> str:
            return format(value[name], spec) if name in value else "-"

        train, val = (
            f" {cell(f'{stage}/{headline[0]}', headline[1]):>8}" if headline else "" for stage in ("train", "val")
        )
        monitor = _own_monitor(trainer)
        own = f" {cell(monitor, '.4f'):>{max(9, len(monitor))}}" if monitor else ""
        previous, self._best = self._best, _best(trainer)
        mark = " best" if self._best != previous else ""
        self._best_epoch = self._epoch if mark else self._best_epoch
        for name, number in value.items():  # metrics of other callbacks, e.g. privacy/epsilon
            if "/" in name and name.partition("/")[0] not in ("train", *SPLITS):
                mark = f" {name.rpartition('/')[2]} {number:.2f}{mark}"
        self._print(
            trainer,
            f"{_format_epoch(trainer, self._epoch):>9} {cell('train/loss', '.4f'):>11}{train}"
            f" {cell('val/loss', '.4f'):>9}{val}{own} {cell(speed, ',.0f'):>9}{mark}",
        )
        self._epoch = 0

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the results of `test` or `validate`."""
        if trainer.state.fn == "fit":
            return
        model = module_of(trainer)
        stage: Split = "test" if trainer.testing else "val"
        split = stage if data_of(trainer).split_sizes().get(stage) else "val"
        result = model.metrics.results[stage]
        title = f"{stage}: {pluralize(result.samples, model.data_description.input.kind)} of the {split} split"
        if rows := model.task.table(result):
            table = Table(title=title, title_justify="left")
            for heading in rows[0]:
                table.add_column(heading, justify="left" if heading == rows[0][0] else "right")
            for row in rows[1:]:
                table.add_row(*row, end_section=row is rows[-2])
            self._print(trainer, table)
        else:
            self._print(trainer, title)
        if stage != split:
            self._print(trainer, "no test split: evaluated on val, which was also used to select the best checkpoint")
        self._print(trainer, model.task.describe({name: float(value) for name, value in result.scalars.items()}))

    on_validation_end = on_test_end

    def on_predict_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Print the predictions, for up to 5 samples, and the path of the table."""
        file, description = Path(trainer.log_dir or ".") / "predictions.csv", module_of(trainer).data_description
        data = data_of(trainer)
        if trainer.is_global_zero and file.is_file():
            with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
                rows = list(islice(csv.reader(stream), 7))[1:]
            for row in rows if len(rows) <= 5 else []:
                name = row[0] if data.key == "path" else shorten(row[0])
                scores = np.array(row[-description.target.outputs :], np.float32)
                self._print(trainer, f"{name}: {description.target.describe(scores)}")
        place = "" if data.folder == Path() else f" of {data.folder}"  # no folder: a text on the command line
        self._print(trainer, f"predictions: {file}, {pluralize(data.size, description.input.kind)}{place}")


def _format_epoch(trainer: L.Trainer, epoch: int) -> str:
    """Format a 1-based epoch as 3/10, or 3/- without an epoch limit."""
    return f"{epoch}/{trainer.max_epochs if (trainer.max_epochs or -1) >= 0 else '-'}"


def _own_monitor(trainer: L.Trainer) -> str | None:
    """Return the metric that selects the best checkpoint, unless the table of epochs shows it anyway."""
    monitor: str | None = getattr(trainer.checkpoint_callback, "monitor", None)
    names = ("loss", *(module_of(trainer).task.headline or ())[:1])
    return None if monitor in [f"{stage}/{name}" for stage in ("train", "val") for name in names] else monitor


def _best(trainer: L.Trainer) -> tuple[float, float | None] | None:
    """Return the best value of the checkpoint callback so far, and the val loss that decides between equal values."""
    kept: Any = trainer.checkpoint_callback
    score = getattr(kept, "best_model_score", None)
    return None if score is None else (float(score), getattr(kept, "losses", {}).get(kept.best_model_path))
