"""Index of unlabeled images, cache of the index, and classes in their order."""

import multiprocessing
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from project.datamodules.images import origin
from project.datamodules.images.dataset import Images
from project.datamodules.images.index import index_unlabeled
from project.datamodules.index import Index, StringArray
from project.datamodules.labels import sort_classes
from project.datamodules.loader import Loader
from project.datamodules.sampler import EpochBatchSampler
from project.datamodules.tree import index_tree
from project.errors import UserError
from project.interface import ImageInput
from tests.conftest import write_images


def test_path_table_returns_its_paths() -> None:
    paths = ["a.png", "类/图 1.png", "b/\udcff.jpg", "line\nbreak.png"]
    table = StringArray(paths)
    assert list(table) == paths and table[1:3] == paths[1:3] and len(table) == 4


def test_classes_named_by_integers_are_in_the_order_of_the_numbers() -> None:
    assert sort_classes(["10", "2", "-1", "007", "1"]) == ["-1", "1", "2", "007", "10"]
    assert sort_classes(["10", "2", "2a"]) == ["10", "2", "2a"]


def test_unlabeled_folder_and_single_image(tree: Path, tmp_path: Path) -> None:
    assert len(index_unlabeled(tree).keys) == 60
    one = index_unlabeled(tree / "red" / "000.png")
    assert list(one.keys) == ["000.png"] and one.labels.tolist() == [-1]
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

    def indexed() -> Index:
        return origin.cached_index_tree(tree, None, tmp_path / "cache")

    (tree / "read.me").touch()
    first, second = indexed(), indexed()
    assert first.skipped == second.skipped == {".me": 1}
    assert len(scans) == 1 and first.fingerprint() == second.fingerprint() and list(first.keys) == list(second.keys)
    (tree / "red" / "deep").mkdir()
    shutil.copy(tree / "red" / "000.png", tree / "red" / "deep" / "new.png")
    assert len(indexed().keys) == 61 and len(scans) == 2
    (cached,) = (tmp_path / "cache").glob("*.npz")
    for damaged in (cached.read_bytes()[:1000], b""):
        cached.write_bytes(damaged)
        assert len(indexed().keys) == 61
    assert len(scans) == 4
    (tree / "red" / "deep" / "new.png").rename(tree / "red" / "deep" / "newer.png")
    assert "red/deep/newer.png" in list(indexed().keys) and len(scans) == 5
    (tree / "red").rename(tree / "violet")
    assert indexed().names == ["blue", "green", "violet"] and len(scans) == 6
    indexed()
    assert len(scans) == 6
    (tree / "violet").rename(tree / "pink")
    origin.cached_index_tree(tree, ["yellow", "pink", "green", "blue"], tmp_path / "cache")
    assert indexed().names == ["blue", "green", "pink"]  # not those of a trained model


@pytest.mark.slow
def test_workers_share_the_index(tmp_path: Path) -> None:
    """The private memory of a worker stays small and constant over an epoch of a large index."""
    for name in ("a", "b"):
        write_images(tmp_path / "images" / name, 2, (9, 9, 9), size=4)
    small = index_tree(tmp_path / "images")
    paths = StringArray(f"{'a' if row % 2 else 'b'}/{row % 4 // 2:03d}.png" for row in range(1_000_000))
    labels = np.zeros(len(paths), np.int64)
    index = Index(small.root, paths, labels, np.full(len(paths), "train"), small.names)
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
