"""Datamodule of any map-style dataset of images, read in place."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.utils.data import ConcatDataset, Dataset
from typing_extensions import override

from project.datamodules.images.indexed import IndexedImageModule
from project.datamodules.index import Index, StringArray
from project.datamodules.labels import TargetOption
from project.datamodules.parallel import parallel_map
from project.datamodules.sample_input import draws, find_input
from project.datamodules.sample_targets import SERIAL, Part, to_labels
from project.datamodules.samples import Samples
from project.errors import UserError
from project.interface import DataDescription, Fit, Split, Target, to_size
from project.output import pluralize
from project.runs.spec import to_spec

DatasetCallable = Callable[[], Dataset[Any]]
PARTS = ("train", "val", "test", "predict")


class DatasetModule(IndexedImageModule):
    """Datamodule of any map-style `Dataset` of images, by class path and arguments; nothing is copied into folders.

    A sample is (image, target) or a dictionary with image, img or pixel_values and label, labels or target. Images are
    PIL images, arrays (H, W, C) or tensors (C, H, W), uint8 or float in [0, 1]. What a dataset draws from the global
    generators of torch, NumPy and `random` is seeded by (seed, epoch, sample), for evaluation by (seed, sample).

    Args:
        train: Dataset of the train split; in Python also an instance. Its `classes`, if it has them, are the names.
        val: Dataset of the val split; by default, val and test are split off from train.
        test: Dataset of the test split.
        predict: Dataset for predict, with or without targets; by default, all of the above.
        target: What is predicted. `auto` decides by the targets: an int or text is a class, a vector of 0 and 1 are
            labels (`multilabel`; -1 or NaN if unknown), other floats are values.
        image_size: Size of the network input in pixels: one number, or height and width; by default, that of the
            samples, which must agree.
        fit: How images are brought to this size: `crop` takes the largest centered part of the same aspect ratio, `pad`
            adds borders (letterbox), `stretch` changes the aspect ratio.
        channels: Number of channels; by default, that of the samples.
        batch_size: Global batch size: images per step over all devices.
        val_fraction: Fraction of each class to split off for val if there is no val dataset, in (0, 1).
        test_fraction: Fraction of each class to split off for test if there is neither val nor test, in [0, 1).
        split_seed: Seed of the split, independent of the training seed.
        folds: Number of cross-validation folds; 0 disables cross-validation.
        fold: Index of the held-out fold, from 0; it is the test split, or val if there is a test dataset.
        sampling: Training sampler: `natural` samples each image once per epoch, `balanced` all classes equally often.
        batch_transforms: Augmentations of training batches on the device, as of `ImageDataModule`; by default, none.
        pack: Read every sample once, at the start, and keep the pixels in memory: for datasets that draw nothing and
            are slow to read.
        num_workers: Number of dataloader workers if samples are not packed; by default, 0 on a single CPU core,
            otherwise up to one per core.
    """

    other_data = "--data ImageDataModule --data.root FOLDER_OR_IMAGE"

    def __init__(
        self,
        train: DatasetCallable | None = None,
        val: DatasetCallable | None = None,
        test: DatasetCallable | None = None,
        predict: DatasetCallable | None = None,
        target: TargetOption = "auto",
        image_size: int | list[int] | None = None,
        fit: Fit = "crop",
        channels: int | None = None,
        batch_size: int = 128,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        folds: int = 0,
        fold: int = 0,
        sampling: Literal["natural", "balanced"] = "natural",
        batch_transforms: list[nn.Module] | None = None,
        pack: bool = False,
        num_workers: int | None = None,
    ) -> None:
        size = None if image_size is None else to_size(image_size, "data.image_size")
        if channels is not None and channels < 1:
            raise UserError(f"data.channels must be at least 1, got {channels}")
        super().__init__(
            batch_transforms or [],
            {"image_size": size, "channels": channels, "fit": fit},
            batch_size,
            val_fraction,
            test_fraction,
            split_seed,
            folds,
            fold,
            sampling,
            num_workers,
        )
        self.save_hyperparameters(logger=False)
        for name in PARTS:  # checkpoints contain plain data only
            if isinstance(spec := to_spec(self.hparams[name]), str | dict | None):
                self.hparams[name] = spec
            else:
                del self.hparams[name]
        if any(isinstance(each, nn.Module) for each in self.hparams["batch_transforms"] or []):
            del self.hparams["batch_transforms"]
        self._build = dict(zip(PARTS, (train, val, test, predict), strict=True))
        self._built: dict[str, Any] = {}
        self._rows: Any = ()  # the samples, by row of the index
        self.target, self.pack, self._size, self._channels, self._fit = target, pack, size, channels, fit

    def prepare_data(self) -> None:
        """Build the datasets, which may download them; called by one process per machine."""
        for name in PARTS:
            self._part(name)

    def _part(self, name: str) -> Part | None:
        """Return the dataset of a part, which is built once; None if it is not given."""
        build = self._build[name]
        if build is None:
            return None
        if name not in self._built:
            try:
                dataset = build if hasattr(build, "__getitem__") and not isinstance(build, type) else build()
            except (OSError, RuntimeError) as error:  # e.g. not downloaded
                raise UserError(f"data.{name} cannot be built: {error}") from error
            if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
                kind = type(dataset).__name__
                raise UserError(f"data.{name}: {kind} is no map-style dataset: it needs __getitem__ and __len__")
            self._built[name] = dataset
        return Part(name, self._built[name])

    @override
    def _labeled(self, trained: Target | None) -> Index:
        parts = [part for name in PARTS[:-1] if (part := self._part(name))]
        if not parts:
            raise UserError("no dataset: give --data.train CLASS_PATH and its arguments, --data.train.NAME VALUE")
        self._open(parts)
        labels, notices = to_labels(parts, self.target, trained)
        for text in notices:
            rank_zero_warn(f"{self.folder}: {text}")
        splits = np.concatenate([np.full(len(part.dataset), part.split) for part in parts])
        index = Index(self.folder, self._names(parts), labels.values, splits, labels.names, kind=labels.kind)
        return self._pack(index)

    @override
    def _unlabeled(self) -> Index:
        given = self._part("predict")
        parts = [given] if given else [part for name in PARTS[:-1] if (part := self._part(name))]
        if not parts:
            raise UserError("no dataset to predict: give --data.predict CLASS_PATH")
        self._open(parts)
        count = len(self._rows)
        return self._pack(Index(self.folder, self._names(parts), np.full(count, -1), np.full(count, ""), []))

    def _open(self, parts: list[Part]) -> None:
        self._rows = ConcatDataset([part.dataset for part in parts])
        self.folder = Path("+".join(dict.fromkeys(type(part.dataset).__name__ for part in parts)))
        if self._description is None:
            self.input, self.notes = find_input(parts, self._size, self._channels, self._fit)
            if parts[0].split == "train" and (self.pack or len(parts) == 1) and draws(parts[0]):
                effect = "val and test, split off from it, are augmented too: give --data.val and --data.test"
                effect = "packed samples do not vary: leave out --data.pack" if self.pack else effect
                rank_zero_warn(f"{self.folder}: what the train dataset draws is random, and {effect}")

    @staticmethod
    def _names(parts: list[Part]) -> StringArray:
        return StringArray(part.name(row) for part in parts for row in range(len(part.dataset)))

    def _pack(self, index: Index) -> Index:
        """Read all samples of an index if they are to be packed."""
        self._packed = self._on_device = None
        if self.pack:
            samples = Samples(self._rows, index, np.arange(len(self._rows)), self.input, self._seed())
            serial, count = len(samples) < SERIAL, len(samples)
            images = map(samples.fitted, range(count)) if serial else parallel_map(samples.fitted, count, "packing")
            self._packed = np.stack([image.permute(1, 2, 0).numpy() for image in images])
        return index

    @override
    def _describe(self) -> DataDescription:
        assert self.index is not None
        if not len(self.index.rows("train")):
            raise UserError("no dataset to train on: give --data.train CLASS_PATH")
        # Another datamodule that the model is applied to, e.g. of a folder, has other defaults.
        self.hparams.update(image_size=[*self.input.size], channels=self.input.channels)
        mean, std = self.dataset("train").channel_statistics()
        self.input = replace(self.input, mean=mean, std=std)
        return DataDescription(self.input, self.index.target(), self.index.fingerprint())

    @override
    def dataset(self, split: Split | Literal[""], augmented: bool = False) -> Samples:
        assert self.index is not None, "call setup first"
        rows, same_size = self.index.rows(split), self._size is None
        return Samples(self._rows, self.index, rows, self.input, self._seed(), augmented, same_size, self._packed)

    @override
    @property
    def augments(self) -> bool:
        return not self._overfitting and (self._packed is None or len(self.batch_transforms) > 0)

    @override
    @property
    def reading(self) -> str:
        if self._packed is not None:
            return "packed pixels" + ("" if self._on_device is None else " on the device")
        return f"{self.folder}, {pluralize(self._workers(), 'worker')}"
