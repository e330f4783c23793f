"""Indexing of valid and invalid folder trees."""

import os
import re
from pathlib import Path

import pytest

from project.datamodules.tree import index_tree
from project.errors import UserError
from project.images import describe_skipped
from tests.conftest import write_images


def test_one_folder_named_train_among_others_is_no_split(tmp_path: Path) -> None:
    for folder in ("blue/car", "red/car", "red/train"):
        write_images(tmp_path / folder, 3, (9, 9, 9))
    index = index_tree(tmp_path)
    assert index.names == ["blue", "red"] and set(index.splits.tolist()) == {""} and len(index.keys) == 9


def write(root: Path, *folders: str) -> None:
    """Write two images into each folder; a folder that ends in a slash stays empty."""
    for folder in folders:
        if folder.endswith("/"):
            (root / folder).mkdir(parents=True)
        else:
            write_images(root / folder, 2, (9, 9, 9))


def test_flat_tree(tree: Path) -> None:
    index = index_tree(tree)
    assert index.names == ["blue", "green", "red"]
    assert len(index.keys) == 60 and set(index.splits.tolist()) == {""}
    assert all(path.startswith(index.names[label]) for path, label in zip(index.keys, index.labels, strict=True))


def test_split_tree_with_nested_folders_hidden_files_and_link_loops(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            write_images(tmp_path / split / name / "nested", 3, (9, 9, 9))
    (tmp_path / "train" / "a" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "a" / "._1.png").write_text("x")
    (tmp_path / "train" / "a" / "loop").symlink_to(tmp_path / "train" / "a")
    index = index_tree(tmp_path)
    assert [len(index.rows(split)) for split in ("train", "val", "test")] == [6, 0, 6]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ([], "no class folders"),
        (["a"], "only one class, 'a'"),
        (["a", "b", "c/"], "class 'c' has no images"),
        (["train/a", "train/b", "val/a", "val/b", "val/extra"], "val, has class 'extra', which the train split does"),
        (["train/a", "test/a", "other/a"], "also other"),
        (["train/a", "train/b", "val/a", "valid/a"], "train and val and also valid"),
        (["val/a", "val/b", "test/a", "test/b"], "no train"),
        (["train/a", "train/b", "val"], "val has 2 images but no class folders to validate on: sort them into"),
        (["a/train", "a/test", "b"], "a/test/000.png is in a split folder, b/000.png is not"),
        (["a/train", "b/train", "b/other"], "a/train/000.png is in a split folder, b/other/000.png is not"),
        (["a/train", "b/train", "c/test"], "has class 'c', which the train split does not have"),
        (["a/test", "b/test"], "test but no train folder"),
    ],
)
def test_invalid_trees(tmp_path: Path, make: list[str], message: str) -> None:
    write(tmp_path, *make)
    with pytest.raises(UserError, match=message):
        index_tree(tmp_path)


def test_a_train_folder_next_to_others_is_not_a_class(tmp_path: Path) -> None:
    for folder in ("train", "unlabeled"):
        for name in ("a", "b"):
            write_images(tmp_path / folder / name, 1, (1, 2, 3))
    with pytest.raises(UserError, match="has train and also unlabeled"):
        index_tree(tmp_path)


def test_alternative_split_names(tmp_path: Path) -> None:
    for folder in ("Train", "validation", "Testing"):
        for name in ("a", "b"):
            write_images(tmp_path / folder / name, 3, (9, 9, 9))
    index = index_tree(tmp_path)
    assert index.names == ["a", "b"]
    assert [index.keys[index.rows(split)[0]] for split in ("train", "val", "test")] == [
        "Train/a/000.png",
        "validation/a/000.png",
        "Testing/a/000.png",
    ]


def test_classes_of_a_trained_model_keep_their_order_and_may_be_absent(tree: Path) -> None:
    index = index_tree(tree, ["yellow", "red", "green", "blue"])
    assert index.names == ["yellow", "red", "green", "blue"]
    assert {path.split("/")[0]: label for path, label in zip(index.keys, index.labels.tolist(), strict=True)} == {
        "red": 1,
        "green": 2,
        "blue": 3,
    }
    with pytest.raises(UserError, match="has class 'blue', which the trained model does not have"):
        index_tree(tree, ["green", "red"])


def test_split_folders_in_class_folders(tmp_path: Path) -> None:
    write(tmp_path, "2/train", "2/test", "10/Training", "10/train", "10/test/deeper", "10/valid")
    index = index_tree(tmp_path)
    assert index.names == ["2", "10"]
    assert [len(index.rows(split)) for split in ("train", "val", "test", "")] == [6, 2, 4, 0]
    assert {index.keys[row].split("/")[0] for row in index.rows("test")} == {"2", "10"}


def test_a_test_folder_without_class_folders_is_counted_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, "train/a", "train/b", "test/images")
    write_images(tmp_path / "test", 3, (9, 9, 9))
    index = index_tree(tmp_path)
    assert {path.split("/")[0] for path in index.keys} == {"train"}
    (told,) = index.skipped
    assert index.skipped[told] == 5 and f"train.py predict --ckpt_path best --data.root {tmp_path}/test" in told


def test_a_class_may_be_absent_from_val_and_test(tmp_path: Path) -> None:
    write(tmp_path, "train/a", "train/b", "train/c", "val/a", "val/b", "val/c/", "test/b")
    index = index_tree(tmp_path)
    assert [sorted(set(index.labels[index.rows(split)].tolist())) for split in ("val", "test")] == [[0, 1], [1]]


def test_class_folders_in_two_unicode_forms(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write(tmp_path, f"train/{composed}", "train/tea", f"test/{decomposed}", "test/tea")
    index = index_tree(tmp_path)
    assert index.names == [composed, "tea"] and len(index.rows("test")) == 4
    assert index_tree(tmp_path, [decomposed, "tea"]).names == [decomposed, "tea"]
    write(tmp_path, f"train/{decomposed}")
    with pytest.raises(UserError, match=re.escape(r"class folders 'cafe\u0301' and 'caf\xe9', one name in two")):
        index_tree(tmp_path)


def test_class_names_in_any_script_and_in_invalid_utf8(tmp_path: Path) -> None:
    names = ["\U0001f600", "\U00020bb7", os.fsdecode(b"caf\xe9")]
    write(tmp_path, *names)
    index = index_tree(tmp_path)
    assert index.names == sorted(names) and len(index.keys) == 6


def test_files_that_are_not_read_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "train/a", "train/b/nested")
    for name in ("train/a/1.txt", "train/b/nested/2.txt", "train/0.PNG", "read.me", "train/a/.hidden"):
        (tmp_path / name).write_text("x")
    told = describe_skipped(index_tree(tmp_path).skipped)
    assert told == "skipped: 2 .txt, 1 .me, 1 .png outside the class folders"


def test_missing_folder_and_file_instead_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        index_tree(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a folder"):
        index_tree(tmp_path / "file")
