"""Callback for error analysis during training, in TensorBoard and other trackers."""

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor

from project.callbacks.figures import tensorboard_writer
from project.callbacks.test_summary import ScoredSample, TopK
from project.errors import UserError
from project.explain.attribution import overlays
from project.explain.render import enlarge, image_grid
from project.interface import Batch, data_of, module_of
from project.machine import font_families
from project.modules.tasks import Task
from project.output import printable
from project.runs.trackers import log_figure, log_image, media_loggers

PAIRS = 10  # most confused pairs of classes in the figure
SIDE = 160  # approximate length of the longer side of enlarged images in pixels


class ErrorAnalysis(L.Callback):
    """Callback that logs the figures of the task, the worst mistakes and the least certain val images.

    For classes, it also logs the recall of each and the most confused pairs. Images are shown with prediction, target
    and a Grad-CAM overlay of the most important prediction. With several processes, the images are from rank 0, and the
    figures are over all ranks.

    Args:
        every_n_epochs: Log after the validation of every n-th epoch.
        images: Number of images of each kind.
        histograms: Whether to also log histograms of all weights, and of the gradients of the last step of the epoch.
    """

    def __init__(self, every_n_epochs: int = 5, images: int = 8, histograms: bool = True) -> None:
        if every_n_epochs < 1 or images < 1:
            raise UserError(
                f"ErrorAnalysis: every_n_epochs and images must be at least 1, got {every_n_epochs} and {images}"
            )
        self.every_n_epochs, self.images, self.histograms = every_n_epochs, images, histograms
        self._top_k: dict[str, TopK] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the input and the task.

        Raises:
            UserError: The input is not an image, or the task does not rank samples.
        """
        kind, task = data_of(trainer).description.input.kind, type(module_of(trainer).task)
        if kind != "image":
            raise UserError(f"ErrorAnalysis is for images, and the data has {kind}s: remove it from trainer.callbacks")
        if task.rank_samples is Task.rank_samples:
            raise UserError(f"ErrorAnalysis needs a ranking of mistakes: give {task.__name__} a method rank_samples")

    def _loggers(self, trainer: L.Trainer) -> list[Logger]:
        """Return the loggers for images; none if nothing is logged in this epoch or by this process."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        return media_loggers(trainer) if due else []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Log the gradients of the last step of the epoch."""
        if self.histograms and trainer.is_last_batch and self._loggers(trainer):
            gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            _histograms(tensorboard_writer(trainer), "gradients", gradients, trainer.global_step)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        """Update the worst mistakes and the least certain images."""
        if not self._loggers(trainer):
            return
        if batch_idx == 0:
            self._top_k = {}
        task, predictions, target, index = module_of(trainer).task, outputs.cpu(), batch.target.cpu(), batch.index.cpu()
        scores = {"worst_mistakes": task.rank_mistakes(predictions, target)}
        if (uncertain := task.rank_samples(predictions, target, index, 0).get("uncertain")) is not None:
            scores["least_certain"] = uncertain
        for kind, score in scores.items():
            top_k = self._top_k.setdefault(kind, TopK(self.images))
            top_k.offer(score.numpy(), index.numpy(), batch.inputs, predictions, target)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the figures and the images, and the weights to TensorBoard."""
        loggers, step = self._loggers(trainer), trainer.global_step
        if not loggers:
            return
        result, task = module_of(trainer).metrics.results["val"], module_of(trainer).task
        figures = task.figures(result)
        if (confusion := result.details.get("confusion")) is not None:
            figures["classes"] = classes_figure(confusion.cpu().numpy(), task.output_names)
        for name, figure in figures.items():
            log_figure(loggers, f"val/{name}", figure, step)
        for kind, top_k in self._top_k.items():
            if top_k.kept:
                log_image(loggers, f"val/{kind}", self._grid(trainer, top_k.kept), step)
        self._top_k = {}
        if self.histograms:
            _histograms(tensorboard_writer(trainer), "weights", dict(pl_module.named_parameters()), step)

    @staticmethod
    def _grid(trainer: L.Trainer, kept: list[ScoredSample]) -> Image.Image:
        """Return a grid with two images per row, each followed by its Grad-CAM overlay."""
        module, samples = module_of(trainer), [sample for _, _, sample in kept]
        image = torch.stack([image for image, *_ in samples])
        described = [module.task.describe_mistake(*sample[1:]) for sample in samples]
        enlarged = [enlarge(each, SIDE) for each in image]
        tiles: list[tuple[str, Image.Image]] = []
        content = data_of(trainer).content([row for _, row, _ in kept])
        outputs = torch.tensor([output for output, *_ in described])
        overlaid = overlays(module, image, outputs, SIDE, content) or enlarged
        for (_, *titles), original, gradcam in zip(described, enlarged, overlaid, strict=True):
            tiles += zip(titles, (original, gradcam), strict=True)
        return image_grid([tiles[i : i + 4] for i in range(0, len(tiles), 4)])


def _histograms(writer: Any, group: str, tensors: dict[str, Tensor], step: int) -> None:
    for name, values in tensors.items():
        if writer and values.isfinite().all():
            writer.add_histogram(f"{group}/{name.removeprefix('net.')}", values.detach().float().cpu(), step)


def classes_figure(confusion: Any, names: list[str]) -> Any:
    """Return bar charts of the recall of each class, lowest first, and of the most confused pairs.

    Args:
        confusion: Confusion matrix, int64 (C, C), labels in rows.
        names: Names of the classes.
    """
    from matplotlib.figure import Figure

    support = confusion.sum(1)
    normalized = confusion / np.maximum(support, 1)[:, None]
    recall = np.diag(normalized)
    lowest = [c for c in np.argsort(recall, kind="stable") if support[c]][:30]
    errors = normalized - np.diag(recall)
    pairs = [divmod(i, len(names)) for i in np.argsort(-errors, axis=None, kind="stable")[:PAIRS] if errors.flat[i] > 0]
    confused = [f"{names[row]} predicted as {names[column]}" for row, column in pairs]
    figure = Figure(figsize=(12, max(3.5, 0.3 * len(lowest) + 1)), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, title, labels, values in (
        (left, "recall by class", [names[c] for c in lowest], recall[lowest]),
        (right, "most confused pairs", confused, [errors[pair] for pair in pairs]),
    ):
        bars = axes.barh(range(len(values)), values, color="#4269d0")
        axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=3)
        axes.set_yticks(range(len(values)), [*map(printable, labels)], parse_math=False, fontfamily=font_families())
        axes.set(title=title, xlim=(0, 1.12 * max([*values, 1e-9])), xticks=[])
        axes.invert_yaxis()
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure
