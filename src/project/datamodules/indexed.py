"""Base class of datamodules of images with an index: splits, seeded order, loaders and augmentation on the device."""

import csv
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from project.datamodules.base import DataModule
from project.datamodules.images.augment import augment
from project.datamodules.images.dataset import Images
from project.datamodules.images.notices import describe_absent
from project.datamodules.index import KINDS, ImageIndex
from project.datamodules.loader import Loader
from project.datamodules.parallel import worker_count
from project.datamodules.sampler import EpochBatchSampler, Order, Request, seed_rng
from project.datamodules.split import assign_splits, split_as_trained
from project.errors import UserError
from project.images import Pixels
from project.interface import SPLITS, Batch, DataDescription, ImageInput, Split, Target, module_of

SamplerCallable = Callable[[int, int, int], EpochBatchSampler]  # called with size, batch_size, accumulate_grad_batches


class IndexedDataModule(DataModule):
    """A datamodule of images with an index, whose order and augmentation are functions of seed, epoch and sample.

    Subclasses index the images, describe them and return a dataset of batches for each split. The arguments are those
    of the subclasses; `given` are their options that must agree with the input of a trained model, None if not given.

    Attributes:
        index: The index, available after `setup`.
        input: Description of the images; complete after `setup`.
        item_transforms: Transforms of single images before they are fitted.
        batch_transforms: Augmentations of training batches on the device.

    Raises:
        UserError: An argument is out of range.
    """

    input: ImageInput
    _packed: Pixels | None = None  # (N, height, width, channels), by row of the index
    _on_device: Tensor | None = None

    def __init__(
        self,
        given: dict[str, Any],
        batch_transforms: list[nn.Module],
        batch_size: int,
        val_fraction: float,
        test_fraction: float,
        split_seed: int,
        folds: int,
        fold: int,
        sampling: Literal["natural", "balanced"],
        num_workers: int | None,
        sampler: SamplerCallable | None = None,
    ) -> None:
        super().__init__()
        held_out = 0 if folds else val_fraction + test_fraction
        valid_fold = fold == 0 if folds == 0 else folds > 1 and 0 <= fold < folds
        for invalid, message in (
            (sampling == "balanced" and sampler, "sampler cannot be combined with data.sampling balanced: remove one"),
            (batch_size < 1, f"batch_size must be at least 1, got {batch_size}"),
            (split_seed < 0, f"split_seed must be at least 0, got {split_seed}"),
            ((num_workers or 0) < 0, f"num_workers must be at least 0, got {num_workers}"),
            (not 0 < val_fraction < 1, f"val_fraction must be above 0 and below 1, got {val_fraction}"),
            (not 0 <= test_fraction < 1, f"test_fraction must be at least 0 and below 1, got {test_fraction}"),
            (held_out >= 1, f"val_fraction and data.test_fraction must sum to less than 1, got {held_out:g}"),
            (not valid_fold, f"fold must be in 0 to data.folds - 1 with at least 2 folds, got fold {fold} of {folds}"),
        ):
            if invalid:
                raise UserError(f"data.{message}")
        self._split = partial(
            assign_splits,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=split_seed,
            folds=folds,
            fold=fold,
        )
        self.item_transforms, self.batch_transforms = nn.ModuleList(), nn.ModuleList(batch_transforms)
        self.batch_size = batch_size
        self.sampling, self.sampler, self.num_workers = sampling, sampler, num_workers
        self.index: ImageIndex | None = None
        self._given = given
        self._description: DataDescription | None = None

    @abstractmethod
    def images(self, split: Split | Literal[""], augmented: bool = False) -> Images:
        """Return the images of a split ("" for prediction data), augmented for training or not."""

    @abstractmethod
    def _labeled(self, trained: Target | None) -> ImageIndex:
        """Index the labeled images, for the target of a trained model if there is one."""

    @abstractmethod
    def _unlabeled(self) -> ImageIndex:
        """Index the images to predict."""

    @abstractmethod
    def _describe(self) -> DataDescription:
        """Describe the indexed and split data for training."""

    def setup(self, stage: str) -> None:
        """Index, validate and split the images; on `fit`, also describe them."""
        trained = module_of(self.trainer).data_description if self.trainer else None
        if trained is not None and stage != "fit":
            self._check_input(trained.image)
            self._description, self.input = trained, trained.image
        if stage == "predict":
            self.index = self._unlabeled()
            return
        if self.index is not None and self.index.names:
            return  # `test` after `fit` on the same datamodule
        index = self._labeled(trained.target if trained else None)
        if trained is not None and stage != "fit":
            self.index = split_as_trained(
                index, "val" if stage == "validate" else "test", trained.fingerprint, self._split, self.is_other
            )
        else:
            self.index = self._split(index)
        if stage == "fit":
            self._description = self._describe()
        for split in SPLITS[1:] if stage == "fit" else ["val" if stage == "validate" else self.test_split]:
            if absent := describe_absent(self.index, split):
                rank_zero_warn(absent)

    def _check_input(self, trained: ImageInput) -> None:
        """Raise a UserError if an option contradicts the input that the model was trained on."""
        for option, given in self._given.items():
            if given is not None and given != getattr(trained, {"image_size": "size"}.get(option, option)):
                model = f"the model was trained on images of {trained}, and prepares all images like these"
                raise UserError(f"{model}: remove --data.{option}")

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
    def size(self) -> int:
        return int(np.count_nonzero(self._index().splits != "skip"))

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
