"""Source of the texts: a table, a folder tree of .txt files, or a built-in dataset."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from project.datamodules.builder import DatasetBuilder
from project.datamodules.index import Index, StringArray
from project.datamodules.labels import LabelOptions, kind_of
from project.datamodules.table_formats import decode_text
from project.datamodules.table_index import index_table
from project.datamodules.tables import Columns, Table, load_table
from project.datamodules.tree import FileKind, index_tree
from project.errors import UserError
from project.files import find_files
from project.interface import ClassTarget, Target
from project.output import pluralize
from project.texts import clean_text

EXTENSIONS = (".txt",)


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
        return replace(index, keys=StringArray(read_files(place, index.keys)), places=index.keys)

    def unlabeled(self) -> Index:
        """Index the texts of a table, a folder or a file, in their order, without labels."""
        place = self.prepare()
        if place.is_dir():
            skipped: Counter[str] = Counter()
            texts = read_files(place, sorted(find_files(place, EXTENSIONS, skipped=skipped)))
            if not texts:
                raise UserError(f"no texts in {place}: expected files *.txt, or a table with --data.table FILE")
            return replace(index_texts(texts, place), skipped=skipped)
        if place.suffix.lower() in EXTENSIONS:
            return index_texts(read_files(place.parent, [place.name]), place)
        table = load_table(place, {self.columns.text: f"{self.option}.text"})
        texts = self._read_texts(table)
        for note in table.notes:
            rank_zero_warn(note)
        return index_texts(texts, place)

    def _index_table(self, file: Path, trained: Target | None) -> Index:
        places: list[str] = []

        def read(table: Table) -> list[str]:
            texts = self._read_texts(table)
            places.extend(table.places[row] for row in sorted(range(len(texts)), key=texts.__getitem__))
            return texts

        index = index_table(file, file, self.columns, read, "text", self.options, trained, self.option)
        return replace(index, places=StringArray(places))

    def _read_texts(self, table: Table) -> list[str]:
        cells = table.cells[self.columns.text]
        texts = [clean_text(cell) for cell in cells]
        if changed := sum(text != cell for text, cell in zip(texts, cells, strict=True)):
            table.notes.append(
                f"{table.file}: blanks removed around or Unicode normalized (NFC) in {pluralize(changed, 'text')}"
            )
        return texts


def index_texts(texts: list[str], root: Path) -> Index:
    """Return an index of texts without labels."""
    return Index(root, StringArray(texts), np.full(len(texts), -1), np.full(len(texts), ""), [], unit="text")


def read_files(folder: Path, paths: Iterable[str]) -> list[str]:
    """Return the clean texts of files in UTF-8, UTF-16, GB 18030 or Windows-1252.

    Raises:
        UserError: A file cannot be read or is not a text.
    """
    texts, other = [], []
    for path in paths:
        try:
            text, _, notes = decode_text(folder / path, "save it as plain text in UTF-8")
        except OSError as error:
            raise UserError(f"cannot read {os.fsdecode(folder / path)}: {error.strerror or error}") from error
        texts.append(clean_text(text))
        other += notes
    if other:
        more = f", and {pluralize(len(other) - 1, 'more note')} like this" if len(other) > 1 else ""
        rank_zero_warn(f"{other[0]}{more}")
    return texts
