"""Sorting the parameters of a net by what they are."""

from typing import Any

from torch import nn


def head(net: nn.Module) -> nn.Module:
    """The layer that gives the logits: the last linear layer, or the last convolution where there is none."""
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    layers = layers or [module for module in net.modules() if isinstance(module, nn.Conv2d)]  # type: ignore[misc]
    return layers[-1] if layers else net


def parameter_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Optimizer groups of the parameters that are trained, each with its `role`.

    `hidden` are the weights of hidden layers, `head` those of the last one, `vector` are biases and norms, which are
    spared weight decay.
    """
    last = {id(parameter) for parameter in head(net).parameters()}
    groups: dict[str, list[nn.Parameter]] = {"hidden": [], "head": [], "vector": []}
    for parameter in net.parameters():
        if parameter.requires_grad:
            role = "vector" if parameter.ndim <= 1 else "head" if id(parameter) in last else "hidden"
            groups[role].append(parameter)
    decay = {"vector": {"weight_decay": 0.0}}
    return [{"params": members, "role": role, **decay.get(role, {})} for role, members in groups.items() if members]
