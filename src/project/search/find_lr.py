"""`train.py find_lr`: the range test of Smith, Cyclical Learning Rates for Training Neural Networks, 2017."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from project.errors import UserError
from project.runs.job import Untrained
from project.runs.spec import arguments

SMOOTHING, DIVERGED = 0.9, 4.0  # momentum of the running mean of the loss; stop at this multiple of its minimum


class RangeTest(L.Callback):
    """Callback that sets the learning rate of each step and records the smoothed loss, until the loss diverges.

    Args:
        rates: Learning rate of each step.
        all_groups: Whether to set the rate of all parameter groups, or only of those that use the optimizer's rate.
    """

    def __init__(self, rates: list[float], all_groups: bool) -> None:
        self.rates, self.losses = rates, list[float]()
        self._all_groups, self._mean = all_groups, 0.0
        self._groups: list[dict[str, Any]] = []

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Disable the learning rate schedulers and select the parameter groups."""
        trainer.strategy.lr_scheduler_configs = []
        optimizer = trainer.optimizers[0]
        for group in optimizer.param_groups:
            initial = group.get("initial_lr", group["lr"])
            if self._all_groups or np.isclose(initial, optimizer.defaults["lr"] * group.get("lr_scale", 1)):
                self._groups.append(group)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Set the learning rate."""
        for group in self._groups:
            group["lr"] = self.rates[trainer.global_step] * group.get("lr_scale", 1)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Record the loss, averaged over processes, after each optimizer step."""
        step = trainer.global_step
        if step == len(self.losses):
            return  # gradients are being accumulated
        loss = float(trainer.strategy.reduce(outputs["loss"].detach().float(), reduce_op="mean"))
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.losses.append(self._mean / (1 - SMOOTHING**step))
        trainer.should_stop = not self.losses[-1] <= DIVERGED * min(self.losses)


def find_lr(job: Untrained, min_lr: float = 1e-6, max_lr: float = 1.0, steps: int = 100) -> None:
    """Run a learning rate range test: plot the loss over increasing rates and suggest one; no weights are saved.

    Args:
        job: The trainer, the module and the datamodule.
        min_lr: First learning rate.
        max_lr: Last learning rate, unless the loss diverges before.
        steps: Number of steps, with the learning rate increasing exponentially.

    Raises:
        UserError: the range or the number of steps is too small, or the loss never decreased.
    """
    if not 0 < min_lr < max_lr or steps < 20:
        raise UserError(f"find_lr needs 0 < min_lr < max_lr and at least 20 steps, got {min_lr}, {max_lr}, {steps}")
    trainer, schedule = job.trainer, job.module.hparams["scheduler"]
    by_schedule = schedule is not None and "max_lr" in arguments(schedule)
    range_test = RangeTest(np.geomspace(min_lr, max_lr, steps).tolist(), by_schedule)
    figure = Path(trainer.log_dir or ".") / "learning_rate.png"
    train_only(trainer, range_test, steps)
    trainer.fit(job.module, datamodule=job.data)
    if not trainer.is_global_zero:
        return
    suggested, done = suggest(range_test.rates, range_test.losses), len(range_test.losses)
    _plot(range_test.rates[:done], range_test.losses, suggested, figure)
    print(f"{done} of {steps} steps{': the loss diverged' if done < steps else ''}")
    print(f"figure    {figure}")
    if suggested is None:
        raise UserError(
            f"the loss never decreased between {min_lr:g} and {max_lr:g}: see the figure, change --min_lr or --max_lr"
        )
    option = "--model.scheduler.max_lr" if by_schedule else "--model.optimizer.lr"
    print(f"suggested {suggested:.2g}, a third of the rate at which the loss plateaued")
    print(f"add       {option} {suggested:.2g}")


def train_only(trainer: L.Trainer, callback: L.Callback, steps: int) -> None:
    """Reduce a run to its training steps, without validation, logging or checkpoints."""
    bar = trainer.progress_bar_callback
    trainer.callbacks = [*([bar] if bar else []), callback]  # type: ignore[attr-defined]
    trainer.loggers = []
    trainer.limit_val_batches = 0
    trainer.fit_loop.max_epochs = -1
    trainer.fit_loop.epoch_loop.max_steps = steps


def suggest(rates: list[float], losses: list[float]) -> float | None:
    """Return a third of the learning rate at which the loss plateaued, or None if the loss never decreased."""
    # The minimum itself is noise on the plateau: use the first loss within 5 % of it. A third is Smith's rule for the
    # lower bound of the range.
    values = np.array(losses)
    first, lowest = values[0], np.nanmin(values)
    return rates[int((values <= lowest + 0.05 * (first - lowest)).argmax())] / 3 if lowest < 0.95 * first else None


def _plot(rates: list[float], losses: list[float], suggested: float | None, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (running mean)")
    lowest, first = min(losses), losses[0]
    axes.set_ylim(lowest - 0.1 * (first - lowest), first + 0.5 * (first - lowest) + 1e-3)  # crop the divergence
    if suggested is not None:
        axes.axvline(suggested, color="tab:red", label=f"suggested: {suggested:.2g}")
        axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
