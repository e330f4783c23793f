"""What TensorBoard shows besides curves."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from project.fonts import families
from project.interface import Batch, Split, image_classifier
from project.words import legible

FIRST_IMAGES = 32
"""Images shown of the first batch."""
THUMBNAIL = 96
"""Images are enlarged to at least this many pixels, so that they can be read."""


class Pictures(L.Callback):
    """Shows train and val in one picture, the first batch as the net sees it, the confusion matrix of val and test."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lay out the tab of custom scalars."""
        if writer := tensorboard_writer(trainer):
            figures = ("loss", "acc", "f1")
            layout = {figure: ["Multiline", [f"{split}/{figure}" for split in ("train", "val")]] for figure in figures}
            writer.add_custom_scalars({"train and val": layout})

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Show the first batch, augmented."""
        first = trainer.global_step == 0 and batch_idx == 0 and len(batch.index)  # a private step may draw no image
        if first and (writer := tensorboard_writer(trainer)):
            writer.add_image("train/first_batch", image_sheet(batch.image[:FIRST_IMAGES]), 0)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the confusion matrix of the test split."""
        self._confusion(trainer, "test")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the confusion matrix of the val split, as of the last epoch."""
        self._confusion(trainer, "val")

    def _confusion(self, trainer: L.Trainer, split: Split) -> None:
        model = image_classifier(trainer)
        if (writer := tensorboard_writer(trainer)) and (result := model.results.get(split)) and model.data_description:
            figure = confusion_figure(result.confusion.cpu(), model.data_description.class_names)
            writer.add_figure(f"{split}/confusion_matrix", figure, trainer.global_step)


def tensorboard_writer(trainer: L.Trainer) -> Any:
    """What writes pictures, on the first process; None where nothing does."""
    logger = trainer.logger
    return logger.experiment if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero else None


def image_sheet(images: Tensor) -> Tensor:
    """Images (N, 3, H, W), uint8 or float in [0, 1], as one sheet uint8 (3, H', W'), small ones enlarged."""
    from torchvision.utils import make_grid

    images = images.detach().cpu()
    if images.is_floating_point():
        images = (images * 255).round().to(torch.uint8)
    factor = max(1, -(-THUMBNAIL // images.shape[-1]))
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    sheet: Tensor = make_grid(images, nrow=8, padding=4, pad_value=255)
    return sheet


def confusion_figure(counts: Tensor, class_names: list[str]) -> Any:
    """A confusion matrix, int64 (classes, classes) with labels in rows, as a matplotlib figure.

    Cells are coloured by the share of the true class and, up to 30 classes, carry their count.
    """
    from matplotlib.figure import Figure

    classes = len(class_names)
    side = min(max(5.0, 0.55 * classes + 2), 14.0)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"accuracy {counts.diag().sum() / counts.sum().clamp(min=1):.1%}")
    step = -(-classes // 60)
    ticks = range(0, classes, step)
    names = [legible(class_names[i]) for i in ticks]
    style: dict[str, Any] = {"parse_math": False, "fontfamily": families()}
    axes.set_xticks(ticks, names, rotation=90, **style)
    axes.set_yticks(ticks, names, **style)
    if classes <= 30:
        for row in range(classes):
            for column in range(classes):
                if count := int(counts[row, column]):
                    colour = "white" if share[row, column] > 0.5 else "black"
                    axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure
