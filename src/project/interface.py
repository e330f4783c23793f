"""What passes between datamodule, classifier and callbacks; the three know each other by this file only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import lightning as L
from lightning.pytorch.callbacks import Timer
from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class DataDescription:
    """What the data says of itself; found on `fit`, then carried by the checkpoint.

    Args:
        class_names: One name a class; the position is the class index.
        image_size: Height and width in pixels of the square images the net sees.
        mean: What images are normalised by: mean of each RGB channel over the training images, in [0, 1], or over
            those that the net was pretrained on.
        std: Standard deviation of each RGB channel, alike.
        train_counts: Number of training images of each class.
        fingerprint: Stands for the images' paths, labels and splits; another one means other data.
    """

    class_names: list[str]
    image_size: int
    mean: list[float]
    std: list[float]
    train_counts: list[int]
    fingerprint: str


class Batch(NamedTuple):
    """A batch of images, from the loader to the callbacks.

    Attributes:
        image: uint8 NCHW in [0, 255], RGB; after batch transforms float NCHW in [0, 1].
        label: int64 (N,), -1 where unknown; or class probabilities, float (N, classes), after mixing.
        index: int64 (N,), the image's row in the datamodule's index.
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]


class StageResult(NamedTuple):
    """What the classifier counted over one epoch of one stage.

    Attributes:
        scalars: loss, acc, precision, recall, f1 by name.
        per_class: precision, recall, f1 and images, each a vector over the classes, by name.
        confusion: int64 (classes, classes); rows are labels, columns are predictions.
    """

    scalars: dict[str, Tensor]
    per_class: dict[str, Tensor]
    confusion: Tensor


class ImageClassifier(L.LightningModule):
    """What datamodule and callbacks may ask of a classifier; see `project.modules.Classifier`."""

    data_description: DataDescription | None
    """What the classifier was or is trained on; None before the first `setup`."""
    results: dict[Split, StageResult]
    """The latest whole epoch of each stage."""
    sure_above: float | None
    """The probability from which a prediction counts as sure; None where that was not asked."""

    @property
    def settings(self) -> list[str]:
        """What was chosen for speed, in words."""
        raise NotImplementedError


class ImageData(L.LightningDataModule):
    """What classifier and callbacks may ask of a datamodule; see `project.datamodules.ImageDataModule`."""

    folder: Path
    """Where the images are."""
    batch_size: int
    """Images in one step, over all devices together."""

    @property
    def description(self) -> DataDescription:
        """The data description; known after `setup`."""
        raise NotImplementedError

    @property
    def augments(self) -> bool:
        """Whether training sees an image otherwise each time."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of images, over all splits."""
        raise NotImplementedError

    @property
    def reading(self) -> str:
        """Where the images of a step come from, in words."""
        raise NotImplementedError

    def path(self, index: int) -> str:
        """Path of an image, relative to the data's root, by its row in the index."""
        raise NotImplementedError

    def sample(self, count: int, split: Split | Literal[""] = "train") -> Batch:
        """Up to `count` images of a split without augmentation, evenly spaced; "" for those of no split, to predict."""
        raise NotImplementedError

    def split_sizes(self) -> dict[Split, int]:
        """Number of images in each split."""
        raise NotImplementedError

    def write_split(self, file: Path) -> None:
        """Write which file went to which split, as a CSV: path, class, split."""
        raise NotImplementedError

    def images_in_step(self, batch_idx: int) -> int:
        """Training images of the optimizer step that a batch belongs to: all its batches, on all processes."""
        raise NotImplementedError


def image_classifier(trainer: L.Trainer) -> ImageClassifier:
    """The trainer's LightningModule, by the interface that this file promises."""
    return cast(ImageClassifier, trainer.lightning_module)


def image_data(trainer: L.Trainer) -> ImageData:
    """The trainer's datamodule, by the interface that this file promises."""
    return cast(ImageData, trainer.datamodule)  # type: ignore[attr-defined]


def time_limit(trainer: L.Trainer) -> Timer | None:
    """The clock of `--trainer.max_time`."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]


def class_names(trainer: L.Trainer) -> list[str]:
    """The classes of the model that the trainer runs, in the order of its outputs."""
    description = image_classifier(trainer).data_description
    assert description is not None
    return description.class_names


def test_folder(trainer: L.Trainer) -> Path | None:
    """The folder that a test writes what it found into; None where it must leave nothing. All processes must ask."""
    folder = trainer.log_dir
    if folder is None or trainer.logger is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)
