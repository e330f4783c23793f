"""Layers that are not trained, or not yet."""

from torch import nn

from project.modules.layers import Layer, layers


class Freezing:
    """Keeps layers of a net, from its input on, as they are outside training, the statistics of batch norm too.

    Parameters that are frozen get no gradients, so that an optimizer passes over them. What is frozen is a function of
    the epoch alone: nothing has to be saved, and the optimizer has the same groups all the time.

    Args:
        epochs: Epochs in which all but the head is frozen, -1 for ever.
        unfreeze_epochs: Epochs after these over which the layers are unfrozen, from the head down.
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
        found = layers(net)
        self._frozen = found[: self._count(len(found) - 1, epoch)]
        for layer in self._frozen:
            layer.parameters = [parameter for parameter in layer.parameters if parameter.requires_grad]
            for parameter in layer.parameters:
                parameter.requires_grad_(False)
            for module in layer.modules:
                module.eval()

    def _count(self, below_head: int, epoch: int) -> int:
        if self.epochs < 0 or epoch < self.epochs:
            return below_head
        return max(0, int(below_head * (1 - (epoch - self.epochs + 1) / self.unfreeze_epochs)))
