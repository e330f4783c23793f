"""Made tables of texts."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from project.datamodules.texts import TextDataModule

WORDS = {"pos": ["good", "great", "lovely", "best"], "neg": ["bad", "awful", "poor", "worst"]}
FILLER = ["the", "a", "film", "plot", "music", "it", "was", "saw", "really", "with", "and", "movie", "yesterday"]
FIT = [
    *("fit", "--data", "project.datamodules.texts.TextDataModule"),
    *("--model.net", "project.modules.networks.texts.ByteNet", "--trainer.accelerator", "cpu"),
    *("--trainer.precision", "32-true", "--data.batch_size", "8", "--trainer.max_epochs", "2"),
]


def reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return different texts of different lengths, and their classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = ("pos", "neg")[number % 2]
        words = [*rng.choice(FILLER, 3 + int(rng.integers(20))), *rng.choice(WORDS[label], 2), f"number{number}"]
        rows.append((" ".join(words), label))
    return rows


def write(file: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ("text", "label")) -> Path:
    """Write a table in the format of its extension."""
    if file.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
        file.write_text("\n".join(lines) + "\n")
    elif file.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        columns = {name: [row[number] for row in rows] for number, name in enumerate(header)}
        parquet.write_table(pyarrow.table(columns), file)
    else:
        with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            csv.writer(stream).writerows([header, *rows])
    return file


def set_up(table: Path, **options: object) -> TextDataModule:
    """Return the datamodule of a table or a folder, ready to train."""
    place = {"root": str(table)} if table.is_dir() else {"table": str(table)}
    datamodule = TextDataModule(**place, **options)  # type: ignore[arg-type]
    datamodule.setup("fit")
    return datamodule
