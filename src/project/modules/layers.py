"""Splitting a network into layers, for freezing and layer-wise learning rates."""

from dataclasses import dataclass, field

from torch import nn


def head(net: nn.Module) -> nn.Module:
    """Return the classification head: the last linear layer, or the last convolution if there is no linear layer."""
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    layers = layers or [module for module in net.modules() if isinstance(module, nn.Conv2d)]  # type: ignore[misc]
    return layers[-1] if layers else net


@dataclass
class Layer:
    """Modules and parameters that are frozen and unfrozen together."""

    modules: list[nn.Module] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)


def layers(net: nn.Module) -> list[Layer]:
    """Split a network into layers from input to head: convolutions, blocks etc., each with the norm that follows it.

    Containers, and modules with more than half of the parameters besides those of embedding tables, are split further;
    their own parameters, e.g. a class token, belong to the first layer.
    """
    total = _weights(net)
    result = [Layer()]
    seen: set[int] = set()

    def add(layer: Layer, module: nn.Module, recurse: bool) -> None:
        new = [parameter for parameter in module.parameters(recurse) if id(parameter) not in seen]
        seen.update(map(id, new))
        layer.parameters += new

    def split(module: nn.Module) -> None:
        add(result[0], module, recurse=False)
        for child in module.children():
            container = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
            if container or (2 * _weights(child) > total and any(True for _ in child.children())):
                split(child)
            elif any(True for _ in (*child.parameters(), *child.buffers())):
                if any(parameter.ndim > 1 for parameter in child.parameters()):
                    result.append(Layer())
                result[-1].modules.append(child)
                add(result[-1], child, recurse=True)

    split(net)
    if not result[0].modules and len(result) > 1:  # unless the network starts with a norm, which is then a layer
        result[1].parameters += result.pop(0).parameters
    head_ids = {id(parameter) for parameter in head(net).parameters()}
    return sorted(result, key=lambda layer: any(id(parameter) in head_ids for parameter in layer.parameters))


def _weights(module: nn.Module) -> int:
    tables = {id(table.weight) for table in module.modules() if isinstance(table, nn.Embedding)}
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in tables)


class Freezing:
    """Schedule that freezes the layers before the head, then unfreezes them gradually from the head to the input.

    Frozen layers are in evaluation mode and their parameters require no gradients. Which layers are frozen depends on
    the epoch only: there is no state to save, and the optimizer keeps the same parameter groups.

    Args:
        epochs: Number of epochs in which only the head is trained; -1 for all.
        unfreeze_epochs: Number of epochs after these until all layers are trained.
    """

    def __init__(self, epochs: int, unfreeze_epochs: int) -> None:
        self.epochs, self.unfreeze_epochs = epochs, unfreeze_epochs
        self._frozen: list[Layer] = []

    def __call__(self, net: nn.Module, epoch: int) -> None:
        """Freeze and unfreeze the layers for an epoch, counted from 0."""
        for layer in self._frozen:
            for parameter in layer.parameters:
                parameter.requires_grad_(True)
            for module in layer.modules:
                module.train(net.training)
        all_layers, fraction = layers(net), 1.0
        if 0 <= self.epochs <= epoch:
            fraction = 1 - (epoch - self.epochs + 1) / self.unfreeze_epochs
        self._frozen = all_layers[: max(0, int((len(all_layers) - 1) * fraction))]
        for layer in self._frozen:
            layer.parameters = [parameter for parameter in layer.parameters if parameter.requires_grad]
            for parameter in layer.parameters:
                parameter.requires_grad_(False)
            for module in layer.modules:
                module.eval()
