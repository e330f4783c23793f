"""The datamodule: from a folder to augmented batches on the device."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import nn

from project.datamodules.augment import augment, default_augmentation, is_fixed
from project.datamodules.decode import Pixels
from project.datamodules.index import ImageIndex, index_unlabelled
from project.datamodules.index_cache import cached_index_tree
from project.datamodules.labels import index_table
from project.datamodules.loader import Images, Loader
from project.datamodules.packed import decode_all, skip_unreadable, warn_of_copies
from project.datamodules.parallel import cores
from project.datamodules.sampler import EpochBatches, seed_draws
from project.datamodules.shards import ShardReader, is_sharded, read_shard_index
from project.datamodules.source import Source
from project.datamodules.split import complete_splits, hold_out_fold
from project.datamodules.statistics import channel_statistics
from project.datamodules.transforms import RandomResizedCrop
from project.errors import UserError
from project.interface import SPLITS, Batch, DataDescription, ImageData, Split, image_classifier
from project.machine import memory


class ImageDataModule(ImageData):
    """Finds, splits, reads, batches and augments the images of a folder. Nothing is ever written into that folder.

    Args:
        root: Your images: ROOT/CLASS/IMAGE, or ROOT/{train,val,test}/CLASS/IMAGE with val and test optional; or what
            `python -m project shard` wrote, here or in an object store. To predict, any folder or a single image.
        labels: A CSV in place of class folders: columns path (relative to root, which is the CSV's own folder unless
            given) and label, and optionally split and others.
        group_column: A column of that CSV: images with the same entry, such as a patient, stay in one split.
        source: A data set by name, used when neither `root` nor `labels` is given.
        image_size: Height and width of the images the net sees, in pixels.
        batch_size: Images in one step, over all devices together.
        val_fraction: Share of each class set aside for val where the tree has none, in (0, 1).
        test_fraction: Share of each class set aside for test where the tree has neither val nor test, in [0, 1).
        split_seed: Another seed, another split; apart from the seed of training, so that runs can be compared.
        folds: Cut the images into this many parts and hold out one, for cross-validation; 0 does not.
        fold: The part that is held out, from 0: as test, or as val where the data bring a test split.
        sampling: `balanced` draws every class equally often in training; `natural` as often as it is there.
        on_corrupt: What an unreadable image does: `error` lists all of them and stops; `skip` trains without.
        item_transforms: What each image goes through before it is brought to `image_size`: modules that take and
            return uint8 (3, H, W). Those that draw at random are left out in validation and test.
        batch_transforms: Augmentation: modules that take and return a float batch (N, 3, H, W) in [0, 1] on the
            device, in training only. By default the course's: rotation, horizontal flip, crop.
        pack_limit: Images are decoded once into one file if that takes at most this many gigabytes; by default a
            quarter of the machine's memory.
        num_workers: Processes that read images, unless they are packed; by default none on a lone CPU core, else up to
            one a core.
        cache_dir: Folder for data sets by name and packed images.
    """

    def __init__(
        self,
        root: str | None = None,
        labels: str | None = None,
        group_column: str | None = None,
        source: Source | None = None,
        image_size: int = 32,
        batch_size: int = 128,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        folds: int = 0,
        fold: int = 0,
        sampling: Literal["natural", "balanced"] = "natural",
        on_corrupt: Literal["error", "skip"] = "error",
        item_transforms: list[nn.Module] | None = None,
        batch_transforms: list[nn.Module] | None = None,
        pack_limit: float | None = None,
        num_workers: int | None = None,
        cache_dir: str = "data",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be above 0 and below 1, got {val_fraction}")
        if not 0 <= test_fraction < 1:
            raise UserError(f"data.test_fraction must be at least 0 and below 1, got {test_fraction}")
        for name, number in {"image_size": image_size, "batch_size": batch_size}.items():
            if number < 1:
                raise UserError(f"data.{name} must be at least 1, got {number}")
        if folds < 0 or folds == 1 or not 0 <= fold < max(folds, 1):
            raise UserError(f"data.fold must be one of 0 to data.folds - 1, got fold {fold} of {folds}")
        if group_column and not labels:
            raise UserError("data.group_column names a column of a CSV: give it by data.labels")
        self.root, self.labels, self.group_column, self.source = root, labels, group_column, source
        self.image_size, self.batch_size = image_size, batch_size
        self.fractions, self.split_seed = (val_fraction, test_fraction), split_seed
        self.fold, self.folds = fold, folds
        self.sampling, self.on_corrupt = sampling, on_corrupt
        self.item_transforms = nn.ModuleList(item_transforms or [])
        for transform in self.item_transforms:
            if isinstance(transform, RandomResizedCrop):
                transform.image_size = image_size
        self.batch_transforms = nn.ModuleList(default_augmentation() if batch_transforms is None else batch_transforms)
        self.pack_limit, self.num_workers, self.cache_dir = pack_limit, num_workers, Path(cache_dir)
        self.index: ImageIndex | None = None
        self._pixels: Pixels | None = None
        self._content: NDArray[np.uint64] | None = None
        self._description: DataDescription | None = None

    # -- finding ------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Write the data set by name, if one is asked for and not there; on one process a machine."""
        if self.root is None and self.labels is None:
            self._source().prepare(self.cache_dir)

    def setup(self, stage: str) -> None:
        """Index, check, pack and split the images; on `fit` also take the channel statistics.

        Raises:
            UserError: see `index_tree`, `index_table`, `decode_all` and `complete_splits`; unreadable images.
        """
        self.folder = self._folder()
        known = image_classifier(self.trainer).data_description if self.trainer else None
        if known is not None and stage != "fit":
            self._description = known
        if stage == "predict":
            if self._sharded():
                raise UserError(f"{self.root} holds shards: predict reads a folder of images, or a single one")
            self.index = self._readable(index_unlabelled(self.folder), stage)
            return
        if self.index is not None and self.index.class_names:
            return  # `test` after `fit` on the same datamodule
        names = known.class_names if known else None
        if self._sharded():
            index = read_shard_index(str(self.root), names)  # checked and split when it was written
        elif self.labels is not None:
            index = index_table(Path(self.labels), self.folder, self.group_column, names)
        else:
            index = cached_index_tree(self.folder, names, self.cache_dir / "index")
        if not self._sharded():
            index = self._readable(index, stage)
        if self.folds:
            self.index = hold_out_fold(index, self.fold, self.folds, self.fractions[0], self.split_seed)
        else:
            self.index = complete_splits(index, *self.fractions, self.split_seed)
        if stage == "fit":
            self._description = self._describe()
            if self._content is not None:
                warn_of_copies(self.index, self._content)
        elif (
            known is not None
            and (index.splits != self.index.splits).any()
            and known.fingerprint != self.index.fingerprint()
        ):
            rank_zero_warn(
                f"{self.folder} is not as it was when the model was trained, so its splits are drawn anew: images that"
                " were trained on may be among them. To test on images of your choice, give DIR/test/CLASS/IMAGE"
            )

    def _sharded(self) -> bool:
        return self.root is not None and is_sharded(self.root)

    def _folder(self) -> Path:
        if self.root is not None:
            return Path(self.root)
        return Path(self.labels).parent if self.labels is not None else self._source().prepare(self.cache_dir)

    def _source(self) -> Source:
        if self.source is None:
            raise UserError("no images: give --data.root DIR, or a data set by name with --data.source Digits")
        return self.source

    def _readable(self, index: ImageIndex, stage: str) -> ImageIndex:
        """The index without what cannot be read; takes the pixels where they fit."""
        if self.trainer and self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return index
        size = self._description.image_size if self._description else self.image_size
        fixed = self._fixed()
        limit = memory() / 4 if self.pack_limit is None else self.pack_limit * 1e9
        fits = len(fixed) == len(self.item_transforms) and len(index.paths) * size**2 * 3 <= limit
        decoded = decode_all(index, size, fixed, fits and stage == "fit", self.cache_dir / "packed")
        self._pixels, self._content = decoded.pixels if fits else None, decoded.content
        return skip_unreadable(index, decoded.unreadable, self.on_corrupt)

    def _fixed(self) -> list[nn.Module]:
        return [transform for transform in self.item_transforms if is_fixed(transform)]

    def _describe(self) -> DataDescription:
        index = self._index()
        mean, std = channel_statistics(self._images("train", self._fixed()))
        counts = np.bincount(index.labels[index.rows("train")], minlength=len(index.class_names))
        return DataDescription(
            index.class_names, self.image_size, mean, std, train_counts=counts.tolist(), fingerprint=index.fingerprint()
        )

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
        overfit = self.trainer and self.trainer.overfit_batches  # type: ignore[attr-defined]
        return self._loader("train", shuffle=not overfit)

    def val_dataloader(self) -> Loader:
        """Batches of the val split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """Batches of the test split (of val where there is none), in order."""
        return self._loader(self.test_split)

    def predict_dataloader(self) -> Loader:
        """Batches of every image found, in order."""
        return self._loader("")

    def _images(self, split: Split | Literal[""], transforms: Sequence[nn.Module]) -> Images:
        index = self._index()
        size = self._description.image_size if self._description else self.image_size
        read = ShardReader(str(self.root)) if self._sharded() else None
        return Images(index, index.rows(split), size, transforms, self._seed(), self._pixels, read)

    def _loader(self, split: Split | Literal[""], shuffle: bool = False) -> Loader:
        trainer = self.trainer
        training = bool(trainer and trainer.training and split == "train")
        images = self._images(split, self.item_transforms if training else self._fixed())  # type: ignore[arg-type]
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if self.batch_size < world or len(images) < world:
            raise UserError(
                f"{world} processes need at least as many images in a batch (data.batch_size is {self.batch_size})"
                f" and in each split ({split or 'this folder'} has {len(images)})"
            )
        strata = images.index.labels[images.rows] if shuffle and self.sampling == "balanced" else None
        batches = EpochBatches(len(images), self.batch_size, shuffle, self._seed(), rank, world, strata)
        workers = self._workers() if self._pixels is None else 0
        counted = trainer.fit_loop.epoch_loop.batch_progress.current if trainer and training else None
        return Loader(
            images, batches, workers, torch.cuda.is_available(), lambda: counted.ready if counted is not None else 0
        )

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        share = cores() // (self.trainer.num_devices if self.trainer else 1)
        return 0 if cores() == 1 else max(1, min(share, 16))

    # -- augmenting ---------------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch on its device; what this step draws is a function of (seed, step, rank)."""
        trainer = self.trainer
        if trainer is None or not trainer.training:
            return batch
        step = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        seed_draws(self._seed(), step, trainer.global_rank, device=batch.image.device)
        with torch.no_grad():
            image, label = augment(batch.image, batch.label, self.batch_transforms, len(self.description.class_names))
        if image.shape != batch.image.shape:
            size, wanted = list(image.shape[-2:]), list(batch.image.shape[-2:])
            raise UserError(
                f"data.batch_transforms turn images of {wanted} pixels into {size}: they must keep the size"
            )
        return batch._replace(image=image, label=label)

    @staticmethod
    def _seed() -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "0"))
