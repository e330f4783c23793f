"""A trained model on labeled images, where the trainer computes."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from project.interface import Split
from project.modules import Classifier
from project.runs.job import Trained


def batches(trained: Trained, split: Split, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images of a split, uint8 (N, 3, H, W), with labels, int64 (N,); of at most `most`, an even mixture."""
    left, device = trained.data.split_sizes()[split], trained.module.device
    if most is not None:
        trained.trainer.limit_test_batches = 0.5  # what is limited comes mixed
        left = min(left, most)
    for batch in getattr(trained.data, f"{split}_dataloader")():
        # Copied, as loaders use the memory of a batch again.
        yield batch.inputs[:left].to(device, copy=True), batch.target[:left].to(device, copy=True)
        left -= len(batch.target)
        if left <= 0:
            break


@torch.no_grad()
def logits(model: Classifier, image: Tensor) -> Tensor:
    """Return logits, float32 (N, classes), of images as `Classifier` takes them, in the trainer's precision."""
    with model.trainer.precision_plugin.forward_context():
        return cast(Tensor, model(image)).float()


def answers(trained: Trained, split: Split, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return logits, float64 (N, classes), and labels, int64 (N,), of `batches`, on the CPU."""
    found = [(logits(trained.module, x).double().cpu(), label.cpu()) for x, label in batches(trained, split, most)]
    scores, labels = zip(*found, strict=True)
    return torch.cat(scores), torch.cat(labels)
