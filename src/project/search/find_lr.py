"""The command `find_lr`: the range test of Smith, Cyclical Learning Rates for Training Neural Networks, 2017."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from project.errors import UserError
from project.runs.job import Untrained
from project.runs.spec import arguments

SMOOTHING, DIVERGED = 0.9, 4.0  # share of the loss's running mean that a step keeps; times the least at which to stop


class RangeTest(L.Callback):
    """Gives each step its learning rate, and notes the running mean of the loss, until that has left all bounds."""

    def __init__(self, rates: list[float], all_groups: bool) -> None:
        self.rates, self.losses = rates, list[float]()
        self._all_groups, self._mean = all_groups, 0.0  # else only groups of parameters that take the optimizer's rate
        self._groups: list[dict[str, Any]] = []

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Put the schedule aside; find the groups that move."""
        trainer.strategy.lr_scheduler_configs = []
        optimizer = trainer.optimizers[0]
        for group in optimizer.param_groups:
            own = group.get("initial_lr", group["lr"])
            if self._all_groups or np.isclose(own, optimizer.defaults["lr"] * group.get("lr_scale", 1)):
                self._groups.append(group)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Set the rate."""
        for group in self._groups:
            group["lr"] = self.rates[trainer.global_step] * group.get("lr_scale", 1)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Note the loss of a whole step, the same on all processes."""
        step = trainer.global_step
        if step == len(self.losses):
            return  # gradients are being accumulated
        loss = float(trainer.strategy.reduce(outputs["loss"].detach().float(), reduce_op="mean"))
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.losses.append(self._mean / (1 - SMOOTHING**step))
        trainer.should_stop = not self.losses[-1] <= DIVERGED * min(self.losses)


def find_lr(job: Untrained, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100) -> None:
    """Try rising learning rates for some steps, draw the loss and suggest one; nothing that is trained is kept.

    Args:
        job: What to train on what.
        lowest: The first learning rate.
        highest: The last one, unless the loss has left all bounds before.
        steps: From one to the other.

    Raises:
        UserError: the range or the number of steps is too small, or the loss never fell.
    """
    if not 0 < lowest < highest or steps < 20:
        raise UserError(f"find_lr needs 0 < lowest < highest and at least 20 steps, got {lowest}, {highest}, {steps}")
    trainer, schedule = job.trainer, job.module.hparams["scheduler"]
    by_schedule = schedule is not None and "max_lr" in arguments(schedule)
    test = RangeTest(np.geomspace(lowest, highest, steps).tolist(), by_schedule)
    picture = Path(trainer.log_dir or ".") / "learning_rate.png"
    train_only(trainer, test, steps)
    trainer.fit(job.module, datamodule=job.data)
    if not trainer.is_global_zero:
        return
    found, tried = suggest(test.rates, test.losses), len(test.losses)
    _draw(test.rates[:tried], test.losses, found, picture)
    print(f"{tried} of {steps} steps{', where the loss left all bounds' if tried < steps else ''}")
    print(f"picture   {picture}")
    if found is None:
        raise UserError(f"the loss never fell between {lowest:g} and {highest:g}: see the picture, try another range")
    option = "--model.scheduler.max_lr" if by_schedule else "--model.optimizer.lr"
    print(f"suggested {found:.2g}, a third of where the loss has all but stopped to fall")
    print(f"add       {option} {found:.2g}")


def train_only(trainer: L.Trainer, watching: L.Callback, steps: int) -> None:
    """Leave of a run its training steps: nothing is saved, logged or validated."""
    bar = trainer.progress_bar_callback
    trainer.callbacks = [*([bar] if bar else []), watching]  # type: ignore[attr-defined]
    trainer.loggers = []
    trainer.limit_val_batches = 0
    trainer.fit_loop.max_epochs = -1
    trainer.fit_loop.epoch_loop.max_steps = steps


def suggest(rates: list[float], losses: list[float]) -> float | None:
    """Return a third of the rate at which the loss has all but stopped to fall; None where it never fell."""
    # The least loss itself may lie anywhere on the flat ground behind; the third is Smith's rule for his lower end.
    tried = np.array(losses)
    first, least = tried[0], np.nanmin(tried)
    return rates[int((tried <= least + 0.05 * (first - least)).argmax())] / 3 if least < 0.95 * first else None


def _draw(rates: list[float], losses: list[float], found: float | None, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss (running mean)")
    least, first = min(losses), losses[0]
    axes.set_ylim(least - 0.1 * (first - least), first + 0.5 * (first - least) + 1e-3)  # the rest only flies away
    if found is not None:
        axes.axvline(found, color="tab:red", label=f"a third of where the fall ends: {found:.2g}")
        axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
