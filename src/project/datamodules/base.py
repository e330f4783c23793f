"""Base class of datamodules; subclasses implement `description`, the dataloaders and, as needed, the other methods."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import lightning as L
from torch import Tensor

from project.interface import Batch, DataDescription, Input, Split


class DataModule(L.LightningDataModule):
    """A LightningDataModule whose dataloaders yield `Batch` and that describes its data."""

    batch_size: int = 1
    """Global batch size: samples per step over all devices."""
    folder: Path = Path()
    """The dataset directory."""
    is_other: bool = False
    """True if the data is not what the model was trained on; all of it is evaluated, unless it has splits."""
    other_data: str = "--data.root FOLDER_OR_IMAGE"
    """Options of `predict` for other data, as printed after training."""
    key: ClassVar[str] = "path"
    """Column of the names of samples in tables; see `path`."""
    notes: Sequence[str] = ()
    """Sentences about the data that are printed at the start of training."""

    @property
    def description(self) -> DataDescription:
        """Description of the data, available after `setup`."""
        raise NotImplementedError

    def use_input(self, inputs: Input) -> None:
        """Take over the input of the network before training: pretrained weights may refine that of the data.

        By default nothing changes, as the module normalizes the samples itself.
        """

    @property
    def augments(self) -> bool:
        """True if training samples are augmented."""
        return True

    @property
    def size(self) -> int:
        """Number of samples in all splits."""
        return sum(self.split_sizes().values())

    @property
    def rows(self) -> int:
        """Number of rows of the index, those of skipped samples included; `Batch.index` is below it."""
        return self.size

    @property
    def reading(self) -> str:
        """Data source as printed at the start of training, e.g. "files, 2 workers"."""
        return type(self).__name__

    def path(self, index: int) -> str:
        """Return the name of the sample at a row of the index: its path relative to the dataset directory, its text."""
        return str(index)

    def split_sizes(self) -> dict[Split, int]:
        """Return the number of samples in each split."""
        raise NotImplementedError

    def sample(self, count: int, split: Split | Literal[""] = "train") -> Batch:
        """Return up to `count` evenly spaced samples of a split ("" for prediction data), without augmentation."""
        raise NotImplementedError

    def content(self, rows: Sequence[int]) -> Tensor | None:
        """Return which pixels of the images at these rows of the index are not padding, bool (N, 1, H, W).

        None if no sample is padded.
        """
        return None

    def write_split(self, file: Path) -> None:
        """Write the split as a CSV with columns path, class, split. By default, nothing is written."""

    def samples_in_step(self, batch_idx: int) -> int | None:
        """Return the number of training samples in the optimizer step of a batch, over all processes.

        It weights all samples equally when batches differ in size. With None, all batches have the same weight.
        """
        return None
