"""Parameter groups and optimizers."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from project.errors import UserError
from project.modules.layers import head, layers
from project.runs.spec import Spec, arguments, init_args


def make_optimizer(spec: Spec, build: Callable[..., Optimizer], net: nn.Module, layer_decay: float) -> Any:
    """Return the optimizer over `parameter_groups`, with its fused implementation if it has one."""
    options = {"fused": init_args(spec).get("fused") is not False} if "fused" in arguments(spec) else {}
    try:
        optimizer: Any = build(parameter_groups(net, layer_decay), **options)
    except ValueError as error:
        raise UserError(f"model.optimizer: {error}") from error
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * group.get("lr_scale", 1)
    # Otherwise fused optimizers unscale 16-mixed gradients themselves, and Lightning refuses to clip them before.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def parameter_groups(net: nn.Module, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Return the optimizer groups of the trainable parameters, each with its `role`.

    `hidden` are the weights of hidden layers, `head` those of the last layer, and `vector` biases and normalization
    parameters, which get no weight decay. With `layer_decay` below 1, each of the network's `layers` has its own groups
    with an `lr_scale`: 1 for the head, multiplied by `layer_decay` at each layer towards the input. Howard and Ruder,
    Universal Language Model Fine-tuning for Text Classification, 2018 (section 3.2).
    """
    head_ids = {id(parameter) for parameter in head(net).parameters()}
    scales: dict[int, float] = {}
    if layer_decay != 1:
        for depth, layer in enumerate(reversed(layers(net))):
            scales |= {id(parameter): layer_decay**depth for parameter in layer.parameters}
    groups: dict[tuple[float, str], list[nn.Parameter]] = {}
    for scale in sorted({1.0, *scales.values()}, reverse=True):
        groups |= {(scale, role): [] for role in ("hidden", "head", "vector")}
    for parameter in net.parameters():
        if parameter.requires_grad:
            role = "vector" if parameter.ndim <= 1 else "head" if id(parameter) in head_ids else "hidden"
            groups[scales.get(id(parameter), 1.0), role].append(parameter)
    return [
        {"params": members, "role": role}
        | ({"lr_scale": scale} if scales else {})
        | ({"weight_decay": 0.0} if role == "vector" else {})
        for (scale, role), members in groups.items()
        if members
    ]
