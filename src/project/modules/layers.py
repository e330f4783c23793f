"""The layers of a net from its input to its head, to be trained gradually or at rates of their own."""

from dataclasses import dataclass, field

from torch import nn


def head(net: nn.Module) -> nn.Module:
    """The layer that gives the logits: the last linear layer, or the last convolution where there is none."""
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    layers = layers or [module for module in net.modules() if isinstance(module, nn.Conv2d)]  # type: ignore[misc]
    return layers[-1] if layers else net


@dataclass
class Layer:
    """A part of a net: what it computes with, and its parameters."""

    modules: list[nn.Module] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)


def layers(net: nn.Module) -> list[Layer]:
    """Cut a net into layers, each a convolution, a block and the like with the norm that follows it; the head is last.

    Containers are opened, and so is a module that holds more than half of the net. What such a module holds by itself,
    such as a class token, belongs to the first layer.
    """
    whole, last = _size(net), head(net)
    found = [Layer()]
    seen: set[int] = set()

    def add(layer: Layer, module: nn.Module, recurse: bool) -> None:
        new = [parameter for parameter in module.parameters(recurse) if id(parameter) not in seen]
        seen.update(map(id, new))
        layer.parameters += new

    def open_up(module: nn.Module) -> None:
        add(found[0], module, recurse=False)
        for child in module.children():
            container = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
            if container or (2 * _size(child) > whole and any(True for _ in child.children())):
                open_up(child)
            elif _size(child) or any(True for _ in child.buffers()):
                if any(parameter.ndim > 1 for parameter in child.parameters()):
                    found.append(Layer())
                found[-1].modules.append(child)
                add(found[-1], child, recurse=True)

    open_up(net)
    if not found[0].modules and len(found) > 1:  # a net that begins with a norm has a layer of it
        found[1].parameters += found.pop(0).parameters
    holding = {id(parameter) for parameter in last.parameters()}
    return sorted(found, key=lambda layer: any(id(parameter) in holding for parameter in layer.parameters))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class Freezing:
    """Keeps layers of a net, from its input on, as they are outside training, the statistics of batch norm too.

    Parameters that are frozen get no gradients, so that an optimizer passes over them. What is frozen is a function of
    the epoch alone: nothing has to be saved, and the optimizer has the same groups all the time. `Classifier` says what
    the arguments mean.
    """

    def __init__(self, epochs: int, unfreeze_epochs: int) -> None:
        self.epochs, self.unfreeze_epochs = epochs, unfreeze_epochs
        self._frozen: list[Layer] = []

    def __call__(self, net: nn.Module, epoch: int) -> None:
        """Freeze what is frozen in an epoch, counted from 0, and unfreeze the rest."""
        for layer in self._frozen:
            for parameter in layer.parameters:
                parameter.requires_grad_(True)
            for module in layer.modules:
                module.train(net.training)
        found, share = layers(net), 1.0
        if 0 <= self.epochs <= epoch:
            share = 1 - (epoch - self.epochs + 1) / self.unfreeze_epochs
        self._frozen = found[: max(0, int((len(found) - 1) * share))]
        for layer in self._frozen:
            layer.parameters = [parameter for parameter in layer.parameters if parameter.requires_grad]
            for parameter in layer.parameters:
                parameter.requires_grad_(False)
            for module in layer.modules:
                module.eval()
