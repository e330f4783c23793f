"""The datamodule: from a folder to augmented batches on the device."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from project.datamodules.base import DataModule
from project.datamodules.images.augment import augment, default_augmentation, is_fixed
from project.datamodules.images.builders import DatasetBuilder
from project.datamodules.images.dataset import Images
from project.datamodules.images.masks import HideBy, Masks
from project.datamodules.images.origin import Origin
from project.datamodules.images.packed import decode_all, skip_unreadable, warn_of_copies
from project.datamodules.images.transforms import RandomResizedCrop
from project.datamodules.index import ImageIndex, index_unlabeled
from project.datamodules.loader import Loader
from project.datamodules.parallel import worker_count
from project.datamodules.sampler import EpochBatchSampler, Order, Request, seed_rng
from project.datamodules.split import draw_splits
from project.errors import UserError
from project.images import Pixels
from project.interface import SPLITS, Batch, ClassTarget, DataDescription, ImageInput, Split, module_of
from project.machine import memory
from project.output import pluralize, redact_secrets
from project.runs.spec import to_spec

SamplerCallable = Callable[
    [int, int, int], EpochBatchSampler
]  # from (size, batch_size, accumulated batches), one process


class ImageDataModule(DataModule):
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
        sampler: A sampler of training batches in the place of that, such as project.privacy.PoissonBatchSampler.
        channel_statistics: Images are normalized by mean and standard deviation of the `train` images; or by `fixed`
            ones, 0.5, for which no image is looked at.
        balance_column: A column of that CSV, such as a skin type or a camera: `balanced` then draws every pair of class
            and entry equally often, so that the entry tells nothing of the class.
        on_corrupt: What an unreadable image does: `error` lists all of them and stops; `skip` trains without.
        mask_boxes: A CSV of regions to be hidden, such as faces, before anything else is done with an image: columns
            path, left, top, right, bottom, in pixels of the upright image. Of shards they are hidden on writing.
        mask_by: `fill` leaves plain gray there, `blur` four by four points.
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
        source: DatasetBuilder | None = None,
        image_size: int = 32,
        batch_size: int = 128,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        folds: int = 0,
        fold: int = 0,
        sampling: Literal["natural", "balanced"] = "natural",
        sampler: SamplerCallable | None = None,
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
            if any(
                isinstance(each, nn.Module | DatasetBuilder) for each in (given if isinstance(given, list) else [given])
            ):
                del self.hparams[name]  # an object from Python: a checkpoint holds plain data only
        self.hparams["sampler"] = to_spec(sampler) if callable(self.hparams["sampler"]) else self.hparams["sampler"]
        even, balance, carved = sampling == "balanced", balance_column, 0 if folds else val_fraction + test_fraction
        held_out = fold == 0 if folds == 0 else folds > 1 and 0 <= fold < folds
        if root and redact_secrets(root) != root:
            place = "a file of the user's or in the environment, where fsspec looks"
            raise UserError(f"data.root holds a password or key, which every run would write down: keep it in {place}")
        for mistaken, message in (
            (image_size < 1, f"image_size must be at least 1, got {image_size}"),
            (batch_size < 1, f"batch_size must be at least 1, got {batch_size}"),
            (split_seed < 0, f"split_seed must be at least 0, got {split_seed}"),
            ((num_workers or 0) < 0, f"num_workers must be at least 0, got {num_workers}"),
            (even and sampler, "sampler takes the place of data.sampling balanced: leave one of them out"),
            (balance and not even, "balance_column says what to balance besides classes: add --data.sampling balanced"),
            (group_column and not labels, "group_column names a column of a CSV: give it by data.labels"),
            (balance and not labels, "balance_column names a column of a CSV: give it by data.labels"),
            (not 0 < val_fraction < 1, f"val_fraction must be above 0 and below 1, got {val_fraction}"),
            (not 0 <= test_fraction < 1, f"test_fraction must be at least 0 and below 1, got {test_fraction}"),
            (carved >= 1, "val_fraction and data.test_fraction leave nothing to train on"),
            (not held_out, f"fold must be one of 0 to data.folds - 1, got fold {fold} of {folds}"),
        ):
            if mistaken:
                raise UserError(f"data.{message}")
        self.origin = Origin(root, labels, group_column, source, Path(cache_dir), balance_column)
        self._split = partial(
            draw_splits, val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed, folds=folds, fold=fold
        )
        self.image_size, self.batch_size = image_size, batch_size
        self.sampling, self.sampler = sampling, sampler
        self.channel_statistics, self.on_corrupt = channel_statistics, on_corrupt
        self.mask_boxes, self.mask_by = mask_boxes, mask_by
        self.item_transforms = nn.ModuleList(item_transforms or [])
        for transform in self.item_transforms:
            if isinstance(transform, RandomResizedCrop):
                transform.image_size = image_size
        self.batch_transforms = nn.ModuleList(default_augmentation() if batch_transforms is None else batch_transforms)
        self.num_workers = num_workers
        self.index: ImageIndex | None = None
        self._pack_limit = memory() / 4 if pack_limit is None else pack_limit * 1e9
        self._packed: Pixels | None = None  # uint8 (N, size, size, 3), a row of the index each
        self._on_device: Tensor | None = None
        self._content: NDArray[np.uint64] | None = None
        self._description: DataDescription | None = None

    def prepare_data(self) -> None:
        """Write the data set by name, if one is asked for and not there; on one process a machine."""
        self.origin.prepare()

    def setup(self, stage: str) -> None:
        """Index, check, pack and split the images; on `fit` also take the channel statistics."""
        self.folder = self.origin.prepare()
        known = module_of(self.trainer).data_description if self.trainer else None
        if known is not None and stage != "fit":
            if self.image_size != known.image.height:
                trained = f"the model was trained on images of {known.image.height} pixels"
                raise UserError(f"{trained}, which any image is brought to: leave --data.image_size out")
            self._description = known
        if stage == "predict":
            if self.origin.is_sharded:
                raise UserError(f"{self.origin.root} holds shards: predict reads a folder of images, or a single one")
            self.index = self._readable(index_unlabeled(self.folder))
            return
        if self.index is not None and self.index.class_names:
            return  # `test` after `fit` on the same datamodule
        index = self._readable(self.origin.index(getattr(known.target, "class_names", None) if known else None))
        self.index = self._split(index)
        drawn = (index.splits != self.index.splits).any()
        if stage == "fit":
            self._description = self._describe()
            if self._content is not None:
                warn_of_copies(self.index, self._content)
        elif known is not None and drawn and known.fingerprint != self.index.fingerprint():
            changed = f"{self.folder} is not as it was when the model was trained, so its splits are drawn anew"
            remedy = "To test on images of your choice, give DIR/test/CLASS/IMAGE"
            rank_zero_warn(f"{changed}: images that were trained on may be among them. {remedy}")

    def _readable(self, index: ImageIndex) -> ImageIndex:
        """Look at every image once, hold the pixels of all where they fit; returns the index of what can be read."""
        if self.mask_boxes is not None:
            if self.origin.is_sharded:
                when = "when these are written, by `shard --mask_boxes`"
                raise UserError(f"data.mask_boxes: regions of shards are hidden {when}")
            index = replace(index, masks=Masks(Path(self.mask_boxes), self.mask_by, index.paths))
        if self.origin.is_sharded or (self.trainer and self.trainer.fast_dev_run):  # type: ignore[attr-defined]
            return index
        fixed, bytes_needed = self._fixed(), len(index.paths) * self.image_size**2 * 3
        fits = len(fixed) == len(self.item_transforms) and bytes_needed <= self._pack_limit
        decoded = decode_all(index, self.image_size, fixed, fits, self.origin.cache_dir / "packed")
        self._packed, self._on_device, self._content = decoded.pixels if fits else None, None, decoded.content
        return skip_unreadable(index, decoded.unreadable, self.on_corrupt)

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
            mean, std = self._images("train", self._fixed()).channel_statistics()
        inputs = ImageInput(self.image_size, self.image_size, mean, std)
        return DataDescription(inputs, ClassTarget(index.class_names, counts.tolist()), index.fingerprint())

    @override
    @property
    def description(self) -> DataDescription:
        assert self._description is not None, "setup comes first"
        return self._description

    @property
    def test_split(self) -> Split:
        """The split that is tested on: val where there is no test."""
        return "test" if len(self._index().rows("test")) else "val"

    def _index(self) -> ImageIndex:
        assert self.index is not None, "setup comes first"
        return self.index

    @override
    def path(self, index: int) -> str:
        return self._index().paths[index]

    @override
    def split_sizes(self) -> dict[Split, int]:
        return {split: len(self._index().rows(split)) for split in SPLITS}

    @override
    def write_split(self, file: Path) -> None:
        index = self._index()
        with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            names = (index.class_names[label] for label in index.labels)
            csv.writer(stream).writerow(["path", "class", "split"])
            csv.writer(stream).writerows(zip(index.paths, names, index.splits, strict=True))

    @override
    def sample(self, count: int, split: Split | Literal[""] = "train") -> Batch:
        images = self._images(split, self._fixed())
        return images[Request(0, images.even(count))]

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

    @override
    def samples_in_step(self, batch_idx: int) -> int:
        trainer = self.trainer
        assert trainer is not None and isinstance(trainer.train_dataloader, Loader)
        first = batch_idx - batch_idx % trainer.accumulate_grad_batches
        last = min(first + trainer.accumulate_grad_batches, int(trainer.num_training_batches))
        return trainer.train_dataloader.batch_sampler.images(first, last)

    def _images(self, split: Split | Literal[""], transforms: Sequence[nn.Module]) -> Images:
        rows, read = self._index().rows(split), self.origin.reader()
        return Images(self._index(), rows, self.image_size, transforms, self._seed(), self._packed, read)

    @property
    def _overfitting(self) -> bool:
        """Whether a few batches are to be learnt by heart (`overfit_batches`): they come as they are."""
        return bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def _order(self, split: Split | Literal[""]) -> Order:
        """Mix what is limited: a part of the ascending order would be a class or two."""
        if split == "train":
            return "mixed" if self._overfitting else "new each epoch"
        limits = [getattr(self.trainer, f"limit_{stage}_batches", 1.0) for stage in ("val", "test")]
        limited = any(isinstance(limit, int) or limit < 1 for limit in limits)  # 1 is one batch, 1.0 are all
        return "mixed" if split and limited else "ascending"

    def _loader(self, split: Split | Literal[""]) -> Loader:
        trainer = self.trainer
        training = bool(trainer and trainer.training and split == "train" and not self._overfitting)
        images = self._images(split, self.item_transforms if training else self._fixed())  # type: ignore[arg-type]
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if not len(images):
            there = ", ".join(f"{count:,} of {name}" for name, count in self.split_sizes().items() if count)
            raise UserError(f"{self.folder} has no images of the {split} split; it has {there}")
        if self.batch_size < world or len(images) < world:
            batch = f"a batch (data.batch_size is {self.batch_size})"
            part = f"each split ({split or 'this folder'} has {len(images)})"
            raise UserError(f"{world} processes need at least as many images in {batch} and in {part}")
        strata = images.index.strata(images.rows) if split == "train" and self.sampling == "balanced" else None
        if training and self.sampler is not None:
            batches = self.sampler(len(images), self.batch_size, trainer.accumulate_grad_batches)  # type: ignore[union-attr]
        else:
            batches = EpochBatchSampler(
                len(images), self.batch_size, self._order(split), self._seed(), rank, world, strata
            )
        images.pixels = self._near(trainer.strategy.root_device if trainer else torch.device("cpu"))
        pin = torch.cuda.is_available() and not isinstance(images.pixels, Tensor)
        done = trainer.fit_loop.epoch_loop.batch_progress.current if trainer and training else None
        return Loader(images, batches, self._workers(), pin, lambda: done.ready if done is not None else 0)

    def _near(self, device: torch.device) -> Pixels | Tensor | None:
        """Return the pixels; on a GPU where they take at most a quarter of its memory, so that none has to be sent."""
        if self._packed is None or device.type != "cuda":
            return self._packed
        if self._on_device is None and self._packed.nbytes <= torch.cuda.mem_get_info(device)[1] / 4:
            self._on_device = torch.from_numpy(self._packed).to(device)
        return self._packed if self._on_device is None else self._on_device

    def _workers(self) -> int:
        if self._packed is not None:
            return 0
        devices = self.trainer.num_devices if self.trainer else 1
        return worker_count(devices) if self.num_workers is None else self.num_workers

    @override
    @property
    def augments(self) -> bool:
        return not self._overfitting and (
            len(self._fixed()) < len(self.item_transforms) or len(self.batch_transforms) > 0
        )

    @override
    @property
    def size(self) -> int:
        return len(self._index().paths)

    @override
    @property
    def reading(self) -> str:
        if self._packed is not None:
            return "packed pixels" + ("" if self._on_device is None else " on the device")
        return f"{'shards' if self.origin.is_sharded else 'files'}, {pluralize(self._workers(), 'worker')}"

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch on its device; what this step draws is a function of (seed, step, rank).

        Dropout's draws, which follow, are too.
        """
        trainer = self.trainer
        if trainer is None or not trainer.training or self._overfitting or not len(batch.index):
            return batch
        step = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        assert isinstance(trainer.train_dataloader, Loader)
        seed = trainer.train_dataloader.batch_sampler.draw_seed
        seed_rng(seed, step, trainer.global_rank, device=batch.inputs.device)
        with torch.no_grad():
            return augment(batch, self.batch_transforms, self.description.target.outputs, trainer.current_epoch)

    @staticmethod
    def _seed() -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "0"))
