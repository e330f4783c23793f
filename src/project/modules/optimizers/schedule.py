"""Learning-rate schedules that fit the length of the run."""

import math
from typing import Any, Literal

import lightning as L
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from project.errors import UserError
from project.interface import time_limit


class WarmupDecay(LRScheduler):
    """Rises linearly to the full learning rate, then falls to zero where the run ends.

    Where the end is a time (`--trainer.max_time`), the steps until then are estimated anew as the run goes on, and the
    rest of the schedule is stretched to meet it.

    Args:
        optimizer: The optimizer.
        total_steps: Length of the run in steps; the classifier fills it in.
        warmup: Share of the run that rises, in [0, 1).
        decay: Shape of the fall.

    Raises:
        UserError: warmup is out of its range.
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
        """Share of the run that is over, in (0, 1]."""
        done = (self.last_epoch - self._from_step) / max(1, self.total_steps - self._from_step)
        return min(1.0, self._from_progress + (1 - self._from_progress) * done)

    def plan(self, total_steps: float, limit: int | None = None) -> None:
        """Meet another end, with its time limit in seconds: without a jump, or as if another limit had always been."""
        if self.limit in (None, limit):
            self._from_progress, self._from_step = self.progress, self.last_epoch
        else:
            self._from_progress, self._from_step = 0.0, -1
        self.total_steps, self.limit = total_steps, limit

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as the run stood; one that was given another length, as a run that had it from its beginning."""
        length = self._length
        super().load_state_dict(state_dict)
        if length != self._length:
            self.total_steps = self._length = length
            self._from_progress, self._from_step = 0.0, -1
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate

    def get_lr(self) -> list[Any]:
        """Learning rate of each group at this step."""
        if self.progress < self.warmup:
            factor = self.progress / self.warmup
        else:
            left = (1 - self.progress) / (1 - self.warmup)
            factor = left if self.decay == "linear" else (1 - math.cos(math.pi * left)) / 2
        return [rate * factor for rate in self.base_lrs]


def plan_to_end(scheduler: WarmupDecay, trainer: L.Trainer) -> None:
    """Estimate how many steps fit into the time limit, and plan the schedule to end there or where the run ends.

    Called at each step, it estimates now and then; all processes follow the clock of the first. Validation between
    epochs counts as part of the steps' time.
    """
    timer, step = time_limit(trainer), trainer.global_step
    if timer is None or (left := timer.time_remaining()) is None:
        return
    limit = round(left + timer.time_elapsed())
    if step in (1, 5, 20) or step % 50 == 0 or limit != scheduler.limit:
        fit = step + left / (timer.time_elapsed() / step)
        scheduler.plan(min(trainer.estimated_stepping_batches, trainer.strategy.broadcast(fit)), limit)
