"""Index of images: those of a table of paths and labels, or unlabeled ones."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from project.datamodules.images.path_matcher import PathMatcher
from project.datamodules.index import Index, StringArray, check_folder
from project.datamodules.labels import DEFAULT_LABELS, LabelOptions
from project.datamodules.table_index import index_table
from project.errors import UserError
from project.images import find_images, no_images
from project.interface import Target
from project.output import pluralize
from project.tables import DEFAULT_COLUMNS, PathColumns, Table, clean


def index_unlabeled(root: Path) -> Index:
    """Index all images below a folder, or a single image file, without labels.

    Raises:
        UserError: there are no images.
    """
    skipped: Counter[str] = Counter()
    if root.is_file():
        root, paths = root.parent, [root.name]
    else:
        paths = sorted(find_images(check_folder(root), skipped=skipped))
    if not paths:
        raise no_images(root, skipped)
    labels, splits = np.full(len(paths), -1), np.full(len(paths), "")
    return Index(root, StringArray(paths), labels, splits, [], skipped=skipped)


def index_image_table(
    file: Path,
    root: Path,
    columns: PathColumns = DEFAULT_COLUMNS,
    options: LabelOptions = DEFAULT_LABELS,
    trained: Target | None = None,
    option: str = "--data.columns",
) -> Index:
    """Index the images listed in a CSV, TSV or Parquet file; paths are relative to `root`, see `index_table`."""
    read_paths = partial(_match_images, column=columns.path, root=root)
    return index_table(file, root, columns, read_paths, "image", options, trained, option)


def _match_images(table: Table, column: str, root: Path) -> list[str]:
    """Return the path of each row's image relative to `root`; raise a UserError for the first invalid row."""
    written = table.cells[column]
    matcher = PathMatcher(lambda: find_images(root), root, table.encoding)
    rows: dict[str, int] = {}  # by path without "./" and "//"
    paths: list[str] = []
    for row, name in enumerate(written):
        path, problem = "", ""
        if not clean(name):
            problem = "no path"
        else:
            try:
                path = matcher.match(name)
            except UserError as error:
                raise table.error(row, str(error)) from error
            if not path:
                problem = f"no such image: {root / name}"
            elif (first := rows.setdefault(os.path.normpath(path), row)) != row:
                problem = f"{path} is listed twice, also in {table.places[first]}"
        if problem:
            raise table.error(row, problem)
        paths.append(path)
    if changed := [row for row, path in enumerate(paths) if path != written[row]]:
        example = f"{written[changed[0]]!r} is {paths[changed[0]]}"
        table.notes.append(f"{table.file}: {pluralize(len(changed), 'path')} matched to files, e.g. {example}")
    return paths
