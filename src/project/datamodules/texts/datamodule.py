"""Datamodule of a text dataset."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from project.datamodules.builder import DatasetBuilder
from project.datamodules.index import Index
from project.datamodules.indexed import IndexedDataModule, SamplerCallable
from project.datamodules.labels import LabelOptions, TargetOption
from project.datamodules.texts.augment import TextTransform
from project.datamodules.texts.dataset import Texts
from project.datamodules.texts.duplicates import split_distinct, warn_about_duplicates
from project.datamodules.texts.origin import TextColumns, TextOrigin, index_texts
from project.errors import UserError
from project.images import describe_skipped
from project.interface import DataDescription, Input, Split, Target
from project.output import pluralize
from project.runs.spec import to_spec
from project.texts import TextInput, clean_text

DEFAULT_COLUMNS = TextColumns()
NOTED = 2000
"""Number of training texts of which a tokenizer's share of cut texts and unknown tokens is estimated."""


class TextDataModule(IndexedDataModule):
    """Datamodule of texts and their labels; equal texts stay in one split.

    Args:
        root: Folder with one text per file, ROOT/CLASS/NAME.txt, or ROOT/{train,val,test}/CLASS/NAME.txt with optional
            val and test. For predict: any folder or one file.
        table: CSV, TSV, JSON Lines or Parquet file with one row per text.
        columns: Names of the columns of the table.
        target: What is predicted: the class of each text, any number of labels (`multilabel`), or values. `auto`
            decides by the table: several columns of 0 and 1, or cells with `label_separator`, are labels; other numbers
            are values; one column of anything but decimal numbers holds classes.
        label_separator: Separator of several labels in a cell of the table, e.g. `|`.
        source: Built-in dataset, used if neither `root` nor `table` is given.
        text: One text to predict; for several, use a table.
        max_bytes: Longer texts are cut, at the boundary of a character, after this number of UTF-8 bytes.
        batch_size: Global batch size: texts per step over all devices.
        val_fraction: Fraction of each class to split off for val if the dataset has no val split, in (0, 1).
        test_fraction: Fraction of each class to split off for test if the dataset has neither val nor test, in [0, 1).
        split_seed: Seed of the split, independent of the training seed.
        folds: Number of cross-validation folds; 0 disables cross-validation.
        fold: Index of the held-out fold, from 0; it is the test split, or val if the dataset has a test split.
        sampling: Training sampler: `natural` samples each text once per epoch, `balanced` all classes equally often.
        sampler: Custom batch sampler for training, e.g. project.privacy.PoissonBatchSampler.
        item_transforms: Augmentations of single training texts, e.g. WordDropout.
        num_workers: Number of dataloader workers if texts are augmented or tokenized; by default, 0 on a single CPU
            core, otherwise up to one per core.
        cache_dir: Directory of built-in datasets.
    """

    key, kind = TextInput.key, TextInput.kind
    other_data = '--text "TEXT"'

    def __init__(
        self,
        root: str | None = None,
        table: str | None = None,
        columns: TextColumns = DEFAULT_COLUMNS,
        target: TargetOption = "auto",
        label_separator: str | None = None,
        source: DatasetBuilder | None = None,
        text: str | None = None,
        max_bytes: int = 1024,
        batch_size: int = 64,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        folds: int = 0,
        fold: int = 0,
        sampling: Literal["natural", "balanced"] = "natural",
        sampler: SamplerCallable | None = None,
        item_transforms: list[TextTransform] | None = None,
        num_workers: int | None = None,
        cache_dir: str = "data",
    ) -> None:
        super().__init__(
            *({"max_bytes": max_bytes}, batch_size, val_fraction, test_fraction, split_seed, folds, fold, sampling),
            *(num_workers, sampler),
        )
        if max_bytes < 4:
            raise UserError(f"data.max_bytes must be at least 4, the bytes of a character, got {max_bytes}")
        self.save_hyperparameters(logger=False)
        self.hparams["text"] = None  # it is of one `predict` only
        for name, built in (("source", source), ("item_transforms", item_transforms)):
            if isinstance(built, list | DatasetBuilder) and not isinstance(self.hparams.get(name), str | dict):
                del self.hparams[name]  # checkpoints contain plain data only
        if callable(self.hparams.get("sampler")):
            self.hparams["sampler"] = to_spec(sampler)
        columns = TextColumns(**columns) if isinstance(columns, dict) else columns  # from a checkpoint, in Python
        self.hparams["columns"] = asdict(columns)
        self.origin = TextOrigin(root, table, columns, source, Path(cache_dir), LabelOptions(target, label_separator))
        self.input = TextInput(max_bytes)
        self.text, self.is_other, self.item_transforms = text, text is not None, item_transforms or []
        self._split = partial(split_distinct, draw=self._split, folds=folds)

    def prepare_data(self) -> None:
        """Write the built-in dataset if it does not exist; called by one process per machine."""
        if self.text is None:
            self.origin.prepare()

    @override
    def setup(self, stage: str) -> None:
        self.folder = Path() if self.text is not None else self.origin.prepare()
        super().setup(stage)

    @override
    def _labeled(self, trained: Target | None) -> Index:
        index = self.origin.index(trained)
        if index.skipped:
            rank_zero_warn(describe_skipped(index.skipped))
        empty = np.flatnonzero(index.keys.lengths == 0)
        if len(empty):
            rank_zero_warn(f"{index.root}: {pluralize(len(empty), 'empty text')} skipped")
            splits = index.splits.astype("<U5")
            splits[empty] = "skip"
            if len(empty) == len(splits):
                raise UserError(f"{index.root} has only empty texts: is --data.columns.text the right column?")
            index = replace(index, splits=splits)
        return index

    @override
    def _unlabeled(self) -> Index:
        if self.text is None:
            return self.origin.unlabeled()
        return index_texts([clean_text(self.text)], self.folder)

    @override
    def _describe(self) -> DataDescription:
        index = self._index()
        warn_about_duplicates(index)
        lengths = index.keys.lengths[index.splits != "skip"]
        longer = int((lengths > self.input.max_bytes).sum())
        self.notes = [
            f"texts of {int(np.median(lengths)):,} bytes (median), at most {lengths.max():,}; {longer:,}"
            f" ({longer / len(lengths):.1%}) are cut after {self.input.max_bytes:,} (--data.max_bytes)"
        ]
        return DataDescription(self.input, index.target(), index.fingerprint())

    @override
    def use_input(self, inputs: Input) -> None:
        assert isinstance(inputs, TextInput)
        self.input, self._description = inputs, replace(self.description, input=inputs)
        rows = self._index().rows("train")
        shown = rows[np.linspace(0, len(rows) - 1, min(NOTED, len(rows)), dtype=np.int64)]
        if note := inputs.describe([self._index().keys[row] for row in shown.tolist()]):
            self.notes = [*self.notes[:1], note]

    @override
    def dataset(self, split: Split | Literal[""], augmented: bool = False) -> Texts:
        transforms = self.item_transforms if augmented else ()
        return Texts(self._index(), self._index().rows(split), self.input, transforms, self._seed())

    @override
    @property
    def augments(self) -> bool:
        return not self._overfitting and len(self.item_transforms) > 0

    @override
    @property
    def _in_memory(self) -> bool:
        return not self.item_transforms and type(self.input) is TextInput  # a tokenizer is slower

    @override
    @property
    def reading(self) -> str:
        return "memory" if self._in_memory else f"memory, {pluralize(self._workers(), 'worker')}"
