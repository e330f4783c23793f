"""Datamodule of an image dataset."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from project.datamodules.base import DataModule
from project.datamodules.images.augment import augment, default_augmentation, is_fixed
from project.datamodules.images.builders import DatasetBuilder
from project.datamodules.images.dataset import Images
from project.datamodules.images.facts import Facts
from project.datamodules.images.masks import MaskMode, Masks
from project.datamodules.images.notices import (
    describe_absent,
    describe_conversions,
    describe_crop,
    skip_unreadable,
    warn_about_duplicates,
)
from project.datamodules.images.origin import Origin
from project.datamodules.images.packed import decode_all, sample_facts
from project.datamodules.images.shards import read_shard_facts
from project.datamodules.images.transforms import RandomResizedCrop
from project.datamodules.index import KINDS, ImageIndex, index_unlabeled
from project.datamodules.labels import LabelOptions, TargetOption
from project.datamodules.loader import Loader
from project.datamodules.parallel import worker_count
from project.datamodules.sampler import EpochBatchSampler, Order, Request, seed_rng
from project.datamodules.split import assign_splits, evaluation_split
from project.datamodules.tables import DEFAULT_COLUMNS, Columns
from project.errors import UserError
from project.images import Pixels, describe_skipped
from project.interface import SPLITS, Batch, DataDescription, Fit, ImageInput, Split, module_of, to_size
from project.machine import memory
from project.output import pluralize, redact_secrets
from project.runs.spec import to_spec

SamplerCallable = Callable[[int, int, int], EpochBatchSampler]  # called with size, batch_size, accumulate_grad_batches


class ImageDataModule(DataModule):
    """Datamodule of an image dataset; it never writes to the dataset directory.

    Args:
        root: Dataset directory: ROOT/CLASS/IMAGE, or ROOT/{train,val,test}/CLASS/IMAGE or
            ROOT/CLASS/{train,val,test}/IMAGE with optional val and test; or shards written by `train.py shard`, on disk
            or in an object store. For predict: any folder or one image.
        table: CSV, TSV or Parquet file with one row per image, used instead of class folders. Paths are relative to
            root, by default the folder of the table.
        columns: Names of the columns of the table.
        target: What is predicted: the class of each image, any number of labels (`multilabel`), or values. `auto`
            decides by the table: several columns of 0 and 1, or cells with `label_separator`, are labels; other numbers
            are values; folders, and one column of anything but decimal numbers, are classes.
        label_separator: Separator of several labels in a cell of the table, e.g. `|`.
        source: Built-in dataset, used if neither `root` nor `table` is given.
        image_size: Size of the network input in pixels: one number, or height and width.
        fit: How images are brought to this size: `crop` takes the largest centered part of the same aspect ratio, `pad`
            adds borders (letterbox), `stretch` changes the aspect ratio.
        channels: Number of channels: 3 for RGB, 1 for grayscale, or the number of bands. RGB and grayscale images are
            converted to each other; images of another number of channels are unreadable.
        value_range: Pixel values that become 0 and 1 before normalization; values outside are clipped. `auto` takes
            0 and 255 for 8-bit images; for others the range of the training images, without outliers.
        batch_size: Global batch size: images per step over all devices.
        val_fraction: Fraction of each class to split off for val if the dataset has no val split, in (0, 1).
        test_fraction: Fraction of each class to split off for test if the dataset has neither val nor test, in [0, 1).
        split_seed: Seed of the split, independent of the training seed.
        folds: Number of cross-validation folds; 0 disables cross-validation.
        fold: Index of the held-out fold, from 0; it is the test split, or val if the dataset has a test split.
        sampling: Training sampler: `natural` samples each image once per epoch, `balanced` all classes equally often.
        sampler: Custom batch sampler for training, e.g. project.privacy.PoissonBatchSampler.
        channel_statistics: Mean and standard deviation for normalization: `train` computes them from training images,
            `fixed` uses 0.5 for both.
        on_corrupt: How to handle unreadable images: `error` lists all of them and exits; `skip` leaves them out.
        mask_boxes: CSV of regions to mask in all splits, e.g. faces, with columns path, left, top, right, bottom, in
            pixels of the upright image. Regions of shards are masked when the shards are written.
        mask_by: `fill` replaces masked regions with gray, `blur` downsamples them to 4x4 pixels.
        item_transforms: Transforms of single images in the workers, applied before resizing: modules from uint8, or
            float in [0, 1] if the files have another depth than 8 bits, (C, H, W) to the same dtype. Random ones are
            applied in training only.
        batch_transforms: Augmentations of training batches on the device: modules from float (N, C, H, W) in [0, 1] to
            the same shape. By default, rotation, horizontal flip and random crop.
        pack_limit: Maximum size of the decoded images, in GB, up to which they are packed into one memory-mapped file;
            by default, a quarter of the machine's memory.
        num_workers: Number of dataloader workers if images are not packed; by default, 0 on a single CPU core,
            otherwise up to one per core.
        cache_dir: Directory of built-in datasets, packed images and indexes.
    """

    def __init__(
        self,
        root: str | None = None,
        table: str | None = None,
        columns: Columns = DEFAULT_COLUMNS,
        target: TargetOption = "auto",
        label_separator: str | None = None,
        source: DatasetBuilder | None = None,
        image_size: int | list[int] = 32,
        fit: Fit = "crop",
        channels: int = 3,
        value_range: Literal["auto"] | list[float] = "auto",
        batch_size: int = 128,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        folds: int = 0,
        fold: int = 0,
        sampling: Literal["natural", "balanced"] = "natural",
        sampler: SamplerCallable | None = None,
        channel_statistics: Literal["train", "fixed"] = "train",
        on_corrupt: Literal["error", "skip"] = "error",
        mask_boxes: str | None = None,
        mask_by: MaskMode = "fill",
        item_transforms: list[nn.Module] | None = None,
        batch_transforms: list[nn.Module] | None = None,
        pack_limit: float | None = None,
        num_workers: int | None = None,
        cache_dir: str = "data",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in ("source", "item_transforms", "batch_transforms"):
            value = self.hparams.get(name)  # subclasses may have other arguments
            values = value if isinstance(value, list) else [value]
            if any(isinstance(each, nn.Module | DatasetBuilder) for each in values):
                del self.hparams[name]  # checkpoints contain plain data only
        if callable(self.hparams.get("sampler")):
            self.hparams["sampler"] = to_spec(sampler)
        columns = Columns(**columns) if isinstance(columns, dict) else columns  # from a checkpoint, in Python
        self.hparams["columns"] = asdict(columns)
        balanced, held_out = sampling == "balanced", 0 if folds else val_fraction + test_fraction
        valid_fold = fold == 0 if folds == 0 else folds > 1 and 0 <= fold < folds
        size = to_size(image_size, "data.image_size")
        valid_range = value_range == "auto" or (len(value_range) == 2 and value_range[0] < value_range[1])
        if root and redact_secrets(root) != root:
            fix = "put it into the environment or a credentials file, where fsspec finds it"
            raise UserError(f"data.root contains a password or key, which would be saved with every run: {fix}")
        for invalid, message in (
            (channels < 1, f"channels must be at least 1, got {channels}"),
            (not valid_range, f"value_range must be auto or [low, high] with low below high, got {value_range}"),
            (batch_size < 1, f"batch_size must be at least 1, got {batch_size}"),
            (split_seed < 0, f"split_seed must be at least 0, got {split_seed}"),
            ((num_workers or 0) < 0, f"num_workers must be at least 0, got {num_workers}"),
            (balanced and sampler, "sampler cannot be combined with data.sampling balanced: remove one of them"),
            (columns.balance and not balanced, "columns.balance needs balanced sampling: add --data.sampling balanced"),
            (columns.group and not table, "columns.group is a column of a table: add --data.table"),
            (columns.balance and not table, "columns.balance is a column of a table: add --data.table"),
            (not 0 < val_fraction < 1, f"val_fraction must be above 0 and below 1, got {val_fraction}"),
            (not 0 <= test_fraction < 1, f"test_fraction must be at least 0 and below 1, got {test_fraction}"),
            (held_out >= 1, f"val_fraction and data.test_fraction must sum to less than 1, got {held_out:g}"),
            (not valid_fold, f"fold must be in 0 to data.folds - 1 with at least 2 folds, got fold {fold} of {folds}"),
        ):
            if invalid:
                raise UserError(f"data.{message}")
        self.origin = Origin(root, table, columns, source, Path(cache_dir), LabelOptions(target, label_separator))
        self._split = partial(
            assign_splits,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=split_seed,
            folds=folds,
            fold=fold,
        )
        self.input, self.value_range = ImageInput(*size, channels=channels, fit=fit), value_range
        self.batch_size = batch_size
        self.sampling, self.sampler = sampling, sampler
        self.channel_statistics, self.on_corrupt = channel_statistics, on_corrupt
        self.mask_boxes, self.mask_by = mask_boxes, mask_by
        self.item_transforms = nn.ModuleList(item_transforms or [])
        for transform in self.item_transforms:
            if isinstance(transform, RandomResizedCrop):
                transform.size = self.input.size
        self.batch_transforms = nn.ModuleList(default_augmentation() if batch_transforms is None else batch_transforms)
        self.num_workers = num_workers
        self.index: ImageIndex | None = None
        self._pack_limit = memory() / 4 if pack_limit is None else pack_limit * 1e9
        self._packed: Pixels | None = None  # (N, height, width, channels), by row of the index
        self._on_device: Tensor | None = None
        self._facts: Facts | None = None
        self._description: DataDescription | None = None

    def prepare_data(self) -> None:
        """Write the built-in dataset if it does not exist; called by one process per machine."""
        self.origin.prepare()

    def setup(self, stage: str) -> None:
        """Index, validate, pack and split the images; on `fit`, also compute the channel statistics."""
        self.folder = self.origin.prepare()
        trained = module_of(self.trainer).data_description if self.trainer else None
        if trained is not None and stage != "fit":
            self._check_input(trained.image)
            self._description, self.input = trained, trained.image
        if stage == "predict":
            if self.origin.is_sharded:
                raise UserError(f"{self.origin.root} contains shards: predict needs a folder of images or one image")
            self.index = self._validate(index_unlabeled(self.folder))
            return
        if self.index is not None and self.index.names:
            return  # `test` after `fit` on the same datamodule
        index = self._validate(self.origin.index(trained.target if trained else None))
        if trained is not None and stage != "fit":
            self.index = self._split_for_evaluation(index, trained, "val" if stage == "validate" else "test")
        else:
            self.index = self._split(index)
        if stage == "fit":
            self._description = self._describe()
        for split in SPLITS[1:] if stage == "fit" else ["val" if stage == "validate" else self.test_split]:
            if absent := describe_absent(self.index, split):
                rank_zero_warn(absent)

    def _split_for_evaluation(
        self, index: ImageIndex, trained: DataDescription, split: Literal["val", "test"]
    ) -> ImageIndex:
        """Split the images as in training; if the model was trained on others, evaluate all, or their own split."""
        own = evaluation_split(index, split)
        try:
            drawn = self._split(index) if {"", "train"} & {*index.splits.tolist()} else index
            if drawn.fingerprint() == trained.fingerprint:
                return drawn  # the training data, perhaps in another folder
        except UserError:  # too few images to split
            if not self.is_other:
                raise
        if self.is_other:
            total, count = int(np.count_nonzero(index.splits != "skip")), len(own.rows(split))
            which = "all" if count == total else f"the {count:,} in its own test or val split"
            about = f"{pluralize(total, 'image')}, not the data that the model was trained on"
            rank_zero_only(print)(f"data      {self.folder}: {about}: {which} are evaluated")
            return own
        if (index.splits != drawn.splits).any():
            changed = f"{self.folder} has changed since the model was trained, so its splits were drawn again"
            leak = "the test split may contain training images"
            rank_zero_warn(f"{changed}: {leak}; to select the test images yourself, use DIR/test/CLASS/IMAGE")
        return drawn

    def _validate(self, index: ImageIndex) -> ImageIndex:
        """Read all images once and pack their pixels if they fit; return the index with unreadable images marked."""
        if self.mask_boxes is not None:
            if self.origin.is_sharded:
                raise UserError("data.mask_boxes: shards are masked when written, by `train.py shard --mask_boxes`")
            index = replace(index, masks=Masks(Path(self.mask_boxes), self.mask_by, index.paths))
        if index.skipped:
            rank_zero_warn(describe_skipped(index.skipped))
        trained_dtype = None if self._description is None else self.input.dtype
        self._packed = self._on_device = None
        if self.origin.is_sharded:
            self._facts = read_shard_facts(str(self.origin.root), len(index.paths))
            dtype = self._facts.dtype()
        elif self.trainer and self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._facts = sample_facts(index, self.input, 100)
            dtype = self._facts.dtype()
        else:
            fixed, folder = self._fixed(), self.origin.cache_dir / "packed"
            limit = self._pack_limit if len(fixed) == len(self.item_transforms) else 0
            self._facts, dtype, self._packed = decode_all(index, self.input, fixed, limit, folder, trained_dtype)
        self.input = replace(self.input, dtype=trained_dtype or dtype)
        for text in describe_conversions(self._facts, self.input.dtype):
            rank_zero_warn(text)
        return skip_unreadable(index, self._facts.errors, self.on_corrupt)

    def _check_input(self, trained: ImageInput) -> None:
        """Raise a UserError if an option contradicts the input that the model was trained on."""
        low_high = trained.value_range if self.value_range == "auto" else self.value_range
        for option, given, expected in (
            ("image_size", self.input.size, trained.size),
            ("channels", self.input.channels, trained.channels),
            ("fit", self.input.fit, trained.fit),
            ("value_range", low_high, trained.value_range),
        ):
            if given != expected:
                model = f"the model was trained on images of {trained}, and prepares all images like these"
                raise UserError(f"{model}: remove --data.{option}")

    def _fixed(self) -> list[nn.Module]:
        return [transform for transform in self.item_transforms if is_fixed(transform)]

    def _describe(self) -> DataDescription:
        index = self._index()
        target = index.target()
        assert self._facts is not None
        if self.value_range == "auto":
            value_range = self._facts.value_range(index.rows("train"), self.input.dtype)
        else:
            value_range = list(map(float, self.value_range))
        self.input = replace(self.input, value_range=value_range)
        mean, std = [0.5] * self.input.channels, [0.5] * self.input.channels
        if self.channel_statistics == "train":
            mean, std = self.images("train").channel_statistics()
        self.input = replace(self.input, mean=mean, std=std)
        if self._facts.content.any():
            warn_about_duplicates(index, self._facts.content)
        crop, is_large = describe_crop(
            self._facts.sizes[(index.splits != "skip") & (self._facts.dtypes != "")], self.input
        )
        if is_large:
            rank_zero_warn(crop)
        self.notes = [crop] if crop and not is_large else []
        if self.input.shown_bands:
            self.notes = [*self.notes, f"figures show {self.input.shown_bands}"]
        return DataDescription(self.input, target, index.fingerprint())

    @override
    @property
    def description(self) -> DataDescription:
        assert self._description is not None, "call setup first"
        return self._description

    @property
    def test_split(self) -> Split:
        """The split that is tested on: test, or val if there is no test split."""
        return "test" if len(self._index().rows("test")) else "val"

    def _index(self) -> ImageIndex:
        assert self.index is not None, "call setup first"
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
            names = map(index.label_text, range(len(index.paths)))
            csv.writer(stream).writerow(["path", "class" if index.kind == "classes" else KINDS[index.kind], "split"])
            csv.writer(stream).writerows(zip(index.paths, names, index.splits, strict=True))

    @override
    def sample(self, count: int, split: Split | Literal[""] = "train") -> Batch:
        images = self.images(split)
        return images[Request(0, images.even(count))]

    @override
    def content(self, rows: Sequence[int]) -> Tensor | None:
        return None if self.input.fit != "pad" else self.images("").content(rows)

    def train_dataloader(self) -> Loader:
        """Return the dataloader of the train split, whose order is a function of (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> Loader:
        """Return the dataloader of the val split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """Return the dataloader of the test split (val if there is none), in order."""
        return self._loader(self.test_split)

    def predict_dataloader(self) -> Loader:
        """Return the dataloader of all images, in order."""
        return self._loader("")

    @override
    def samples_in_step(self, batch_idx: int) -> int:
        trainer = self.trainer
        assert trainer is not None and isinstance(trainer.train_dataloader, Loader)
        first = batch_idx - batch_idx % trainer.accumulate_grad_batches
        last = min(first + trainer.accumulate_grad_batches, int(trainer.num_training_batches))
        return trainer.train_dataloader.batch_sampler.num_samples(first, last)

    def images(self, split: Split | Literal[""], augmented: bool = False) -> Images:
        """Return the images of a split ("" for prediction data), with all item transforms or the deterministic ones."""
        rows, read = self._index().rows(split), self.origin.reader()
        transforms = [*self.item_transforms] if augmented else self._fixed()
        return Images(self._index(), rows, self.input, transforms, self._seed(), self._packed, read)

    @property
    def _overfitting(self) -> bool:
        """True if the trainer overfits a few batches (`overfit_batches`), which are then not augmented."""
        return bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def _order(self, split: Split | Literal[""]) -> Order:
        """Return the order of a split: shuffled if batches are limited, as the first ones are of one or two classes."""
        if split == "train":
            return "shuffled" if self._overfitting else "reshuffled each epoch"
        limits = [getattr(self.trainer, f"limit_{stage}_batches", 1.0) for stage in ("val", "test")]
        limited = any(isinstance(limit, int) or limit < 1 for limit in limits)  # 1 is one batch, 1.0 all batches
        return "shuffled" if split and limited else "sequential"

    def _loader(self, split: Split | Literal[""]) -> Loader:
        trainer = self.trainer
        training = bool(trainer and trainer.training and split == "train" and not self._overfitting)
        images = self.images(split, augmented=training)
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if not len(images):
            sizes = ", ".join(f"{count:,} in {name}" for name, count in self.split_sizes().items() if count)
            raise UserError(f"{self.folder} has no images in the {split} split, only {sizes}")
        if self.batch_size < world or len(images) < world:
            sizes = f"data.batch_size is {self.batch_size}, {split or 'the folder'} has {len(images)}"
            raise UserError(f"{world} processes need at least {world} images per batch and per split: {sizes}")
        strata = images.index.strata(images.rows) if split == "train" and self.sampling == "balanced" else None
        if training and self.sampler is not None:
            batches = self.sampler(len(images), self.batch_size, trainer.accumulate_grad_batches)  # type: ignore[union-attr]
        else:
            batches = EpochBatchSampler(
                len(images), self.batch_size, self._order(split), self._seed(), rank, world, strata
            )
        images.pixels = self._pixels_for(trainer.strategy.root_device if trainer else torch.device("cpu"))
        pin = torch.cuda.is_available() and not isinstance(images.pixels, Tensor)
        done = trainer.fit_loop.epoch_loop.batch_progress.current if trainer and training else None
        return Loader(images, batches, self._workers(), pin, lambda: done.ready if done is not None else 0)

    def _pixels_for(self, device: torch.device) -> Pixels | Tensor | None:
        """Return the packed pixels, on the device if it is a GPU and they take at most a quarter of its memory."""
        if self._packed is None or device.type != "cuda" or self._packed.dtype == np.uint16:
            return self._packed  # torch cannot index uint16 on every device
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
        return int(np.count_nonzero(self._index().splits != "skip"))

    @override
    @property
    def reading(self) -> str:
        if self._packed is not None:
            return "packed pixels" + ("" if self._on_device is None else " on the device")
        return f"{'shards' if self.origin.is_sharded else 'files'}, {pluralize(self._workers(), 'worker')}"

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch on its device, after seeding augmentation and dropout by (seed, step, rank)."""
        trainer = self.trainer
        if trainer is None or not trainer.training or self._overfitting or not len(batch.index):
            return batch
        step = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        assert isinstance(trainer.train_dataloader, Loader)
        seed = trainer.train_dataloader.batch_sampler.augmentation_seed
        seed_rng(seed, step, trainer.global_rank, device=batch.inputs.device)
        with torch.no_grad():
            return augment(batch, self.batch_transforms, self.description.target.outputs, trainer.current_epoch)

    @staticmethod
    def _seed() -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "0"))
