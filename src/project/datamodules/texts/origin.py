"""Source of the texts: a table, a folder tree of .txt files, or a built-in dataset."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from project.datamodules.builder import DatasetBuilder
from project.datamodules.index import Index, StringArray
from project.datamodules.labels import LabelOptions, kind_of
from project.datamodules.table_index import index_table
from project.datamodules.tree import FileKind, index_tree
from project.errors import UserError
from project.interface import ClassTarget, Target
from project.tables import Columns, Table
from project.texts.files import EXTENSIONS, clean_cells, read_files, read_texts


@dataclass(frozen=True)
class TextColumns(Columns):
    """Names of the columns of a table of texts.

    Args:
        text: The text of each row.
        label: Class of each text; or several columns, of 0 and 1 for labels, of numbers for values to predict.
        split: train, val, test or empty; by default the column `split`, if there is one.
        group: Group of each text, e.g. its author; a group stays in one split.
        balance: E.g. a source. `sampling: balanced` then samples all pairs of class and entry equally often, so that
            the entry does not predict the class.
    """

    text: str = "text"

    @property
    @override
    def key(self) -> str:
        return self.text


@dataclass(frozen=True)
class TextOrigin:
    """The source selected by the datamodule's arguments of the same names."""

    root: str | None
    table: str | None
    columns: TextColumns
    source: DatasetBuilder | None
    cache_dir: Path
    options: LabelOptions
    option: str = "--data.columns"  # that names the columns, for error messages

    def prepare(self) -> Path:
        """Return the table or the folder; write a built-in dataset first if it does not exist."""
        if self.table is not None:
            return Path(self.table)
        if self.root is not None:
            return Path(self.root)
        if self.source is None:
            raise UserError("no texts: give --data.table FILE, or --data.root DIR with DIR/CLASS/*.txt")
        return self.source.prepare(self.cache_dir) / str(self.source.table)

    def index(self, trained: Target | None) -> Index:
        """Index all labeled texts, for the target of a trained model if there is one."""
        place = self.prepare()
        if not place.is_dir():
            return self._index_table(place, trained)
        kind = kind_of(trained) if trained else self.options.target
        if kind not in ("auto", "classes"):
            raise UserError(f"{place} has one folder for each class, and data.target is {kind}: use --data.table FILE")
        class_names = list(trained.names) if isinstance(trained, ClassTarget) else None
        index = index_tree(place, class_names, samples=FileKind("text", EXTENSIONS))
        texts, notes = read_files(place, index.keys)
        for note in notes:
            rank_zero_warn(note)
        return replace(index, keys=StringArray(texts), places=index.keys)

    def unlabeled(self) -> Index:
        """Index the texts of a table, a folder or a file, in their order, without labels."""
        place = self.prepare()
        texts, notes = read_texts(place, self.columns.text, f"{self.option}.text")
        for note in notes:
            rank_zero_warn(note)
        return index_texts(texts, place)

    def _index_table(self, file: Path, trained: Target | None) -> Index:
        places: list[str] = []

        def read(table: Table) -> list[str]:
            texts = clean_cells(table, self.columns.text)
            places.extend(table.places[row] for row in sorted(range(len(texts)), key=texts.__getitem__))
            return texts

        index = index_table(file, file, self.columns, read, "text", self.options, trained, self.option)
        return replace(index, places=StringArray(places))


def index_texts(texts: list[str], root: Path) -> Index:
    """Return an index of texts without labels."""
    return Index(root, StringArray(texts), np.full(len(texts), -1), np.full(len(texts), ""), [], unit="text")
