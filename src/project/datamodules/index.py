"""Which images there are: a folder tree, or a table of paths and labels, as compact arrays."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from project.datamodules.images.masks import Masks
from project.errors import UserError
from project.files import read_table
from project.images import EXTENSIONS, find_images
from project.interface import SPLITS, Split

SPLIT_FOLDERS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}  # what folders of splits are called, in whatever case


class PathTable(Sequence[str]):
    """Many paths in two arrays: a worker process shares them, where a list of strings would be copied page by page."""

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self.ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)  # of each, in all characters in a row
        self.characters = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        start = 0 if row == 0 else self.ends[row - 1]
        return os.fsdecode(self.characters[start : self.ends[row]].tobytes())

    def digest(self) -> bytes:
        """Return 8 bytes that stand for all paths in their order."""
        return hashlib.blake2b(self.characters.tobytes() + self.ends.tobytes(), digest_size=8).digest()


@dataclass(frozen=True)
class ImageIndex:
    """Every image of a data set, in the order of its relative path."""

    root: Path
    paths: PathTable  # POSIX, relative to the root
    labels: NDArray[np.int64]  # (N,), -1 where there is no label
    splits: NDArray[np.str_]  # (N,); empty where it is still to be drawn, skip where it cannot be read
    class_names: list[str]  # sorted; the position is the label
    groups: NDArray[np.str_] | None = None  # (N,), where images of a group must not be torn apart
    balance: NDArray[np.str_] | None = None  # (N,), what training is to see evenly besides the classes
    masks: Masks | None = None  # regions to be hidden as images are read

    def hide(self, image: Tensor, row: int) -> Tensor:
        """Return an image, uint8 (3, H, W), upright and as large as it was found, without what nobody is to see."""
        return image if self.masks is None else self.masks.hide(image, self.paths[row])

    def rows(self, split: Split | Literal["", "skip"]) -> NDArray[np.int64]:
        """Return the rows of one split, int64, ascending."""
        return np.flatnonzero(self.splits == split)

    def strata(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """What balanced sampling draws equally often, int64: the class of each row, or its pair of class and entry."""
        if self.balance is None:
            return self.labels[rows]
        entry = np.unique(self.balance[rows], return_inverse=True)[1]
        return np.asarray(entry, np.int64) * len(self.class_names) + self.labels[rows]

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change when a path, a label, a split or a class name does."""
        digest = hashlib.blake2b(self.paths.digest(), digest_size=8)
        digest.update(self.labels.tobytes() + np.char.encode(self.splits).tobytes())
        digest.update(os.fsencode("\0".join(self.class_names)))
        return digest.hexdigest()


def index_unlabeled(root: Path) -> ImageIndex:
    """Index every image below a folder, or one image file, without labels; a UserError if there is none."""
    if root.is_file():
        root, paths = root.parent, [root.name]
    else:
        paths = sorted(find_images(_folder(root)))
    if not paths:
        raise UserError(f"{root} has no images ({', '.join(EXTENSIONS)})")
    return ImageIndex(root, PathTable(paths), np.full(len(paths), -1), np.full(len(paths), ""), [])


def index_tree(root: Path, class_names: list[str] | None = None, visited: list[str] | None = None) -> ImageIndex:
    """Index ROOT/CLASS/... or ROOT/SPLIT/CLASS/... by the classes given, or found; `visited` takes each folder seen."""
    tops = _subfolders(_folder(root))
    folder_of = _split_folders(root, tops)
    if not {"", "train"} & {*folder_of} and class_names is None:
        raise UserError(f"{root} has {' and '.join(folder_of)} but no train folder: add one, or give ROOT/CLASS/IMAGE")
    known = class_names or _subfolders(root / folder_of.get("train", ""))
    label_of = {name: label for label, name in enumerate(known)}
    found: list[tuple[str, str, int]] = []  # path, split and label of each
    if visited is not None:
        visited += map(str, [root, *(root / top for top in folder_of.values() if top)])
    for split, top in folder_of.items():
        where = root / top
        names = _subfolders(where) if top else tops
        check_classes(where, names, known, "the model was trained on" if class_names else "train has")
        for name in names:
            inside = [f"{top}/{name}/{path}".lstrip("/") for path in find_images(where / name, visited)]
            if not inside:
                raise UserError(f"class '{name}' has no images in {where / name}: add some or remove the folder")
            found += [(path, split, label_of[name]) for path in inside]
    if len(known) < 2:
        one = f"only one class, '{known[0]}'" if known else "no class folders"
        raise UserError(f"{root} has {one}: a classifier needs ROOT/CLASS/IMAGE with at least two classes")
    paths, splits, labels = zip(*sorted(found), strict=True)
    return ImageIndex(root, PathTable(paths), np.array(labels, np.int64), np.array(splits), list(known))


