"""Datamodule of an image dataset."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from typing_extensions import override

from project.datamodules.builder import DatasetBuilder
from project.datamodules.images.augment import default_augmentation, is_fixed
from project.datamodules.images.dataset import Images
from project.datamodules.images.facts import Facts
from project.datamodules.images.index import index_unlabeled
from project.datamodules.images.indexed import IndexedImageModule
from project.datamodules.images.masks import MaskMode, Masks
from project.datamodules.images.notices import (
    describe_conversions,
    describe_crop,
    skip_unreadable,
    warn_about_duplicates,
)
from project.datamodules.images.origin import Origin
from project.datamodules.images.packed import decode_all, sample_facts
from project.datamodules.images.shards import read_shard_facts
from project.datamodules.images.transforms import RandomResizedCrop
from project.datamodules.index import Index
from project.datamodules.indexed import SamplerCallable
from project.datamodules.labels import LabelOptions, TargetOption
from project.errors import UserError
from project.images import describe_skipped
from project.interface import DataDescription, Fit, ImageInput, Split, Target, to_size
from project.machine import memory
from project.output import pluralize, redact_secrets
from project.runs.spec import to_spec
from project.tables import DEFAULT_COLUMNS, PathColumns


class ImageDataModule(IndexedImageModule):
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
        columns: PathColumns = DEFAULT_COLUMNS,
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
        size = to_size(image_size, "data.image_size")
        super().__init__(
            default_augmentation() if batch_transforms is None else batch_transforms,
            {
                **{"image_size": size, "channels": channels, "fit": fit},
                "value_range": None if value_range == "auto" else value_range,
            },
            batch_size,
            val_fraction,
            test_fraction,
            split_seed,
            folds,
            fold,
            sampling,
            num_workers,
            sampler,
        )
        self.save_hyperparameters(logger=False)
        for name in ("source", "item_transforms", "batch_transforms"):
            value = self.hparams.get(name)  # subclasses may have other arguments
            values = value if isinstance(value, list) else [value]
            if any(isinstance(each, nn.Module | DatasetBuilder) for each in values):
                del self.hparams[name]  # checkpoints contain plain data only
        if callable(self.hparams.get("sampler")):
            self.hparams["sampler"] = to_spec(sampler)
        columns = PathColumns(**columns) if isinstance(columns, dict) else columns  # from a checkpoint, in Python
        self.hparams["columns"] = asdict(columns)
        balanced = sampling == "balanced"
        valid_range = value_range == "auto" or (len(value_range) == 2 and value_range[0] < value_range[1])
        if root and redact_secrets(root) != root:
            fix = "put it into the environment or a credentials file, where fsspec finds it"
            raise UserError(f"data.root contains a password or key, which would be saved with every run: {fix}")
        for invalid, message in (
            (channels < 1, f"channels must be at least 1, got {channels}"),
            (not valid_range, f"value_range must be auto or [low, high] with low below high, got {value_range}"),
            (columns.balance and not balanced, "columns.balance needs balanced sampling: add --data.sampling balanced"),
            (columns.group and not table, "columns.group is a column of a table: add --data.table"),
            (columns.balance and not table, "columns.balance is a column of a table: add --data.table"),
        ):
            if invalid:
                raise UserError(f"data.{message}")
        self.origin = Origin(root, table, columns, source, Path(cache_dir), LabelOptions(target, label_separator))
        self.input, self.value_range = ImageInput(*size, channels=channels, fit=fit), value_range
        self.channel_statistics, self.on_corrupt = channel_statistics, on_corrupt
        self.mask_boxes, self.mask_by = mask_boxes, mask_by
        self.item_transforms = nn.ModuleList(item_transforms or [])
        for transform in self.item_transforms:
            if isinstance(transform, RandomResizedCrop):
                transform.size = self.input.size
        self._pack_limit = memory() / 4 if pack_limit is None else pack_limit * 1e9
        self._facts: Facts | None = None

    def prepare_data(self) -> None:
        """Write the built-in dataset if it does not exist; called by one process per machine."""
        self.origin.prepare()

    @override
    def setup(self, stage: str) -> None:
        self.folder = self.origin.prepare()
        super().setup(stage)

    @override
    def _labeled(self, trained: Target | None) -> Index:
        return self._validate(self.origin.index(trained))

    @override
    def _unlabeled(self) -> Index:
        if self.origin.is_sharded:
            raise UserError(f"{self.origin.root} contains shards: predict needs a folder of images or one image")
        return self._validate(index_unlabeled(self.folder))

    def _validate(self, index: Index) -> Index:
        """Read all images once and pack their pixels if they fit; return the index with unreadable images marked."""
        if self.mask_boxes is not None:
            if self.origin.is_sharded:
                raise UserError("data.mask_boxes: shards are masked when written, by `train.py shard --mask_boxes`")
            index = replace(index, masks=Masks(Path(self.mask_boxes), self.mask_by, index.keys))
        if index.skipped:
            rank_zero_warn(describe_skipped(index.skipped))
        trained_dtype = None if self._description is None else self.input.dtype
        self._packed = self._on_device = None
        if self.origin.is_sharded:
            self._facts = read_shard_facts(str(self.origin.root), len(index.keys))
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

    def _fixed(self) -> list[nn.Module]:
        return [transform for transform in self.item_transforms if is_fixed(transform)]

    @override
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
            mean, std = self.dataset("train").channel_statistics()
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
    def dataset(self, split: Split | Literal[""], augmented: bool = False) -> Images:
        rows, read = self._index().rows(split), self.origin.reader()
        transforms = [*self.item_transforms] if augmented else self._fixed()
        return Images(self._index(), rows, self.input, transforms, self._seed(), self._packed, read)

    @override
    @property
    def augments(self) -> bool:
        return not self._overfitting and (
            len(self._fixed()) < len(self.item_transforms) or len(self.batch_transforms) > 0
        )

    @override
    @property
    def reading(self) -> str:
        if self._packed is not None:
            return "packed pixels" + ("" if self._on_device is None else " on the device")
        return f"{'shards' if self.origin.is_sharded else 'files'}, {pluralize(self._workers(), 'worker')}"
