"""Inference of a trained model on the labeled samples of a split."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from project.interface import Batch, Split
from project.modules import Classifier
from project.modules.tasks import Task
from project.runs.job import Trained


def batches(trained: Trained, split: Split, max_images: int | None = None) -> Iterator[Batch]:
    """Yield the images of a split, uint8 or float in [0, 1], (N, C, H, W), with their targets and rows.

    All are on the model's device.

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
        copied = Batch(*(part[:left].to(device, copy=True) for part in batch))
        yield trained.data.on_after_batch_transfer(copied, 0)  # a subclass may compute the targets there
        left -= len(batch.index)
        if left <= 0:
            break


@torch.no_grad()
def forward(model: Classifier, image: Tensor) -> Tensor:
    """Return outputs, float32 (N, outputs), computed in the trainer's precision."""
    with model.trainer.precision_plugin.forward_context():
        return cast(Tensor, model(image)).float()


def predict_outputs(trained: Trained, split: Split, max_images: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs, float64 (N, outputs), targets and rows of `batches`, on the CPU."""
    found = [
        (forward(trained.module, x).double().cpu(), y.cpu(), row.cpu())
        for x, y, row in batches(trained, split, max_images)
    ]
    outputs, target, rows = zip(*found, strict=True)
    return torch.cat(outputs), torch.cat(target), torch.cat(rows)


def headline(task: Task) -> tuple[str, str]:
    """Return the name of the metric of `Task.headline_value`, and its format."""
    name, form = task.headline or ("loss", ".4f")
    return {"acc": "accuracy", "f1": "F1", "mae": "MAE"}.get(name, name), form
