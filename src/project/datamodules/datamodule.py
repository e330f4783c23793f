"""The datamodule: from a folder to augmented batches on the device."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from project.datamodules.augment import augment, default_augmentation, is_fixed
from project.datamodules.index import ImageIndex, index_unlabelled
from project.datamodules.loader import Images, Loader
from project.datamodules.masks import HideBy, Masks
from project.datamodules.origin import Origin
from project.datamodules.packed import warn_of_copies
from project.datamodules.parallel import worker_count
from project.datamodules.pixels import PixelStore
from project.datamodules.sampler import EpochBatches, Order, PoissonBatches, Request, seed_draws
from project.datamodules.source import Source
from project.datamodules.split import Splitting, write_splits
from project.datamodules.statistics import channel_statistics
from project.datamodules.transforms import RandomResizedCrop
from project.errors import UserError
from project.interface import SPLITS, Batch, DataDescription, ImageData, Split, image_classifier
from project.words import counted


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
        sampling: `balanced` draws every class equally often in training; `natural` as often as it is there; `poisson`
            draws each image by itself for each step, which private training needs.
        channel_statistics: Images are normalised by mean and standard deviation of the `train` images; or by `fixed`
            ones, 0.5, for which no image is looked at.
        balance_column: A column of that CSV, such as a skin type or a camera: `balanced` then draws every pair of class
            and entry equally often, so that the entry tells nothing of the class.
        on_corrupt: What an unreadable image does: `error` lists all of them and stops; `skip` trains without.
        mask_boxes: A CSV of regions to be hidden, such as faces, before anything else is done with an image: columns
            path, left, top, right, bottom, in pixels of the upright image. Of shards they are hidden on writing.
        mask_by: `fill` leaves plain grey there, `blur` four by four points.
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
        sampling: Literal["natural", "balanced", "poisson"] = "natural",
        channel_statistics: Literal["train", "fixed"] = "train",
        balance_column: str | None = None,
        on_corrupt: Literal["error", "skip"] = "error",
        mask_boxes: str | None = None,
        mask_by: HideBy = "fill",
        item_transforms: list[nn.Module] | None = None,
        batch_transforms: list[nn.Module] | None = None,
        pack_limit: float | None = None,
        num_workers: int | None = None,
        cache_dir: str = "data",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in ("source", "item_transforms", "batch_transforms"):
            given = self.hparams[name]
            if any(isinstance(each, nn.Module | Source) for each in (given if isinstance(given, list) else [given])):
                del self.hparams[name]  # an object from Python: a checkpoint holds plain data only
        least = {"image_size": (image_size, 1), "batch_size": (batch_size, 1), "split_seed": (split_seed, 0)}
        least |= {"num_workers": (num_workers or 0, 0)}
        for name, (number, lowest) in least.items():
            if number < lowest:
                raise UserError(f"data.{name} must be at least {lowest}, got {number}")
        if balance_column and sampling != "balanced":
            raise UserError("data.balance_column says what to balance besides classes: add --data.sampling balanced")
        self.origin = Origin(root, labels, group_column, source, Path(cache_dir), balance_column)
        self.splitting = Splitting(val_fraction, test_fraction, split_seed, folds, fold)
        self.image_size, self.batch_size = image_size, batch_size
        self.sampling, self.channel_statistics, self.on_corrupt = sampling, channel_statistics, on_corrupt
        self.mask_boxes, self.mask_by = mask_boxes, mask_by
        self.item_transforms = nn.ModuleList(item_transforms or [])
        for transform in self.item_transforms:
            if isinstance(transform, RandomResizedCrop):
                transform.image_size = image_size
        self.batch_transforms = nn.ModuleList(default_augmentation() if batch_transforms is None else batch_transforms)
        self.num_workers = num_workers
        self.index: ImageIndex | None = None
        self._pixels = PixelStore(pack_limit, self.origin.cache_dir / "packed")
        self._description: DataDescription | None = None

    # -- finding ------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Write the data set by name, if one is asked for and not there; on one process a machine."""
        self.origin.prepare()

    def setup(self, stage: str) -> None:
        """Index, check, pack and split the images; on `fit` also take the channel statistics.

        Raises:
            UserError: see `index_tree`, `index_table`, `decode_all` and `complete_splits`; unreadable images.
        """
        self.folder = self.origin.prepare()
        known = image_classifier(self.trainer).data_description if self.trainer else None
        if known is not None and stage != "fit":
            self._description = known
        if stage == "predict":
            if self.origin.is_sharded:
                raise UserError(f"{self.origin.root} holds shards: predict reads a folder of images, or a single one")
            self.index = self._readable(self._masked(index_unlabelled(self.folder)))
            return
        if self.index is not None and self.index.class_names:
            return  # `test` after `fit` on the same datamodule
        index = self._masked(self.origin.index(known.class_names if known else None))
        if not self.origin.is_sharded:
            index = self._readable(index)
        self.index = self.splitting(index)
        if stage == "fit":
            self._description = self._describe()
            if self._pixels.content is not None:
                warn_of_copies(self.index, self._pixels.content)
        elif (
            known is not None
            and (index.splits != self.index.splits).any()
            and known.fingerprint != self.index.fingerprint()
        ):
            rank_zero_warn(
                f"{self.folder} is not as it was when the model was trained, so its splits are drawn anew: images that"
                " were trained on may be among them. To test on images of your choice, give DIR/test/CLASS/IMAGE"
            )

    def _masked(self, index: ImageIndex) -> ImageIndex:
        if self.mask_boxes is None:
            return index
        if self.origin.is_sharded:
            raise UserError(
                "data.mask_boxes: regions of shards are hidden when these are written, by `shard --mask_boxes`"
            )
        return replace(index, masks=Masks(Path(self.mask_boxes), self.mask_by, index.paths))

    def _readable(self, index: ImageIndex) -> ImageIndex:
        """The index without what cannot be read; takes the pixels where they fit."""
        if self.trainer and self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return index
        return self._pixels.take(index, self._size, list(self.item_transforms), self.on_corrupt)

    @property
    def _size(self) -> int:
        return self._description.image_size if self._description else self.image_size

    def _fixed(self) -> list[nn.Module]:
        return [transform for transform in self.item_transforms if is_fixed(transform)]

    def _describe(self) -> DataDescription:
        index = self._index()
        counts = np.bincount(index.labels[index.rows("train")], minlength=len(index.class_names))
        if lacking := [name for name, count in zip(index.class_names, counts, strict=True) if not count]:
            few = ": it has too few groups" if index.groups is not None else ""
            raise UserError(f"no image of class '{lacking[0]}' in {index.root} is left to train on{few}")
        mean, std = [0.5] * 3, [0.5] * 3
        if self.channel_statistics == "train":
            mean, std = channel_statistics(self._images("train", self._fixed()))
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
        write_splits(self._index(), file)

    def sample(self, count: int, split: Split | Literal[""] = "train") -> Batch:
        """Up to `count` images of a split without augmentation, evenly spaced; "" for those of no split, to predict."""
        images = self._images(split, self._fixed())
        return images[Request(0, images.even(count))]

    # -- loading ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Loader:
        """Batches of the train split, in an order of (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> Loader:
        """Batches of the val split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """Batches of the test split (of val where there is none), in order."""
        return self._loader(self.test_split)

    def predict_dataloader(self) -> Loader:
        """Batches of every image found, in order."""
        return self._loader("")

    def images_in_step(self, batch_idx: int) -> int:
        """Training images of the optimizer step that a batch belongs to: all its batches, on all processes."""
        trainer = self.trainer
        assert trainer is not None and isinstance(trainer.train_dataloader, Loader)
        first = batch_idx - batch_idx % trainer.accumulate_grad_batches
        last = min(first + trainer.accumulate_grad_batches, int(trainer.num_training_batches))
        return trainer.train_dataloader.batch_sampler.images(first, last)

    def _images(self, split: Split | Literal[""], transforms: Sequence[nn.Module]) -> Images:
        index, packed = self._index(), self._pixels.packed
        return Images(index, index.rows(split), self._size, transforms, self._seed(), packed, self.origin.reader())

    @property
    def _by_heart(self) -> bool:
        """Whether the same few batches are to be learnt by heart (`overfit_batches`): they come as they are."""
        return bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def _order(self, split: Split | Literal[""]) -> Order:
        """A part of the ascending order would be a class or two: what is limited is mixed."""
        if split == "train":
            return "mixed" if self._by_heart else "new each epoch"
        limits = [getattr(self.trainer, f"limit_{stage}_batches", 1.0) for stage in ("val", "test")]
        limited = any(isinstance(limit, int) or limit < 1 for limit in limits)  # 1 is one batch, 1.0 are all
        return "mixed" if split and limited else "ascending"

    def _loader(self, split: Split | Literal[""]) -> Loader:
        trainer = self.trainer
        training = bool(trainer and trainer.training and split == "train" and not self._by_heart)
        images = self._images(split, self.item_transforms if training else self._fixed())  # type: ignore[arg-type]
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if not len(images):
            there = ", ".join(f"{count:,} of {name}" for name, count in self.split_sizes().items() if count)
            raise UserError(f"{self.folder} has no images of the {split} split; it has {there}")
        if self.batch_size < world or len(images) < world:
            raise UserError(
                f"{world} processes need at least as many images in a batch (data.batch_size is {self.batch_size})"
                f" and in each split ({split or 'this folder'} has {len(images)})"
            )
        strata = images.index.strata(images.rows) if split == "train" and self.sampling == "balanced" else None
        if training and self.sampling == "poisson":
            batches: EpochBatches = PoissonBatches(len(images), self.batch_size, trainer.accumulate_grad_batches)  # type: ignore[union-attr]
        else:
            batches = EpochBatches(len(images), self.batch_size, self._order(split), self._seed(), rank, world, strata)
        images.pixels = self._pixels.near(trainer.strategy.root_device if trainer else torch.device("cpu"))
        pin = torch.cuda.is_available() and not isinstance(images.pixels, Tensor)
        counted = trainer.fit_loop.epoch_loop.batch_progress.current if trainer and training else None
        return Loader(images, batches, self._workers(), pin, lambda: counted.ready if counted is not None else 0)

    def _workers(self) -> int:
        if self._pixels.packed is not None:
            return 0
        devices = self.trainer.num_devices if self.trainer else 1
        return worker_count(devices) if self.num_workers is None else self.num_workers

    @property
    def augments(self) -> bool:
        """Whether training sees an image otherwise each time."""
        random = len(self._fixed()) < len(self.item_transforms)
        return not self._by_heart and (random or len(self.batch_transforms) > 0)

    @property
    def size(self) -> int:
        """Number of images, over all splits."""
        return len(self._index().paths)

    @property
    def reading(self) -> str:
        """Where the images of a step come from, in words."""
        if self._pixels.packed is not None:
            return str(self._pixels)
        return f"{'shards' if self.origin.is_sharded else 'files'}, {counted(self._workers(), 'worker')}"

    # -- augmenting ---------------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch on its device; what this step draws is a function of (seed, step, rank).

        Dropout's draws, which follow, are too. In private training both are the operating system's.
        """
        trainer = self.trainer
        if trainer is None or not trainer.training or self._by_heart or not len(batch.index):
            return batch
        step = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        # Who knew what is drawn for each place of a private batch could tell whether an image is missing before it.
        seed = secrets.randbits(63) if self.sampling == "poisson" else self._seed()
        seed_draws(seed, step, trainer.global_rank, device=batch.image.device)
        with torch.no_grad():
            return augment(batch, self.batch_transforms, len(self.description.class_names), trainer.current_epoch)

    @staticmethod
    def _seed() -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "0"))
