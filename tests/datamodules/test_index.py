"""Indexing of valid and invalid dataset directories."""

import multiprocessing
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from project.datamodules.images import origin
from project.datamodules.images.dataset import Images
from project.datamodules.index import ImageIndex, PathTable, index_tree, index_unlabeled
from project.datamodules.loader import Loader
from project.datamodules.sampler import EpochBatchSampler
from project.errors import UserError
from project.interface import ImageInput
from tests.conftest import write_images


def test_path_table_returns_its_paths() -> None:
    paths = ["a.png", "类/图 1.png", "b/\udcff.jpg", "line\nbreak.png"]
    table = PathTable(paths)
    assert list(table) == paths and table[1:3] == paths[1:3] and len(table) == 4


def test_flat_tree(tree: Path) -> None:
    index = index_tree(tree)
    assert index.class_names == ["blue", "green", "red"]
    assert len(index.paths) == 60 and set(index.splits.tolist()) == {""}
    assert all(path.startswith(index.class_names[label]) for path, label in zip(index.paths, index.labels, strict=True))


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
        (["train/a", "train/b", "test/a"], "is missing class 'b'"),
        (
            ["train/a", "train/b", "val/a", "val/b", "val/extra"],
            "has class 'extra'",
        ),
        (["train/a", "test/a", "other/a"], "also other"),
        (["train/a", "train/b", "val/a", "valid/a"], "train and val and also valid"),
        (["val/a", "val/b", "test/a", "test/b"], "no train"),
    ],
)
def test_invalid_trees(tmp_path: Path, make: list[str], message: str) -> None:
    for folder in make:
        if folder.endswith("/"):
            (tmp_path / folder).mkdir()
        else:
            write_images(tmp_path / folder, 2, (9, 9, 9))
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
    assert index.class_names == ["a", "b"]
    assert [index.paths[index.rows(split)[0]] for split in ("train", "val", "test")] == [
        "Train/a/000.png",
        "validation/a/000.png",
        "Testing/a/000.png",
    ]


def test_classes_must_match_the_trained_model(tree: Path) -> None:
    with pytest.raises(UserError, match="is missing class 'yellow', which the trained model has"):
        index_tree(tree, ["blue", "green", "red", "yellow"])
    assert index_tree(tree, ["red", "green", "blue"]).class_names == ["red", "green", "blue"]


def test_missing_folder_and_file_instead_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        index_tree(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a folder"):
        index_tree(tmp_path / "file")


def test_unlabeled_folder_and_single_image(tree: Path, tmp_path: Path) -> None:
    assert len(index_unlabeled(tree).paths) == 60
    one = index_unlabeled(tree / "red" / "000.png")
    assert list(one.paths) == ["000.png"] and one.labels.tolist() == [-1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        index_unlabeled(tmp_path / "empty")


def test_index_of_a_large_tree_is_cached_until_it_changes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "LARGE", 10)
    monkeypatch.setattr(origin, "SETTLED", -(10**12))  # changes in this test are not older
    scans: list[Path] = []
    scan = index_tree
    monkeypatch.setattr(origin, "index_tree", lambda root, *more: scans.append(root) or scan(root, *more))

    def indexed() -> ImageIndex:
        return origin.cached_index_tree(tree, None, tmp_path / "cache")

    first, second = indexed(), indexed()
    assert len(scans) == 1 and first.fingerprint() == second.fingerprint() and list(first.paths) == list(second.paths)
    (tree / "red" / "deep").mkdir()
    shutil.copy(tree / "red" / "000.png", tree / "red" / "deep" / "new.png")
    assert len(indexed().paths) == 61 and len(scans) == 2
    (cached,) = (tmp_path / "cache").glob("*.npz")
    for damaged in (cached.read_bytes()[:1000], b""):
        cached.write_bytes(damaged)
        assert len(indexed().paths) == 61
    assert len(scans) == 4
    (tree / "red" / "deep" / "new.png").rename(tree / "red" / "deep" / "newer.png")
    assert "red/deep/newer.png" in list(indexed().paths) and len(scans) == 5
    (tree / "red").rename(tree / "violet")
    assert indexed().class_names == ["blue", "green", "violet"] and len(scans) == 6
    indexed()
    assert len(scans) == 6


@pytest.mark.slow
def test_workers_share_the_index(tmp_path: Path) -> None:
    """The private memory of a worker stays small and constant over an epoch of a large index."""
    for name in ("a", "b"):
        write_images(tmp_path / "images" / name, 2, (9, 9, 9), size=4)
    small = index_tree(tmp_path / "images")
    paths = PathTable(f"{'a' if row % 2 else 'b'}/{row % 4 // 2:03d}.png" for row in range(1_000_000))
    labels = np.zeros(len(paths), np.int64)
    index = ImageIndex(small.root, paths, labels, np.full(len(paths), "train"), small.class_names)
    images = Images(index, np.arange(len(paths)), ImageInput(4, 4))
    loader = Loader(
        images, EpochBatchSampler(len(paths), 500, "reshuffled each epoch"), num_workers=1, pin_memory=False
    )
    private = []
    for number, _ in enumerate(loader):
        if number % 20 == 10:
            worker = multiprocessing.active_children()[0]
            rollup = Path(f"/proc/{worker.pid}/smaps_rollup").read_text()
            private.append(int(re.search(r"Private_Dirty:\s+(\d+)", rollup)[1]) / 1000)  # type: ignore[index]
        if number == 100:
            break
    assert private[-1] - private[0] < 20, f"MB over the epoch: {private}"
    assert private[-1] < 150, "a worker has copied the index"
