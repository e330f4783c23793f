"""Base class of datamodules with an index: splits, seeded order, loaders and augmentation on the device."""

import csv
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from project.datamodules.base import DataModule
from project.datamodules.dataset import IndexedDataset
from project.datamodules.index import KINDS, Index, describe_absent
from project.datamodules.loader import Loader
from project.datamodules.parallel import worker_count
from project.datamodules.sampler import EpochBatchSampler, Order, Request, seed_rng
from project.datamodules.split import assign_splits, split_as_trained
from project.errors import UserError
from project.interface import SPLITS, Batch, DataDescription, Input, Split, Target, module_of

SamplerCallable = Callable[[int, int, int], EpochBatchSampler]  # called with size, batch_size, accumulate_grad_batches


class IndexedDataModule(DataModule):
    """A datamodule with an index, whose order and augmentation are functions of seed, epoch and sample.

    Subclasses index the samples, describe them and return a dataset of batches for each split. The arguments are those
    of the subclasses; `given` are their options that must agree with the input of a trained model, None if not given.

    Attributes:
        index: The index, available after `setup`.
        input: Description of the samples; complete after `setup`.

    Raises:
        UserError: An argument is out of range.
    """

    input: Any  # an `Input`, of a narrower type in subclasses
    fixed_transforms: Sequence[str] = ()
    """Names of item transforms that are applied to every sample, in training or not."""
    kind: ClassVar[str]
    """Kind of the samples, see `Input.kind`."""

    def __init__(
        self,
        given: dict[str, Any],
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
        self.batch_size = batch_size
        self.sampling, self.sampler, self.num_workers = sampling, sampler, num_workers
        self.index: Index | None = None
        self._given = given
        self._description: DataDescription | None = None

    @abstractmethod
    def dataset(self, split: Split | Literal[""], augmented: bool = False) -> IndexedDataset:
        """Return the samples of a split ("" for prediction data), augmented for training or not."""

    @abstractmethod
    def _labeled(self, trained: Target | None) -> Index:
        """Index the labeled samples, for the target of a trained model if there is one."""

    @abstractmethod
    def _unlabeled(self) -> Index:
        """Index the samples to predict."""

    @abstractmethod
    def _describe(self) -> DataDescription:
        """Describe the indexed and split data for training."""

    def setup(self, stage: str) -> None:
        """Index, validate and split the samples; on `fit`, also describe them."""
        trained = module_of(self.trainer).data_description if self.trainer else None
        if trained is not None and stage != "fit":
            self._check_input(trained.input)
            self._description, self.input = trained, trained.input
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

    def _check_input(self, trained: Input) -> None:
        """Raise a UserError if an option contradicts the input that the model was trained on."""
        if trained.kind != self.kind:
            raise UserError(f"the model takes {trained.kind}s, but {type(self).__name__} reads {self.kind}s")
        for option, given in self._given.items():
            if given is not None and given != getattr(trained, {"image_size": "size"}.get(option, option)):
                kind = f"{trained.kind}s"
                model = f"the model was trained on {kind} of {trained}, and prepares all {kind} like these"
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

    def _index(self) -> Index:
        assert self.index is not None, "call setup first"
        return self.index

    @override
    def path(self, index: int) -> str:
        return self._index().keys[index]

    @override
    def split_sizes(self) -> dict[Split, int]:
        return {split: len(self._index().rows(split)) for split in SPLITS}

    @override
    def write_split(self, file: Path) -> None:
        index = self._index()
        with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            names = map(index.label_text, range(len(index.keys)))
            csv.writer(stream).writerow([self.key, "class" if index.kind == "classes" else KINDS[index.kind], "split"])
            csv.writer(stream).writerows(zip(index.keys, names, index.splits, strict=True))

    @override
    def sample(self, count: int, split: Split | Literal[""] = "train") -> Batch:
        dataset = self.dataset(split)
        return dataset[Request(0, dataset.even(count))]

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
        """Return the dataloader of all samples, in order."""
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
        dataset = self.dataset(split, augmented=training)
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        unit = f"{self.kind}s"
        if not len(dataset):
            sizes = ", ".join(f"{count:,} in {name}" for name, count in self.split_sizes().items() if count)
            raise UserError(f"{self.folder} has no {unit} in the {split} split, only {sizes}")
        if self.batch_size < world or len(dataset) < world:
            sizes = f"data.batch_size is {self.batch_size}, {split or 'the folder'} has {len(dataset)}"
            raise UserError(f"{world} processes need at least {world} {unit} per batch and per split: {sizes}")
        strata = dataset.index.strata(dataset.rows) if split == "train" and self.sampling == "balanced" else None
        if training and self.sampler is not None:
            batches = self.sampler(len(dataset), self.batch_size, trainer.accumulate_grad_batches)  # type: ignore[union-attr]
        else:
            batches = EpochBatchSampler(
                *(len(dataset), self.batch_size, self._order(split), self._seed(), rank, world, strata),
                lengths=dataset.lengths,
            )
        self._place(dataset, trainer.strategy.root_device if trainer else torch.device("cpu"))
        pin = torch.cuda.is_available() and not dataset.on_device
        done = trainer.fit_loop.epoch_loop.batch_progress.current if trainer and training else None
        return Loader(dataset, batches, self._workers(), pin, lambda: done.ready if done is not None else 0)

    def _place(self, dataset: IndexedDataset, device: torch.device) -> None:
        """Move the data of a dataset to the device, if it is held there."""

    @property
    def _in_memory(self) -> bool:
        """True if batches are so fast to read that workers would slow training down."""
        return False

    def _workers(self) -> int:
        if self._in_memory:
            return 0
        devices = self.trainer.num_devices if self.trainer else 1
        return worker_count(devices) if self.num_workers is None else self.num_workers

    @override
    @property
    def size(self) -> int:
        return int(np.count_nonzero(self._index().splits != "skip"))

    @override
    @property
    def rows(self) -> int:
        return len(self._index().keys)

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
            return self.augment(batch)

    def augment(self, batch: Batch) -> Batch:
        """Augment a training batch on its device; by default, not at all."""
        return batch

    @staticmethod
    def _seed() -> int:
        return int(os.environ.get("PL_GLOBAL_SEED", "0"))
