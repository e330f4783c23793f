"""Index of the files in a folder tree: ROOT/CLASS, ROOT/SPLIT/CLASS or ROOT/CLASS/SPLIT."""

import os
from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from project.datamodules.index import (
    SPLIT_FOLDERS,
    Index,
    StringArray,
    check_folder,
    normalize_name,
)
from project.datamodules.labels import check_classes, sort_classes
from project.errors import UserError
from project.files import find_files
from project.images import describe_skipped
from project.images.find import readable_extensions
from project.interface import SPLITS, Split
from project.output import pluralize

SplitFolders = dict[Split | Literal[""], str]


class FileKind(NamedTuple):
    """Files that are the samples of a dataset."""

    unit: str  # singular noun, e.g. "image"
    extensions: tuple[str, ...]  # in lower case


class LabeledFile(NamedTuple):
    """A file of a tree."""

    path: str  # POSIX, relative to the root
    split: str  # "" without a split yet
    class_name: str


def index_tree(
    root: Path,
    class_names: list[str] | None = None,
    visited: list[str] | None = None,
    samples: "FileKind | None" = None,
) -> Index:
    """Index ROOT/CLASS/..., ROOT/SPLIT/CLASS/... or ROOT/CLASS/SPLIT/...

    A test folder without class folders is left out, and its files are counted in `Index.skipped`, as are all
    files outside of class folders.

    Args:
        root: The dataset directory.
        class_names: Classes of the trained model; by default, those of the train split. Some may have no samples.
        visited: A list to which every folder visited is appended.
        samples: What the files are; by default, images.

    Raises:
        UserError: The tree has another form, or a class to train on has no samples.
    """
    samples = samples or FileKind("image", readable_extensions())
    skipped: Counter[str] = Counter()
    visited = [] if visited is None else visited
    folder_of = _split_folders(root, _subfolders(check_folder(root)))
    known = {normalize_name(name) for name in class_names or _subfolders(root / folder_of.get("train", ""))}
    files: list[LabeledFile] = []
    for split, folder in folder_of.items():
        names = _subfolders(root / folder)
        if split in ("val", "test") and (not names or (len(names) == 1 and normalize_name(names[0]) not in known)):
            _leave_out(root / folder, split, samples, skipped, visited)
            continue
        _count_files(root / folder, samples, skipped, visited)
        needed = split in ("", "train") and class_names is None
        files += _files(root, folder, split, needed, samples, skipped, visited)
    if "" not in folder_of:
        _count_files(root, samples, skipped, visited)
    else:
        files = _inside_out(root, files, samples.unit)
    return _index(root, files, class_names, samples.unit, skipped)


def _split_folders(root: Path, folders: list[str]) -> SplitFolders:
    """Return the folder of each split, in the order of the splits; {"": ""} if the folders are classes."""
    candidates = {split: [name for name in folders if SPLIT_FOLDERS.get(name.lower()) == split] for split in SPLITS}
    folder_of: SplitFolders = {split: names[0] for split, names in candidates.items() if names}
    extra = sorted(set(folders) - set(folder_of.values()))
    train_is_class = list(folder_of) == ["train"] and not _subfolders(root / folder_of["train"])
    if "train" in folder_of and extra and not train_is_class:
        both = f"{' and '.join(folder_of.values())} and also {', '.join(extra)}"
        raise UserError(f"{root} has {both}: with splits, expected one folder each for train, val and test only")
    return {"": ""} if extra or train_is_class or not folder_of else folder_of


def _leave_out(folder: Path, split: str, samples: FileKind, skipped: Counter[str], visited: list[str]) -> None:
    """Count the files of a test folder without class folders; raise a UserError if it is a val folder."""
    count = sum(1 for _ in find_files(folder, samples.extensions, visited, skipped))
    if count and split == "val":
        fix = f"sort them into {folder / 'CLASS'}, or move them away to have val split off from train"
        raise UserError(f"{folder} has {pluralize(count, samples.unit)} but no class folders to validate on: {fix}")
    if count:
        command = f"`train.py predict --ckpt_path best --data.root {folder}`"
        skipped[f"{samples.unit}s in {folder}, which has no class folders to test on: predict them with {command}"] += (
            count
        )