def _split_folders(root: Path, tops: list[str]) -> dict[Split | Literal[""], str]:
    """Return the folder of each split among these, in the order of the splits; {"": ""} where they are classes."""
    found = {split: [top for top in tops if SPLIT_FOLDERS.get(top.lower()) == split] for split in SPLITS}
    folder_of: dict[Split | Literal[""], str] = {split: tops[0] for split, tops in found.items() if tops}
    extra = sorted(set(tops) - set(folder_of.values()))
    alone = list(folder_of) == ["train"] and not _subfolders(root / folder_of["train"])  # a class of that name
    if "train" in folder_of and extra and not alone:
        both = f"{' and '.join(folder_of.values())} and also {', '.join(extra)}"
        raise UserError(
            f"{root} has {both}: a split tree holds one folder each of train, val and test, and nothing else"
        )
    return {"": ""} if extra or alone or not folder_of else folder_of


def index_table(
    table: Path, root: Path, group: str | None, class_names: list[str] | None = None, balance: str | None = None
) -> ImageIndex:
    """Index the images that a CSV lists: columns path (relative to `root`) and label, and, optionally, split.

    The column `group` says which images belong together (an empty cell: it stands alone), the column `balance` what
    training is to see evenly besides the classes.
    """
    rows = read_table(table, ["path", "label", *filter(None, (group, balance))])
    if not rows:
        raise UserError(f"{table} lists no images: it needs a row for each")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        path, split, wrong = row["path"], row.get("split", ""), ""
        if not path or not row["label"]:
            wrong = f"{path} has no label" if path else "no path"
        elif split and split.lower() not in SPLIT_FOLDERS:
            wrong = f"split is '{split}'; it can be train, val, test or empty"
        elif (plain := os.path.normpath(path)) in seen:
            wrong = f"{path} is listed twice"
        elif not (root / path).is_file():
            wrong = f"no such image: {root / path}"
        if wrong:
            raise UserError(f"{table}, line {number}: {wrong}")
        row["split"] = SPLIT_FOLDERS[split.lower()] if split else ""
        seen.add(plain)
    found = sorted({row["label"] for row in rows})
    check_classes(table, found, class_names or found, "the model was trained on")
    if len(found) < 2:
        raise UserError(f"{table} has only one class, '{found[0]}': a classifier needs at least two")
    rows.sort(key=lambda row: row["path"])
    label_of = {name: label for label, name in enumerate(class_names or found)}
    splits = np.array([row["split"] for row in rows])
    if not {"train", ""} & {*splits.tolist()} and class_names is None:
        raise UserError(f"{table} names splits, but none of them is train")
    return ImageIndex(
        root,
        PathTable(row["path"] for row in rows),
        np.array([label_of[row["label"]] for row in rows]),
        splits,
        list(label_of),
        np.array([row[group] or f"alone: {row['path']}" for row in rows]) if group else None,
        np.array([row[balance] for row in rows]) if balance else None,
    )


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise UserError(f"not a folder: {root}" if root.exists() else f"no such folder: {root}")
    return root


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def check_classes(where: Path, names: list[str], known: list[str], holder: str) -> None:
    """Raise a UserError that names what is missing or extra, unless the class names found are those known."""
    if missing := sorted(set(known) - set(names)):
        raise UserError(f"{where} lacks class {', '.join(map(repr, missing))}, which {holder}")
    if extra := sorted(set(names) - set(known)):
        raise UserError(f"{where} has class {', '.join(map(repr, extra))}, which is not among those that {holder}")
