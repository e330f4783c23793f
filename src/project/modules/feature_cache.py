"""A cache for the features of a frozen backbone."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from project.machine import memory
from project.modules.layers import head


class FeatureCache:
    """Cache of the head's input features, for a network of which only the head is trained.

    It is disabled if the network is stochastic in training (e.g. dropout) or the features need too much memory.

    Args:
        net: The network.
        images: Number of images.
    """

    def __init__(self, net: nn.Module, images: int) -> None:
        self._net, self._head, self._images = net, head(net), images
        self._features: Tensor | None = None
        self._cached = torch.zeros(0, dtype=torch.bool)
        self._disabled = False

    def __call__(self, index: Tensor, images: Callable[[], Tensor]) -> Tensor:
        """Return logits (N, classes) of the images with indices (N,), int64; `images` loads them on a cache miss."""
        if self._features is not None and bool(self._cached[index].all()):
            return cast(Tensor, self._head(self._features[index]))
        untested = self._features is None and not self._net.training  # stochastic layers are off in evaluation mode
        if self._disabled or not len(index) or untested:
            return cast(Tensor, self._net(images()))
        image, features = images(), list[Tensor]()
        hook = self._head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0].detach()))
        try:
            logits = cast(Tensor, self._net(image))
            if self._features is None:
                with torch.no_grad():
                    repeated = self._net(image)
        finally:
            hook.remove()
        if self._features is None:
            self._allocate(features, logits, repeated)
        if self._features is not None:
            self._features[index] = features[0]
            self._cached[index] = True
        return logits

    @torch.no_grad()  # per-sample gradient hooks would count this call of the head
    def _allocate(self, features: list[Tensor], logits: Tensor, repeated: Tensor) -> None:
        """Allocate the cache, unless the network is stochastic or its head does not compute the final output."""
        feature = features[0] if features else logits
        fits = self._images * feature[0].numel() * feature.element_size() <= memory() / 8
        same = len(features) == 2 and torch.equal(*features) and torch.equal(self._head(feature), logits)
        self._disabled = not (fits and same and torch.equal(logits, repeated))
        if not self._disabled:
            self._features = feature.new_zeros(self._images, *feature.shape[1:])
            self._cached = torch.zeros(self._images, dtype=torch.bool, device=feature.device)
