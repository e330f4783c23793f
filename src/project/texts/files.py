"""Texts of a folder, a file or a table, and batches of them for exported models. Does not import torch."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from project.errors import UserError
from project.files import find_files
from project.interface import Source
from project.output import pluralize
from project.tables import Table, decode_text, load_table
from project.texts.input import TextInput, clean_text

EXTENSIONS = (".txt",)
BATCH_SIZE = 64


def read_texts(place: Path, column: str, option: str) -> tuple[list[str], list[str]]:
    """Return texts in their order, and sentences about what was changed or not read.

    Args:
        place: A folder, whose .txt files are found recursively, a .txt file or a table.
        column: Column of the table.
        option: The option that names the column, for error messages.

    Raises:
        UserError: There are no texts, or a file cannot be read.
    """
    if place.is_dir():
        skipped: Counter[str] = Counter()
        texts, notes = read_files(place, sorted(find_files(place, EXTENSIONS, skipped=skipped)))
        if not texts:
            raise UserError(f"no texts in {place}: expected files *.txt, or a table")
        if not skipped:
            return texts, notes
        from project.images import describe_skipped

        return texts, [*notes, describe_skipped(skipped)]
    if place.suffix.lower() in EXTENSIONS:
        return read_files(place.parent, [place.name])
    table = load_table(place, {column: option})
    return clean_cells(table, column), table.notes


def clean_cells(table: Table, column: str) -> list[str]:
    """Return the clean texts of a column of a table; the number of changed ones is added to its notes."""
    cells = table.cells[column]
    texts = [clean_text(cell) for cell in cells]
    if changed := sum(text != cell for text, cell in zip(texts, cells, strict=True)):
        table.notes.append(
            f"{table.file}: blanks removed around or Unicode normalized (NFC) in {pluralize(changed, 'text')}"
        )
    return texts


def read_files(folder: Path, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the clean texts of files in UTF-8, UTF-16, GB 18030 or Windows-1252, and a sentence about encodings.

    Raises:
        UserError: A file cannot be read or is not a text.
    """
    texts, notes = [], []
    for path in paths:
        try:
            text, _, other = decode_text(folder / path, "save it as plain text in UTF-8")
        except OSError as error:
            raise UserError(f"cannot read {os.fsdecode(folder / path)}: {error.strerror or error}") from error
        texts.append(clean_text(text))
        notes += other
    more = f", and {pluralize(len(notes) - 1, 'more note')} like this" if len(notes) > 1 else ""
    return texts, [f"{note}{more}" for note in notes[:1]]


def text_batches(inputs: TextInput, source: Source, notes: Counter[str]) -> Iterator[tuple[list[str], NDArray[Any]]]:
    """Return batches of texts in their order: the texts, and raw inputs.

    Args:
        inputs: How texts become inputs.
        source: A text, a table, or a folder or file as for `read_texts`.
        notes: Counts empty texts and those that are cut.

    Raises:
        UserError: There are no texts, or a file or table cannot be read.
    """
    if source.text is not None:
        return _batches(inputs, [clean_text(source.text)], notes)
    place = source.table or source.path
    assert place is not None
    if source.path is not None and not place.exists():
        raise UserError(f'no such folder or file: {place}; to predict a text, use --text "TEXT"')
    texts, sentences = read_texts(place, source.columns.get("text", "text"), "--columns.text")
    for sentence in sentences:
        print(sentence)
    return _batches(inputs, texts, notes)


def _batches(inputs: TextInput, texts: list[str], notes: Counter[str]) -> Iterator[tuple[list[str], NDArray[Any]]]:
    for start in range(0, len(texts), BATCH_SIZE):
        batch = texts[start : start + BATCH_SIZE]
        samples = [inputs.read(os.fsencode(text)) for text in batch]
        notes["empty"] += sum(not text for text in batch)
        notes[f"cut, as the model reads {inputs}"] += sum(map(inputs.is_cut, batch))
        yield batch, inputs.stack(samples)
