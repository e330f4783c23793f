"""A trained model on labelled images, where the trainer computes."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from project.datamodules import ImageDataModule
from project.interface import Split
from project.modules import Classifier


def batches(
    model: Classifier, data: ImageDataModule, split: Split, most: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of a split, uint8 (N, 3, H, W), with labels, int64 (N,); with `most`, no more than that, evenly mixed."""
    if most is not None:
        model.trainer.limit_test_batches = 0.5  # what is limited comes mixed
    left = data.split_sizes()[split] if most is None else most
    loaders = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}
    for batch in loaders[split]():
        if left <= 0:
            break
        # Copied, as loaders use the memory of a batch again.
        yield batch.image[:left].to(model.device, copy=True), batch.label[:left].to(model.device, copy=True)
        left -= len(batch.label)


@torch.no_grad()
def logits(model: Classifier, image: Tensor) -> Tensor:
    """Logits, float32 (N, classes), of images as `Classifier` takes them, in the trainer's precision."""
    with model.trainer.precision_plugin.forward_context():
        return cast(Tensor, model(image)).float()
