"""The optimizer and the schedule of a net: its parameters sorted by what they are, the schedule fitted to the run."""

from collections.abc import Callable
from typing import Any

import lightning as L
from torch import nn
from torch.optim import Optimizer

from project.errors import UserError
from project.interface import time_limit
from project.modules.layers import head, layers
from project.modules.optimizers.schedule import WarmupDecay
from project.runs.spec import Spec, arguments, builder, init_args


def make_optimizer(spec: Spec, build: Callable[..., Optimizer], net: nn.Module, layer_decay: float) -> Any:
    """Return the optimizer over `parameter_groups`, in one kernel for all parameters where it has that."""
    chosen = {"fused": init_args(spec).get("fused") is not False} if "fused" in arguments(spec) else {}
    try:
        optimizer: Any = build(parameter_groups(net, layer_decay), **chosen)
    except ValueError as error:
        raise UserError(f"model.optimizer: {error}") from error
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group.get("lr_scale", 1)
    # Else a fused one would undo the scale of 16-mixed by itself, and Lightning could not clip gradients before.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def make_schedule(spec: Spec, build: Callable[..., Any], optimizer: Optimizer, trainer: L.Trainer) -> dict[str, Any]:
    """Return the schedule as Lightning wants it; one that takes `total_steps` is given the length of the run."""
    named, length = arguments(spec), {}
    if "max_lr" in named and any("lr_scale" in group for group in optimizer.param_groups):
        raise UserError("model.layer_decay: this schedule sets one learning rate for all layers; take WarmupDecay")
    if "total_steps" in named:
        steps = trainer.estimated_stepping_batches
        if steps == float("inf") and not (builder(spec) is WarmupDecay and time_limit(trainer)):
            raise UserError("this schedule needs the length of the run: give trainer.max_epochs or trainer.max_steps")
        length = {"total_steps": steps if steps == float("inf") else int(steps)}
    try:
        scheduler = build(optimizer, **length)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"model.scheduler: {error}") from error
    watched = {"monitor": scheduler.monitor} if not length and hasattr(scheduler, "monitor") else {}
    return {"scheduler": scheduler, "interval": "step" if length else "epoch", **watched}


def check_schedule_length(trainer: L.Trainer) -> None:
    """Refuse to continue with a schedule for another number of steps; `WarmupDecay` alone knows what to do then."""
    for config in trainer.lr_scheduler_configs:
        then, now = getattr(config.scheduler, "total_steps", None), trainer.estimated_stepping_batches
        if not isinstance(config.scheduler, WarmupDecay) and isinstance(then, int) and then != now:
            raise UserError(
                f"{type(config.scheduler).__name__} was planned for {then:,} steps and cannot be stretched to {now:,}:"
                " continue with the length that the run had, or begin a new one from its weights by --model.init_from"
            )


def parameter_groups(net: nn.Module, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Optimizer groups of the parameters that are trained, each with its `role`.

    `hidden` are the weights of hidden layers, `head` those of the last one, `vector` are biases and norms, which are
    spared weight decay. With `layer_decay` below 1 there is such a group for each of the net's `layers`, with its
    `rate`: the share of the learning rate that it has, 1 in the head and less by this factor in each layer before it.
    Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, 2018 (section 3.2).
    """
    last = {id(parameter) for parameter in head(net).parameters()}
    rates: dict[int, float] = {}
    if layer_decay != 1:
        for depth, layer in enumerate(reversed(layers(net))):
            rates |= {id(parameter): layer_decay**depth for parameter in layer.parameters}
    groups: dict[tuple[float, str], list[nn.Parameter]] = {}
    for rate in sorted({1.0, *rates.values()}, reverse=True):
        groups |= {(rate, role): [] for role in ("hidden", "head", "vector")}
    for parameter in net.parameters():
        if parameter.requires_grad:
            role = "vector" if parameter.ndim <= 1 else "head" if id(parameter) in last else "hidden"
            groups[rates.get(id(parameter), 1.0), role].append(parameter)
    return [
        {"params": members, "role": role}
        | ({"lr_scale": rate} if rates else {})
        | ({"weight_decay": 0.0} if role == "vector" else {})
        for (rate, role), members in groups.items()
        if members
    ]