def _files(
    root: Path,
    folder: str,
    split: str,
    needed: bool,
    samples: FileKind,
    skipped: Counter[str],
    visited: list[str],
) -> list[LabeledFile]:
    """Return the samples in the class folders of a split; `needed` if classes without samples are an error."""
    files: list[LabeledFile] = []
    folder_of: dict[str, str] = {}
    for name in _subfolders(root / folder):
        class_name, class_folder = normalize_name(name), root / folder / name
        if class_name in folder_of:
            same = f"{folder_of[class_name]!a} and {name!a}"
            raise UserError(f"{root / folder} has the class folders {same}, one name in two Unicode forms: merge them")
        folder_of[class_name], unread = name, Counter[str]()
        members = [
            f"{folder}/{name}/{path}".lstrip("/")
            for path in find_files(class_folder, samples.extensions, visited, unread)
        ]
        if needed and not members:
            others = describe_skipped(unread)
            reason = f"has no {samples.unit}s in {class_folder}{f' ({others})' if others else ''}"
            raise UserError(f"class '{class_name}' {reason}: add some or remove the folder")
        files += [LabeledFile(path, split, class_name) for path in members]
        skipped += unread
    return files


def _inside_out(root: Path, files: list[LabeledFile], unit: str) -> list[LabeledFile]:
    """Return files with the splits of ROOT/CLASS/SPLIT/FILE; unchanged if no class consists of split folders.

    Among others, a folder of such a name is a nested folder, e.g. vehicles/{car,train}.
    """
    parts = [file.path.split("/") for file in files]
    splits = [SPLIT_FOLDERS.get(part[1].lower(), "") if len(part) > 2 else "" for part in parts]
    outside = {file.class_name for file, split in zip(files, splits, strict=True) if not split}
    if outside >= {file.class_name for file in files}:
        return files
    if not all(splits):
        one, other = (files[[bool(split) for split in splits].index(inside)].path for inside in (True, False))
        fix = f"all class folders, or none, must have train, val and test folders for all their {unit}s"
        raise UserError(f"{root}: {one} is in a split folder, {other} is not: {fix}")
    return [file._replace(split=split) for file, split in zip(files, splits, strict=True)]


def _index(
    root: Path, files: list[LabeledFile], class_names: list[str] | None, unit: str, skipped: Counter[str]
) -> Index:
    """Return the index of labeled files; check their classes."""
    present = {(file.split, file.class_name) for file in files}
    given = {split for split, _ in present}
    if given and class_names is None and not {"", "train"} & given:
        both = " and ".join(split for split in SPLITS if split in given)
        raise UserError(f"{root} has {both} but no train folder: add one, or use ROOT/CLASS/{unit.upper()}")
    expected = class_names or sort_classes({name for split, name in present if split in ("", "train")})
    if not files or len(expected) < 2:
        few = f"only one class, '{expected[0]}'" if files and expected else f"no class folders with {unit}s"
        raise UserError(f"{root} has {few}: a classifier needs ROOT/CLASS/{unit.upper()} with at least two classes")
    name_of = {normalize_name(name): name for name in expected}
    for split, name in sorted(present):
        location = f"{root}, {split}," if split else root
        check_classes(location, [name], list(name_of), "the trained model" if class_names else "the train split")
    label_of = {name: label for label, name in enumerate(name_of)}
    paths, splits, names = zip(*sorted(files), strict=True)
    labels = np.array([label_of[name] for name in names], np.int64)
    return Index(root, StringArray(paths), labels, np.array(splits), list(expected), skipped=skipped, unit=unit)


def _count_files(folder: Path, samples: FileKind, skipped: Counter[str], visited: list[str]) -> None:
    """Count the files in a folder that has class or split folders, but not those in its subfolders."""
    visited.append(str(folder))
    for entry in os.scandir(folder):
        if entry.is_file() and not entry.name.startswith("."):
            extension = Path(entry.name).suffix.lower()
            outside = " outside the class folders" if entry.name.lower().endswith(samples.extensions) else ""
            skipped[f"{extension}{outside}"] += 1


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
