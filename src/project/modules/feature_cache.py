"""What a frozen net makes of each image, computed once."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from project.machine import memory
from project.modules.layers import head


class FeatureCache:
    """Gives the logits of a net of which only the head is trained; each of so many images is put through it once."""

    def __init__(self, net: nn.Module, images: int) -> None:
        self._net, self._head, self._images = net, head(net), images
        self._features: Tensor | None = None
        self._known = torch.zeros(0, dtype=torch.bool)
        self._refused = False

    def __call__(self, index: Tensor, images: Callable[[], Tensor]) -> Tensor:
        """Return logits (N, classes) of the images at int64 (N,), always the same ones; `images` gives them."""
        if self._features is not None and bool(self._known[index].all()):
            return cast(Tensor, self._head(self._features[index]))
        untold = self._features is None and not self._net.training  # whether it draws at random, only training shows
        if self._refused or not len(index) or untold:
            return cast(Tensor, self._net(images()))
        image, found = images(), list[Tensor]()
        hook = self._head.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0].detach()))
        try:
            logits = cast(Tensor, self._net(image))
            if self._features is None:
                with torch.no_grad():
                    again = self._net(image)
        finally:
            hook.remove()
        if self._features is None:
            self._begin(found, logits, again)
        if self._features is not None:
            self._features[index] = found[0]
            self._known[index] = True
        return logits

    @torch.no_grad()  # gradients of single images count every other call
    def _begin(self, found: list[Tensor], logits: Tensor, again: Tensor) -> None:
        """Make room; not for a net that draws at random before its head or works on behind it."""
        feature = found[0] if found else logits
        fits = self._images * feature[0].numel() * feature.element_size() <= memory() / 8
        same = len(found) == 2 and torch.equal(found[0], found[1]) and torch.equal(self._head(feature), logits)
        self._refused = not (fits and same and torch.equal(logits, again))
        if not self._refused:
            self._features = feature.new_zeros(self._images, *feature.shape[1:])
            self._known = torch.zeros(self._images, dtype=torch.bool, device=feature.device)
