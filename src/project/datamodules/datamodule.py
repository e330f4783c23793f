"""The datamodule: from a folder to augmented batches on the device."""

import csv
import os
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from project.datamodules.index import ImageIndex, index_tree, index_unlabelled
from project.datamodules.loader import ImageFiles, Loader
from project.datamodules.sampler import EpochBatches
from project.datamodules.source import Source
from project.datamodules.split import complete_splits
from project.datamodules.statistics import channel_statistics, check_readable
from project.errors import UserError
from project.interface import SPLITS, Batch, DataDescription, ImageData, Split, image_classifier


class ImageDataModule(ImageData):
    """Finds, splits, reads, batches and augments the images of a folder. Nothing is ever written into that folder.

    Args:
        root: Your images: ROOT/CLASS/IMAGE, or ROOT/{train,val,test}/CLASS/IMAGE with val and test optional. To
            predict, any folder or a single image.
        source: A data set by name, used when `root` is not given.
        image_size: Height and width of the images the net sees, in pixels.
        batch_size: Images in one step, over all devices together.
        val_fraction: Share of each class set aside for val where the tree has none, in (0, 1).
        test_fraction: Share of each class set aside for test where the tree has neither val nor test, in [0, 1).
        split_seed: Another seed, another split; apart from the seed of training, so that runs can be compared.
        batch_transforms: Augmentation: modules that take and return a float batch (N, 3, H, W) in [0, 1] on the
            device, in training only.
        num_workers: Processes that read images; by default none on a lone CPU core, else up to one a core.
        cache_dir: Folder where data sets by name are kept.
    """

    def __init__(
        self,
        root: str | None = None,
        source: Source | None = None,
        image_size: int = 32,
        batch_size: int = 128,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        batch_transforms: list[nn.Module] | None = None,
        num_workers: int | None = None,
        cache_dir: str = "data",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, value in {"val_fraction": val_fraction, "test_fraction": test_fraction}.items():
            if not 0 <= value < 1:
                raise UserError(f"data.{name} must be at least 0 and below 1, got {value}")
        for name, number in {"image_size": image_size, "batch_size": batch_size}.items():
            if number < 1:
                raise UserError(f"data.{name} must be at least 1, got {number}")
        self.root, self.source, self.cache_dir = root, source, Path(cache_dir)
        self.image_size, self.batch_size = image_size, batch_size
        self.fractions, self.split_seed = (val_fraction, test_fraction), split_seed
        self.batch_transforms = nn.ModuleList(batch_transforms or [])
        self.num_workers = num_workers
        self.index: ImageIndex | None = None
        self._description: DataDescription | None = None

    # -- finding ------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Write the data set by name, if one is asked for and not there; on one process a machine."""
        if self.root is None:
            self._source().prepare(self.cache_dir)

    def setup(self, stage: str) -> None:
        """Index and split the images; on `fit` also take the channel statistics.

        Raises:
            UserError: see `index_tree`, `complete_splits` and `check_readable`.
        """
        self.folder = folder = Path(self.root) if self.root is not None else self._source().prepare(self.cache_dir)
        known = image_classifier(self.trainer).data_description if self.trainer else None
        if known is not None and stage != "fit":
            self._description = known
        if stage == "predict":
            self.index = index_unlabelled(folder)
            return
        if self.index is not None and self.index.class_names:
            return  # `test` after `fit` on the same datamodule
        index = index_tree(folder, known.class_names if known else None)
        self.index = complete_splits(index, *self.fractions, self.split_seed)
        if stage == "fit":
            check_readable(self.index)
            mean, std = channel_statistics(self.index, self.index.rows("train"), self.image_size)
            names, mark = self.index.class_names, self.index.fingerprint()
            self._description = DataDescription(names, self.image_size, mean, std, mark)
        elif known is not None and "" in index.splits and known.fingerprint != self.index.fingerprint():
            rank_zero_warn(
                f"{folder} is not as it was when the model was trained, so its splits are drawn anew: images that were"
                " trained on may be among them. To test on images of your choice, give DIR/test/CLASS/IMAGE"
            )

    def _source(self) -> Source:
        if self.source is None:
            raise UserError("no images: give --data.root DIR, or a data set by name with --data.source Digits")
        return self.source

    @property
    def description(self) -> DataDescription:
        """The data description; known after `setup`."""
        assert self._description is not None, "setup comes first"
        return self._description

    @property
    def test_split(self) -> Split:
        """The split that is tested on: val where there is no test."""
        return "test" if len(self._index().rows("test")) else "val"

    def _index(self) -> ImageIndex:
        assert self.index is not None, "setup comes first"
        return self.index

    def path(self, index: int) -> str:
        """Path of an image, relative to the data's root, by its row in the index."""
        return self._index().paths[index]

    def split_sizes(self) -> dict[Split, int]:
        """Number of images in each split."""
        return {split: len(self._index().rows(split)) for split in SPLITS}

    def write_split(self, file: Path) -> None:
        """Write which file went to which split: path, class, split."""
        index = self._index()
        with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "class", "split"])
            for path, label, split in zip(index.paths, index.labels, index.splits, strict=True):
                writer.writerow([path, index.class_names[label], split])

    # -- loading ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Loader:
        """Batches of the train split, in an order of (seed, epoch)."""
        return self._loader("train", shuffle=not (self.trainer and self.trainer.overfit_batches))  # type: ignore[attr-defined]

    def val_dataloader(self) -> Loader:
        """Batches of the val split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """Batches of the test split (of val where there is none), in order."""
        return self._loader(self.test_split)

    def predict_dataloader(self) -> Loader:
        """Batches of every image found, in order."""
        return self._loader("")

    def _loader(self, split: Split | str, shuffle: bool = False) -> Loader:
        index, trainer = self._index(), self.trainer
        rows = index.rows(split)  # type: ignore[arg-type]
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if self.batch_size < world or len(rows) < world:
            raise UserError(
                f"{world} processes need at least as many images in a batch (data.batch_size is {self.batch_size})"
                f" and in each split ({split or 'this folder'} has {len(rows)})"
            )
        dataset = ImageFiles(index, rows, self.description.image_size)
        batches = EpochBatches(len(rows), self.batch_size, shuffle, self._seed(), rank, world)
        return Loader(dataset, batches, self._workers(world), torch.cuda.is_available())

    def _workers(self, world: int) -> int:
        if self.num_workers is not None:
            return self.num_workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return 0 if cores == 1 else max(1, min(cores // world, 16))

    # -- augmenting ---------------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch on its device; what this step draws is a function of (seed, step, rank)."""
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return batch
        step = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        draw = np.random.SeedSequence((self._seed(), step, trainer.global_rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(draw[0]))
        if not self.batch_transforms:
            return batch
        image = batch.image.float() / 255
        with torch.no_grad():
            for transform in self.batch_transforms:
                image = transform(image)
        return batch._replace(image=image.clamp(0, 1))

    @staticmethod
    def _seed() -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "0"))
