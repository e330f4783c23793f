"""Whether a map is true to the net: what happens to a class where the evidence is taken away, or put in."""

import torch
import torch.nn.functional as F
from torch import Tensor

from project.modules import Classifier

CELLS, STEPS = 8, 8


@torch.no_grad()
def faithfulness(model: Classifier, image: Tensor, evidence: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Areas below the deletion and the insertion curve, each float (N,) in [0, 1].

    Deletion takes the image away cell by cell, those with most evidence first; the class's probability falls the
    sooner, and the area is the smaller, the truer the map. Insertion puts them in; the larger, the truer. Petsiuk et
    al., RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018. Whole cells, as in Samek et al.,
    Evaluating the Visualization of What a Deep Neural Network has Learned, 2015, are the same to fine maps, coarse ones
    and a random order; what is not there has the mean colour of the training images, for insertion too.

    Args:
        model: A trained classifier, outside training.
        image: uint8 (N, 3, H, W) in [0, 255], on the model's device.
        evidence: Float (N, H, W).
        target: Class of each image, int64 (N,).
    """
    image = image / 255
    cells = min(CELLS, image.shape[-1])
    order = F.adaptive_avg_pool2d(evidence, cells).flatten(1).argsort(1, descending=True)
    rank = order.argsort(1).view(-1, 1, cells, cells).float()
    rank = F.interpolate(rank, image.shape[-2:])
    deletion: list[Tensor] = []
    insertion: list[Tensor] = []
    for step in range(STEPS + 1):
        first = rank < cells**2 * step / STEPS
        for curve, there in ((deletion, ~first), (insertion, first)):
            probability = model(torch.where(there, image, model.mean)).float().softmax(1)
            curve.append(probability.gather(1, target[:, None])[:, 0])
    return _area(deletion), _area(insertion)


def _area(curve: list[Tensor]) -> Tensor:
    return torch.trapezoid(torch.stack(curve, 1), dx=1 / STEPS, dim=1)


def random_evidence(image: Tensor, seed: int = 0) -> Tensor:
    """Evidence that knows nothing of images (N, 3, H, W), float (N, H, W): what a map has to be better than."""
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(len(image), *image.shape[-2:], generator=draws).to(image.device)
