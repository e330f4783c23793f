"""What TensorBoard shows besides curves."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torchvision.utils import make_grid

from project.interface import Batch, Split, data_of, module_of
from project.output import printable

FIRST_IMAGES = 32
"""Images shown of the first batch."""
THUMBNAIL = 96
"""Images are enlarged to at least this many pixels, so that they can be read."""


class TensorBoardFigures(L.Callback):
    """Shows train and val in one picture, the first batch as the net sees it, the confusion matrix of val and test."""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Lay out the tab of custom scalars."""
        if writer := tensorboard_writer(trainer):
            figures = ("loss", "acc", "f1") if module_of(trainer).task.headline else ("loss",)
            layout = {figure: ["Multiline", [f"{split}/{figure}" for split in ("train", "val")]] for figure in figures}
            writer.add_custom_scalars({"train and val": layout})

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Show the first batch, augmented."""
        first = trainer.global_step == 0 and batch_idx == 0 and len(batch.index)  # a private step may draw no image
        if first and (writer := tensorboard_writer(trainer)):
            shown = batch.inputs[:FIRST_IMAGES].detach()
            samples = (shown.float() if shown.is_floating_point() else shown).cpu().numpy()
            log_samples(writer, "train/first_batch", [*map(data_of(trainer).description.input.render, samples)], 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the figures of the val split, as of the last epoch; of a test, those of its split."""
        split: Split = "test" if trainer.testing else "val"
        if (writer := tensorboard_writer(trainer)) and (result := module_of(trainer).results.get(split)):
            for name, figure in module_of(trainer).task.figures(result).items():
                writer.add_figure(f"{split}/{name}", figure, trainer.global_step)

    on_test_end = on_train_end


def tensorboard_writer(trainer: L.Trainer) -> Any:
    """What writes pictures, on the first process; None where nothing does."""
    logger = trainer.logger
    return logger.experiment if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero else None


def log_samples(writer: Any, tag: str, rendered: Sequence[Any], step: int) -> None:
    """Log samples as `Input.render` gives them: images as one sheet, small ones enlarged; texts as lines."""
    if not isinstance(rendered[0], Image.Image):
        writer.add_text(tag, "\n\n".join(map(printable, map(str, rendered))), step)
        return
    factor = max(1, -(-THUMBNAIL // rendered[0].width))
    size = rendered[0].width * factor, rendered[0].height * factor
    sheet = [np.asarray(picture.convert("RGB").resize(size, Image.Resampling.NEAREST)) for picture in rendered]
    pixels = torch.from_numpy(np.stack(sheet)).permute(0, 3, 1, 2)
    writer.add_image(tag, make_grid(pixels, nrow=8, padding=4, pad_value=255), step)
