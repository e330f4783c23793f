"""Changes to an image that are made to mislead its classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from project.modules import Classifier


def attack(model: Classifier, image: Tensor, label: Tensor, epsilon: float, steps: int) -> Tensor:
    """Images that raise the loss as far as these many steps find, no channel changed by more than `epsilon`.

    One step is FGSM (Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015), several are PGD from a
    random start (Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018).

    Args:
        model: The classifier, outside training.
        image: Float (N, 3, H, W) in [0, 1].
        label: int64 (N,).
        epsilon: The most change, in (0, 1].
        steps: At least 1.
    """
    low, high = (image - epsilon).clamp(min=0), (image + epsilon).clamp(max=1)
    draws = torch.Generator(image.device).manual_seed(steps)
    x = image if steps == 1 else low + torch.rand(image.shape, generator=draws, device=image.device) * (high - low)
    size = epsilon if steps == 1 else 2.5 * epsilon / steps
    for _ in range(steps):
        x = x.detach().requires_grad_()
        with model.trainer.precision_plugin.forward_context():
            scores = model(x)
        loss = F.cross_entropy(scores.float(), label, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x + size * gradient.sign()).clamp(low, high)
    return x.detach()
