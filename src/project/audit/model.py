"""Inference of a trained model on the labeled images of a split."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from project.interface import Split
from project.modules import Classifier
from project.runs.job import Trained


def batches(trained: Trained, split: Split, max_images: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images of a split, uint8 or float in [0, 1], (N, C, H, W), with their labels, int64 (N,).

    Both are on the model's device.

    Args:
        trained: The loaded model and its dataset.
        split: The split to read.
        max_images: Yield at most this many images, sampled evenly from the split.
    """
    left, device = trained.data.split_sizes()[split], trained.module.device
    if max_images is not None:
        trained.trainer.limit_test_batches = 0.5  # the datamodule shuffles a split that is limited
        left = min(left, max_images)
    for batch in getattr(trained.data, f"{split}_dataloader")():
        # Copied because dataloaders reuse the buffers of their batches.
        yield batch.inputs[:left].to(device, copy=True), batch.target[:left].to(device, copy=True)
        left -= len(batch.target)
        if left <= 0:
            break


@torch.no_grad()
def forward(model: Classifier, image: Tensor) -> Tensor:
    """Return logits, float32 (N, classes), computed in the trainer's precision."""
    with model.trainer.precision_plugin.forward_context():
        return cast(Tensor, model(image)).float()


def predict_logits(trained: Trained, split: Split, max_images: int | None = None) -> tuple[Tensor, Tensor]:
    """Return logits, float64 (N, classes), and labels, int64 (N,), of `batches`, on the CPU."""
    outputs = [(forward(trained.module, x).double().cpu(), y.cpu()) for x, y in batches(trained, split, max_images)]
    logits, labels = zip(*outputs, strict=True)
    return torch.cat(logits), torch.cat(labels)
