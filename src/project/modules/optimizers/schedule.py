"""Learning-rate schedules."""

import math
from typing import Any, Literal

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from project.errors import UserError
from project.interface import time_limit


class WarmupDecay(LRScheduler):
    """Linear warmup to the full learning rate, then linear or cosine decay to zero at the end of the run.

    With a time limit (`--trainer.max_time`), the number of steps is estimated periodically during the run, and the rest
    of the schedule is adjusted to it.

    Args:
        optimizer: The optimizer.
        total_steps: Length of the run in steps; set by the classifier.
        warmup: Fraction of the run for warmup, in [0, 1).
        decay: Shape of the decay.

    Raises:
        UserError: If `warmup` is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: float | None = None,
        warmup: float = 0.2,
        decay: Literal["linear", "cosine"] = "linear",
    ) -> None:
        if not 0 <= warmup < 1:
            raise UserError(f"WarmupDecay.warmup must be at least 0 and below 1, got {warmup}")
        self.total_steps = self._length = float("inf") if total_steps is None else total_steps
        self.limit: int | None = None
        self.warmup, self.decay = warmup, decay
        self._from_step, self._from_progress = -1, 0.0
        super().__init__(optimizer)

    @property
    def progress(self) -> float:
        """Fraction of the run that is completed, in (0, 1]."""
        done = (self.last_epoch - self._from_step) / max(1, self.total_steps - self._from_step)
        return min(1.0, self._from_progress + (1 - self._from_progress) * done)

    def plan(self, total_steps: float, limit: int | None = None) -> None:
        """Set a new length, estimated for a time limit of `limit` seconds.

        For the same time limit, the learning rate continues without a jump. For another one (of a resumed run), the
        schedule becomes that of a run with this length from the start.
        """
        if self.limit in (None, limit):
            self._from_progress, self._from_step = self.progress, self.last_epoch
        else:
            self._from_progress, self._from_step = 0.0, -1
        self.total_steps, self.limit = total_steps, limit

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; if the length has changed, the schedule becomes that of a run with the new length."""
        length = self._length
        super().load_state_dict(state_dict)
        if length != self._length:
            self.total_steps = self._length = length
            self._from_progress, self._from_step = 0.0, -1
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate

    def get_lr(self) -> list[Any]:
        """Return the learning rate of each group at the current step."""
        if self.progress < self.warmup:
            factor = self.progress / self.warmup
        else:
            remaining = (1 - self.progress) / (1 - self.warmup)
            factor = remaining if self.decay == "linear" else (1 - math.cos(math.pi * remaining)) / 2
        return [rate * factor for rate in self.base_lrs]


def plan_to_end(scheduler: WarmupDecay, trainer: L.Trainer) -> None:
    """Fit the schedule to the time limit of the run by estimating the number of steps until then.

    Called every step; the estimate is updated periodically, with the clock of rank 0. The time for validation counts as
    training time.
    """
    timer, step = time_limit(trainer), trainer.global_step
    if timer is None or (left := timer.time_remaining()) is None:
        return
    limit = round(left + timer.time_elapsed())
    if step in (1, 5, 20) or step % 50 == 0 or limit != scheduler.limit:
        steps = step + left / (timer.time_elapsed() / step)
        scheduler.plan(min(trainer.estimated_stepping_batches, trainer.strategy.broadcast(steps)), limit)
