"""Splits are stratified, seeded, reproducible, and keep given splits."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.datamodules import tree as tree_module
from project.datamodules.split import complete_splits
from project.datamodules.tree import index_tree
from project.errors import UserError
from tests.conftest import write_images


def test_stratified_and_seeded(tree: Path) -> None:
    index = complete_splits(index_tree(tree), 0.1, 0.2, seed=0)
    for label in range(3):
        splits = index.splits[index.labels == label].tolist()
        assert [splits.count(split) for split in ("train", "val", "test")] == [14, 2, 4]
    assert (complete_splits(index_tree(tree), 0.1, 0.2, seed=0).splits == index.splits).all()
    assert (complete_splits(index_tree(tree), 0.1, 0.2, seed=1).splits != index.splits).any()


def test_order_of_files_on_disk_does_not_matter(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = complete_splits(index_tree(tree), 0.1, 0.2, 0)
    find = tree_module.find_files

    def shuffled(folder: Path, *more: Any) -> list[str]:
        found = list(find(folder, *more))
        random.Random(3).shuffle(found)
        return found

    monkeypatch.setattr(tree_module, "find_files", shuffled)
    after = complete_splits(index_tree(tree), 0.1, 0.2, 0)
    assert list(before.keys) == list(after.keys) and (before.splits == after.splits).all()


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (["train", "test"], {"train": 18, "val": 2, "test": 20}),
        (["train", "val"], {"train": 20, "val": 20, "test": 0}),
        (["train", "val", "test"], {"train": 20, "val": 20, "test": 20}),
        (["train"], {"train": 16, "val": 2, "test": 2}),
    ],
)
def test_given_splits_are_kept(tmp_path: Path, given: list[str], sizes: dict[str, int]) -> None:
    for split in given:
        for name in ("a", "b"):
            write_images(tmp_path / split / name, 10, (9, 9, 9))
    index = complete_splits(index_tree(tmp_path), 0.1, 0.1, 0)
    assert {split: int(np.sum(index.splits == split)) for split in sizes} == sizes
    for path, split in zip(index.keys, index.splits, strict=True):
        assert path.startswith("test/") == (split == "test") or given == ["train"]


def test_a_class_too_small_to_split_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 10, (9, 9, 9))
    write_images(tmp_path / "tiny", 2, (9, 9, 9))
    with pytest.raises(UserError, match="class 'tiny'.*2 images"):
        complete_splits(index_tree(tmp_path), 0.1, 0.1, 0)
