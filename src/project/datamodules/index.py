"""Which images there are: a folder tree as compact arrays."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from project.datamodules.masks import Masks
from project.errors import UserError
from project.images import EXTENSIONS, find_images
from project.interface import SPLITS, Split

SPLIT_FOLDERS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What folders of splits are called, in whatever case."""


class PathTable(Sequence[str]):
    """Many paths in two arrays: a worker process shares them, where a list of strings would be copied page by page."""

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    @classmethod
    def from_arrays(cls, characters: NDArray[np.uint8], ends: NDArray[np.int64]) -> "PathTable":
        """The table that `arrays` was taken from."""
        table = cls([])
        table._bytes, table._ends = characters, ends
        return table

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """All paths in a row as bytes, and where each ends."""
        return self._bytes, self._ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        start = 0 if row == 0 else self._ends[row - 1]
        return os.fsdecode(self._bytes[start : self._ends[row]].tobytes())

    def digest(self) -> bytes:
        """Stands for all paths in their order."""
        return hashlib.blake2b(self._bytes.tobytes() + self._ends.tobytes(), digest_size=8).digest()


@dataclass(frozen=True)
class ImageIndex:
    """Every image of a data set, in the order of its relative path.

    Attributes:
        root: The folder that the paths are relative to.
        paths: POSIX paths relative to `root`.
        labels: int64 (N,), -1 where there is no label.
        splits: The split of each image, str (N,); empty where it is still to be drawn, skip where it cannot be read.
        class_names: Sorted; the position is the label.
        groups: What each image belongs to, str (N,), where images of a group must not be torn apart; None otherwise.
        balance: What training is to see evenly besides the classes, str (N,); None for nothing.
        masks: Regions to be hidden as images are read; None for none.
    """

    root: Path
    paths: PathTable
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]
    class_names: list[str]
    groups: NDArray[np.str_] | None = None
    balance: NDArray[np.str_] | None = None
    masks: Masks | None = None

    def hide(self, image: Tensor, row: int) -> Tensor:
        """An image, uint8 (3, H, W), upright and as large as it was found, without what nobody is to see."""
        return image if self.masks is None else self.masks.hide(image, self.paths[row])

    def rows(self, split: Split | Literal["", "skip"]) -> NDArray[np.int64]:
        """Rows of one split, int64, ascending."""
        return np.flatnonzero(self.splits == split)

    def strata(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """What balanced sampling draws equally often, int64: the class of each row, or its pair of class and entry."""
        if self.balance is None:
            return self.labels[rows]
        entry = np.unique(self.balance[rows], return_inverse=True)[1]
        return np.asarray(entry, np.int64) * len(self.class_names) + self.labels[rows]

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when a path, a label, a split or a class name does."""
        digest = hashlib.blake2b(self.paths.digest(), digest_size=8)
        digest.update(self.labels.tobytes() + np.char.encode(self.splits).tobytes())
        digest.update(os.fsencode("\0".join(self.class_names)))
        return digest.hexdigest()


def index_unlabelled(root: Path) -> ImageIndex:
    """Every image below a folder, or one image file, without labels.

    Raises:
        UserError: nothing there.
    """
    if root.is_file():
        root, paths = root.parent, [root.name]
    else:
        paths = sorted(find_images(_folder(root)))
    if not paths:
        raise UserError(f"{root} has no images ({', '.join(EXTENSIONS)})")
    return ImageIndex(root, PathTable(paths), np.full(len(paths), -1), np.full(len(paths), ""), [])


def index_tree(root: Path, class_names: list[str] | None = None, visited: list[str] | None = None) -> ImageIndex:
    """Index ROOT/CLASS/... or ROOT/{train,val,test}/CLASS/...; see `SPLIT_FOLDERS` for what else these may be called.

    Args:
        root: The folder.
        class_names: The classes that a trained model knows; None to take those found.
        visited: Takes every folder looked into.

    Raises:
        UserError: no such folder, no images, one class only, an empty class, a class that one split has and another
            lacks, two folders for one split, or classes other than the model's.
    """
    tops = _subfolders(_folder(root))
    folder_of = _split_folders(root, tops)
    given = list(folder_of)
    split_tree = bool(given) and set(tops) == set(folder_of.values())
    if split_tree and given == ["train"] and not _subfolders(root / folder_of["train"]):
        split_tree = False
    paths: list[str] = []
    splits: list[str] = []
    labels: list[int] = []
    classes_by_split: dict[Split | Literal[""], list[str]] = {"": tops}
    if split_tree:
        classes_by_split = {split: _subfolders(root / folder) for split, folder in folder_of.items()}
    if split_tree and "train" not in given and class_names is None:
        raise UserError(f"{root} has {' and '.join(given)} but no train folder: add one, or give ROOT/CLASS/IMAGE")
    known = class_names or classes_by_split["train" if split_tree else ""]
    label_of = {name: label for label, name in enumerate(known)}
    if visited is not None:
        visited += [str(root), *(str(root / folder_of[split]) for split in classes_by_split if split)]
    for split, names in classes_by_split.items():
        top = folder_of[split] if split else ""
        where = root / top
        check_classes(where, names, known, "the model was trained on" if class_names else "train has")
        for name in names:
            found = [f"{top}/{name}/{path}".lstrip("/") for path in find_images(where / name, visited)]
            if not found:
                raise UserError(f"class '{name}' has no images in {where / name}: add some or remove the folder")
            paths += found
            splits += [split] * len(found)
            labels += [label_of[name]] * len(found)
    if len(known) < 2:
        one = f"only one class, '{known[0]}'" if known else "no class folders"
        raise UserError(f"{root} has {one}: a classifier needs ROOT/CLASS/IMAGE with at least two classes")
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return ImageIndex(
        root,
        PathTable([paths[i] for i in order]),
        np.array(labels, dtype=np.int64)[order],
        np.array(splits)[order],
        list(known),
    )


def _split_folders(root: Path, tops: list[str]) -> dict[Split, str]:
    """The folder of each split among these, in the order of the splits; none where they are classes."""
    found = {split: [top for top in tops if SPLIT_FOLDERS.get(top.lower()) == split] for split in SPLITS}
    folder_of = {split: tops[0] for split, tops in found.items() if tops}
    extra = sorted(set(tops) - set(folder_of.values()))
    if "train" in folder_of and extra and (len(folder_of) > 1 or _subfolders(root / folder_of["train"])):
        raise UserError(
            f"{root} has {' and '.join(folder_of.values())} and also {', '.join(extra)}: a split tree holds"
            " one folder each of train, val and test, and nothing else"
        )
    return folder_of


def _folder(root: Path) -> Path:
    if not root.exists():
        raise UserError(f"no such folder: {root}")
    if not root.is_dir():
        raise UserError(f"not a folder: {root}")
    return root


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error


def check_classes(where: Path, names: list[str], known: list[str], holder: str) -> None:
    """Insist that the class names found are those known.

    Raises:
        UserError: names what is missing or extra.
    """
    if missing := sorted(set(known) - set(names)):
        raise UserError(f"{where} lacks class {', '.join(map(repr, missing))}, which {holder}")
    if extra := sorted(set(names) - set(known)):
        raise UserError(f"{where} has class {', '.join(map(repr, extra))}, which is not among those that {holder}")
