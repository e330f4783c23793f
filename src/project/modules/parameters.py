"""Sorting the parameters of a net by what they are."""

from typing import Any

from torch import nn

from project.modules.layers import head, layers


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
    decay = {"vector": {"weight_decay": 0.0}}
    own = {rate: {"rate": rate} if rates else {} for rate, _ in groups}
    return [
        {"params": members, "role": role, **own[rate], **decay.get(role, {})}
        for (rate, role), members in groups.items()
        if members
    ]
