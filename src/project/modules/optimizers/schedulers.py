"""Construction of learning-rate schedulers."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedulers
from torch.optim.lr_scheduler import LRScheduler

from project.errors import UserError
from project.interface import time_limit
from project.modules.optimizers.schedule import WarmupDecay
from project.runs.spec import Spec, arguments, builder, init_args

SchedulerCallable = Callable[[Optimizer], ReduceLROnPlateau] | Callable[[Optimizer], LRScheduler]
"""A scheduler class. Lightning's `ReduceLROnPlateau` comes first, as its short name would match torch's class, too."""
SchedulerInterval = Literal["step", "epoch"]


def make_schedule(
    spec: Spec, build: Callable[..., Any], optimizer: Optimizer, trainer: L.Trainer, interval: SchedulerInterval | None
) -> dict[str, Any]:
    """Return the scheduler config for Lightning.

    Args:
        spec: Spec of the scheduler.
        build: Builds the scheduler. `total_steps`, if it has this argument, is set to the length of the run.
        optimizer: The optimizer, with learning rates set.
        trainer: The trainer, which knows the length of the run.
        interval: When the scheduler is stepped; with None, as `Classifier` documents.

    Raises:
        UserError: The scheduler rejects its arguments, fails in its first steps, or does not work with the interval.
    """
    accepted, name, options = arguments(spec), getattr(builder(spec), "__name__", "scheduler"), dict[str, Any]()
    if "max_lr" in accepted and any("lr_scale" in group for group in optimizer.param_groups):
        raise UserError("model.layer_decay: this scheduler sets one learning rate for all layers; use WarmupDecay")
    if "total_steps" in accepted:
        options["total_steps"] = _run_length(trainer, builder(spec) is WarmupDecay)
    elif builder(spec) is schedulers.CosineAnnealingWarmRestarts and interval is None:
        options["T_0"] = init_args(spec)["T_0"] * _steps_per_epoch(trainer)
    try:
        _take_first_steps(build(_stand_in(optimizer), **options), options.get("total_steps", math.inf))
        scheduler = build(optimizer, **options)
    except ZeroDivisionError as error:
        zeros = " or ".join(key for key, value in init_args(spec).items() if value == 0 and type(value) is int)
        raise UserError(f"model.scheduler {name}: {f'{zeros} must not be 0' if zeros else error}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"model.scheduler {name}: {error}") from error
    if isinstance(scheduler, schedulers.ReduceLROnPlateau):
        if interval == "step":
            raise UserError(f"model.scheduler {name} is stepped after validation: remove model.scheduler_interval step")
        monitor = getattr(scheduler, "monitor", "val/loss")
        validated = trainer.check_val_every_n_epoch if monitor.startswith("val/") else 1
        return {"scheduler": scheduler, "monitor": monitor, "frequency": validated or 1}
    if "total_steps" in accepted and interval == "epoch":
        raise UserError(f"model.scheduler {name} counts steps: remove model.scheduler_interval epoch")
    by_step = bool(options) or isinstance(scheduler, schedulers.CyclicLR)
    return {"scheduler": scheduler, "interval": interval or ("step" if by_step else "epoch")}


def _run_length(trainer: L.Trainer, may_be_unknown: bool) -> float:
    """Return the number of training steps; infinity with a time limit only, for schedules that adapt to it."""
    steps = trainer.estimated_stepping_batches
    if steps != math.inf:
        return int(steps)
    if not (may_be_unknown and time_limit(trainer)):
        raise UserError("model.scheduler needs the length of the run: set trainer.max_epochs or trainer.max_steps")
    return steps


def _steps_per_epoch(trainer: L.Trainer) -> int:
    trainer.fit_loop.setup_data()
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def _stand_in(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer with the same groups and options, each group with one other parameter."""
    groups = [
        deepcopy({key: value for key, value in group.items() if key != "params"})
        | {"params": [torch.nn.Parameter(torch.zeros(()))]}
        for group in optimizer.param_groups
    ]
    return Optimizer(groups, dict(optimizer.defaults))


def _take_first_steps(scheduler: Any, total_steps: float) -> None:
    """Step a scheduler, as some accept arguments with which they fail in the first step."""
    scheduler.optimizer._opt_called = True  # otherwise torch warns that the optimizer has not been stepped
    for _ in range(int(min(2, total_steps))):
        scheduler.step(*([1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []))


def check_schedule_length(trainer: L.Trainer) -> None:
    """Raise if a resumed run has another number of steps than its scheduler; only `WarmupDecay` can be extended."""
    for config in trainer.lr_scheduler_configs:
        planned, steps = getattr(config.scheduler, "total_steps", None), trainer.estimated_stepping_batches
        if not isinstance(config.scheduler, WarmupDecay) and isinstance(planned, int) and planned != steps:
            raise UserError(
                f"{type(config.scheduler).__name__} has {planned:,} steps and cannot be changed to {steps:,}: resume"
                " with the original length, or start a new run from the weights with --model.init_from"
            )
