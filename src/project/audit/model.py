"""A trained model and labelled images, where the trainer computes."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import lightning as L
import torch
from torch import Tensor

from project.checkpoints import load_checkpoint
from project.datamodules import ImageDataModule
from project.errors import UserError
from project.interface import Split
from project.modules import Classifier


def prepare(trainer: L.Trainer, model: Classifier, data: ImageDataModule, checkpoint: Path) -> None:
    """Give the model its trained weights and find the images; see `batches`.

    Raises:
        UserError: several processes, or see `load_checkpoint` and `ImageDataModule.setup`.
    """
    if trainer.world_size > 1:
        raise UserError("this works on one device: add --trainer.devices 1")
    model.trainer = data.trainer = trainer
    trainer.strategy.connect(model)
    model.configure_model()
    model.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    model.to(trainer.strategy.root_device).eval()
    data.prepare_data()
    data.setup("test")


def batches(
    model: Classifier, data: ImageDataModule, split: Split, most: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of a split, uint8 (N, 3, H, W), with labels, int64 (N,); with `most`, no more than that, evenly mixed."""
    if most is not None:
        model.trainer.limit_test_batches = 0.5  # what is limited comes mixed
    left = data.split_sizes()[split] if most is None else most
    for batch in data.val_dataloader() if split == "val" else data.test_dataloader():
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
