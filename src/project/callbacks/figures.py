"""Figures and sample images in TensorBoard and other trackers."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image
from torchvision.utils import make_grid

from project.interface import Batch, Split, data_of, module_of
from project.output import printable
from project.runs.trackers import log_figure, log_image, log_text, media_loggers

FIRST_IMAGES = 32
"""Number of images of the first batch to log."""
THUMBNAIL = 96
"""Smaller images are enlarged to at least this width in pixels."""


class Figures(L.Callback):
    """Callback that logs the first training batch, and the figures of the task, such as a confusion matrix."""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Define the custom scalar charts that show train and val together."""
        if writer := tensorboard_writer(trainer):
            headline = module_of(trainer).task.headline
            figures = ("loss", headline[0]) if headline else ("loss",)
            layout = {figure: ["Multiline", [f"{split}/{figure}" for split in ("train", "val")]] for figure in figures}
            writer.add_custom_scalars({"train and val": layout})

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Log the first training batch, after augmentation."""
        first = trainer.global_step == 0 and batch_idx == 0 and len(batch.index)  # DP-SGD may sample an empty batch
        if first and (loggers := media_loggers(trainer)):
            shown = batch.inputs[:FIRST_IMAGES].detach()
            samples = (shown.float() if shown.is_floating_point() else shown).cpu().numpy()
            log_samples(loggers, "train/first_batch", [*map(data_of(trainer).description.input.render, samples)], 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the figures of the last evaluation: of val after training, of test after a test."""
        split: Split = "test" if trainer.testing else "val"
        if (loggers := media_loggers(trainer)) and (result := module_of(trainer).metrics.results.get(split)):
            for name, figure in module_of(trainer).task.figures(result).items():
                log_figure(loggers, f"{split}/{name}", figure, trainer.global_step)

    on_test_end = on_train_end


def tensorboard_writer(trainer: L.Trainer) -> Any:
    """Return the TensorBoard writer of the run, or None on other processes and without a logger."""
    logger = trainer.logger
    return logger.experiment if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero else None


def log_samples(loggers: list[Logger], tag: str, rendered: Sequence[Any], step: int) -> None:
    """Log samples rendered by `Input.render`: images as one grid, small ones enlarged; texts as lines."""
    if not isinstance(rendered[0], Image.Image):
        log_text(loggers, tag, "\n\n".join(map(printable, map(str, rendered))), step)
        return
    factor = max(1, -(-THUMBNAIL // rendered[0].width))
    size = rendered[0].width * factor, rendered[0].height * factor
    images = [np.asarray(image.convert("RGB").resize(size, Image.Resampling.NEAREST)) for image in rendered]
    grid = make_grid(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), nrow=8, padding=4, pad_value=255)
    log_image(loggers, tag, Image.fromarray(grid.permute(1, 2, 0).numpy()), step)
