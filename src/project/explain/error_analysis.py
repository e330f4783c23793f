"""What a net gets wrong while it trains, in TensorBoard."""

from typing import Any, cast

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.callbacks.figures import tensorboard_writer
from project.callbacks.test_summary import ScoredSample, TopK
from project.errors import UserError
from project.explain.attribution import overlays
from project.explain.render import enlarge, image_grid
from project.interface import Batch, data_of, module_of
from project.machine import font_families
from project.modules import Classifier
from project.modules.tasks.multiclass import confusion_figure
from project.output import printable

PAIRS = 10  # of classes that are shown as confused most
SIDE = 160  # images are enlarged to about this many pixels


class ErrorAnalysis(L.Callback):
    """Shows after some validations what is confused with what, the worst mistakes, the least certain images, weights.

    Pictures carry prediction, label, loss and probability, and beside each lies Grad-CAM's evidence for the prediction.
    With several processes they are those of the first one's share; the counts are of all.

    Args:
        every_n_epochs: Show them after the validation of every so many epochs.
        images: Pictures of each kind.
        histograms: Also histograms of all weights, and of the gradients of the epoch's last step.
    """

    def __init__(self, every_n_epochs: int = 5, images: int = 8, histograms: bool = True) -> None:
        if every_n_epochs < 1 or images < 1:
            raise UserError("ErrorAnalysis needs every_n_epochs and images of at least 1")
        self.every_n_epochs, self.images, self.histograms = every_n_epochs, images, histograms
        self._kept: dict[str, TopK] = {}

    def _writer(self, trainer: L.Trainer) -> Any:
        """Return what writes after this epoch's validation; None if nothing is to be shown, or by another process."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        return tensorboard_writer(trainer) if due else None

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Show the gradients of the epoch's last step."""
        if self.histograms and trainer.is_last_batch and (writer := self._writer(trainer)):
            gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            _histograms(writer, "gradients", gradients, trainer.global_step)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: Any
    ) -> None:
        """Keep what deserves to be shown so far."""
        if not self._writer(trainer):
            return
        if batch_idx == 0:
            self._kept = {kind: TopK(self.images) for kind in ("worst_mistakes", "least_certain")}
        probability, predicted = outputs.max(1)
        of_label = outputs.gather(1, batch.target[:, None])[:, 0]
        mistaken = torch.where(predicted != batch.target, -of_label, -torch.inf)
        columns = (batch.index, batch.target, predicted, of_label, probability)
        index, *facts = (column.cpu().numpy() for column in columns)
        for kept, worth in zip(self._kept.values(), (mistaken, -probability), strict=True):
            kept.offer(worth.cpu().numpy(), index, batch.inputs, *facts)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show it."""
        writer, step = self._writer(trainer), trainer.global_step
        if not writer:
            return
        module, names = module_of(trainer), data_of(trainer).description.classes.class_names
        confusion = cast(Tensor, module.results["val"].confusion).cpu()
        writer.add_figure("val/confusion_matrix", confusion_figure(confusion, names), step)
        writer.add_figure("val/classes", classes_figure(confusion.numpy(), names), step)
        for kind, shortlist in self._kept.items():
            if shortlist.kept:
                sheet = self._sheet(module, shortlist.kept, names)
                writer.add_image(f"val/{kind}", np.asarray(sheet), step, dataformats="HWC")
        self._kept = {}
        if self.histograms:
            _histograms(writer, "weights", dict(pl_module.named_parameters()), step)

    @staticmethod
    def _sheet(model: Classifier, kept: list[ScoredSample], names: list[str]) -> Image.Image:
        """Return the images in pairs, two pairs a row: as it is, and with the evidence for the prediction."""
        shown = [what for _, _, what in kept]
        image, target = torch.stack([item[0] for item in shown]), torch.tensor([item[2] for item in shown])
        plain = [enlarge(picture, SIDE) for picture in image]
        tiles = []
        for item, picture, evident in zip(shown, plain, overlays(model, image, target, SIDE) or plain, strict=True):
            _, label, predicted, of_label, probability = item
            loss = -float(np.log(max(of_label, 1e-12)))
            tiles.append((f"{names[predicted]}: {probability:.0%}", picture))
            tiles.append((f"is {names[label]}: {of_label:.0%}, loss {loss:.2f}", evident))
        return image_grid([tiles[i : i + 4] for i in range(0, len(tiles), 4)])


def _histograms(writer: Any, group: str, tensors: dict[str, Tensor], step: int) -> None:
    for name, values in tensors.items():
        if values.isfinite().all():
            writer.add_histogram(f"{group}/{name.removeprefix('net.')}", values.detach().float().cpu(), step)


def classes_figure(confusion: Any, names: list[str]) -> Any:
    """Return bars of recall, the least first, beside the pairs confused most; of int64 counts, labels in rows."""
    from matplotlib.figure import Figure

    of_class = confusion.sum(1)
    share = confusion / np.maximum(of_class, 1)[:, None]
    recall = np.diag(share)
    weakest = [c for c in np.argsort(recall, kind="stable") if of_class[c]][:30]
    wrong = share - np.diag(recall)
    pairs = [divmod(i, len(names)) for i in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS] if wrong.flat[i] > 0]
    confused = [f"{names[row]} taken for {names[column]}" for row, column in pairs]
    figure = Figure(figsize=(12, max(3.5, 0.3 * len(weakest) + 1)), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, title, labels, values in (
        (left, "right of each class", [names[c] for c in weakest], recall[weakest]),
        (right, "confused most", confused, [wrong[pair] for pair in pairs]),
    ):
        bars = axes.barh(range(len(values)), values, color="#4269d0")
        axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=3)
        axes.set_yticks(range(len(values)), [*map(printable, labels)], parse_math=False, fontfamily=font_families())
        axes.set(title=title, xlim=(0, 1.12 * max([*values, 1e-9])), xticks=[])
        axes.invert_yaxis()
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure
