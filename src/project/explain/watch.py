"""What a net gets wrong while it trains, in TensorBoard."""

import heapq
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.callbacks.pictures import confusion_figure, tensorboard_writer
from project.errors import UserError
from project.explain.maps import overlays
from project.explain.pictures import enlarge, page
from project.fonts import families
from project.interface import Batch, class_names, image_classifier
from project.modules import Classifier
from project.words import legible

PAIRS = 10
"""Pairs of classes that are shown as confused most."""
SIDE = 160
"""Images are enlarged to about this many pixels."""

Kept = tuple[float, int, Tensor, int, int, float, float]
"""How much an image deserves to be shown, its row in the index, the image, label, prediction, and the probabilities of
these two."""


class Watch(L.Callback):
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
            raise UserError("Watch needs every_n_epochs and images of at least 1")
        self.every_n_epochs, self.images, self.histograms = every_n_epochs, images, histograms
        self._kept: dict[str, list[Kept]] = {}

    def _writer(self, trainer: L.Trainer) -> Any:
        """What writes after this epoch's validation; None where nothing is to be shown, or by another process."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        return tensorboard_writer(trainer) if due else None

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Show the gradients of the epoch's last step."""
        if self.histograms and trainer.is_last_batch and (writer := self._writer(trainer)):
            gradients = {name: p.grad for name, p in pl_module.named_parameters() if p.grad is not None}
            _histograms(writer, "gradients", gradients, trainer.global_step)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what deserves to be shown so far."""
        if not self._writer(trainer):
            return
        if batch_idx == 0:
            self._kept = {"worst_mistakes": [], "least_certain": []}
        probability, predicted = outputs.max(1)
        of_label = outputs.gather(1, batch.label[:, None])[:, 0]
        mistaken = torch.where(predicted != batch.label, -of_label, -torch.inf)
        for kind, worth in {"worst_mistakes": mistaken, "least_certain": -probability}.items():
            for i in worth.topk(min(self.images, len(worth))).indices.tolist():
                if worth[i] > -torch.inf:
                    image = batch.image[i].to("cpu", copy=True)  # loaders use the memory of a batch again
                    facts = int(batch.label[i]), int(predicted[i]), float(of_label[i]), float(probability[i])
                    self._kept[kind].append((float(worth[i]), -int(batch.index[i]), image, *facts))
            self._kept[kind] = heapq.nlargest(self.images, self._kept[kind], key=lambda kept: kept[:2])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show it."""
        writer, step = self._writer(trainer), trainer.global_step
        if not writer:
            return
        names = class_names(trainer)
        confusion = image_classifier(trainer).results["val"].confusion.cpu()
        writer.add_figure("val/confusion_matrix", confusion_figure(confusion, names), step)
        writer.add_figure("val/classes", classes_figure(confusion.numpy(), names), step)
        for kind, kept in self._kept.items():
            if kept:
                sheet = self._sheet(cast(Classifier, pl_module), kept, names)
                writer.add_image(f"val/{kind}", np.asarray(sheet), step, dataformats="HWC")
        self._kept = {}
        if self.histograms:
            _histograms(writer, "weights", dict(pl_module.named_parameters()), step)

    @staticmethod
    def _sheet(model: Classifier, kept: list[Kept], names: list[str]) -> Image.Image:
        """The images in pairs, two pairs a row: as it is, and with the evidence for the prediction."""
        image, target = torch.stack([item[2] for item in kept]), torch.tensor([item[4] for item in kept])
        plain = [enlarge(picture, SIDE) for picture in image]
        tiles = []
        for item, picture, evident in zip(kept, plain, overlays(model, image, target, SIDE) or plain, strict=True):
            _, _, _, label, predicted, of_label, probability = item
            loss = -float(np.log(max(of_label, 1e-12)))
            tiles.append((f"{names[predicted]}: {probability:.0%}", picture))
            tiles.append((f"is {names[label]}: {of_label:.0%}, loss {loss:.2f}", evident))
        return page([tiles[i : i + 4] for i in range(0, len(tiles), 4)])


def _histograms(writer: Any, group: str, tensors: dict[str, Tensor], step: int) -> None:
    for name, values in tensors.items():
        if values.isfinite().all():
            writer.add_histogram(f"{group}/{name.removeprefix('net.')}", values.detach().float().cpu(), step)


def classes_figure(confusion: Any, names: list[str]) -> Any:
    """Recall of each class as bars, the least first, beside the pairs that are confused most.

    Args:
        confusion: Counts, int64 (classes, classes), labels in rows.
        names: The classes.
    """
    from matplotlib.figure import Figure

    of_class = confusion.sum(1)
    share = confusion / np.maximum(of_class, 1)[:, None]
    recall = np.diag(share)
    weakest = [c for c in np.argsort(recall, kind="stable") if of_class[c]][:30]
    wrong = share - np.diag(recall)
    pairs = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]]
    pairs = [(row, column) for row, column in pairs if wrong[row, column] > 0]
    confused = [f"{names[row]} taken for {names[column]}" for row, column in pairs]
    figure = Figure(figsize=(12, max(3.5, 0.3 * len(weakest) + 1)), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, title, labels, values in (
        (left, "right of each class", [names[c] for c in weakest], recall[weakest]),
        (right, "confused most", confused, [wrong[pair] for pair in pairs]),
    ):
        bars = axes.barh(range(len(values)), values, color="#4269d0")
        axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=3)
        axes.set_yticks(range(len(values)), [*map(legible, labels)], parse_math=False, fontfamily=families())
        axes.set(title=title, xlim=(0, 1.12 * max([*values, 1e-9])), xticks=[])
        axes.invert_yaxis()
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure
