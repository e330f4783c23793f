"""What every datamodule has; one of your own overrides `description` and the loaders, and what else it can tell."""

from pathlib import Path
from typing import Literal

import lightning as L

from project.interface import Batch, DataDescription, Split


class DataModule(L.LightningDataModule):
    """A LightningDataModule whose loaders yield `Batch` and that can describe its data."""

    batch_size: int = 1
    """Samples in one step, over all devices together."""
    folder: Path = Path()
    """Where the samples are."""

    @property
    def description(self) -> DataDescription:
        """The data description; known after `setup`."""
        raise NotImplementedError

    @property
    def augments(self) -> bool:
        """Whether training sees a sample otherwise each time."""
        return True

    @property
    def size(self) -> int:
        """Number of samples, over all splits."""
        return sum(self.split_sizes().values())

    @property
    def reading(self) -> str:
        """Where the samples of a step come from, in words."""
        return type(self).__name__

    def path(self, index: int) -> str:
        """Return the name of a sample, such as a path relative to the data's root, by its row in the index."""
        return str(index)

    def split_sizes(self) -> dict[Split, int]:
        """Return the number of samples in each split."""
        raise NotImplementedError

    def sample(self, count: int, split: Split | Literal[""] = "train") -> Batch:
        """Return up to `count` samples of a split ("": of none, to predict), evenly spaced, without augmentation."""
        raise NotImplementedError

    def write_split(self, file: Path) -> None:
        """Write which sample went to which split, as a CSV: path, class, split; nothing where that is not known."""

    def samples_in_step(self, batch_idx: int) -> int | None:
        """Return the training samples of the optimizer step that a batch belongs to, over all processes.

        By it each sample weighs the same, however unevenly they came; None where all batches are to count alike.
        """
        return None
