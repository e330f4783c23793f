"""Built-in datasets: written once, atomically."""

import functools
import http.server
import multiprocessing
import pickle
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from project.datamodules import CIFAR10, DatasetBuilder, Digits
from project.datamodules.tree import index_tree
from project.errors import UserError


def _prepare(cache: Path) -> None:
    Digits().prepare(cache)


@pytest.mark.slow
def test_digits_are_written_once_by_several_processes(tmp_path: Path) -> None:
    workers = [multiprocessing.Process(target=_prepare, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    index = index_tree(tmp_path / "digits")
    assert len(index.keys) == 1797 and len(index.names) == 10
    assert not list(tmp_path.glob(".*.partial"))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    class Broken(DatasetBuilder):
        def write(self, folder: Path) -> None:
            (folder / "incomplete").mkdir()
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Broken().prepare(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == [".broken.lock"]


def test_cifar10_without_network_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(UserError, match="cannot download CIFAR-10.*--data.root"):
        CIFAR10().prepare(tmp_path)
    assert not (tmp_path / "cifar10").exists()


def test_cifar10_is_written_as_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    names = [name for name, _ in (*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list)]
    for name in names:
        pixels = np.random.default_rng(0).integers(0, 255, (10, 3072), dtype=np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": pixels, "labels": list(range(10))}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}))
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        archive.add(base, base.name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/c.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", None)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [(name, None) for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [(names[5], None)])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    index = index_tree(CIFAR10().prepare(tmp_path / "cache"))
    assert (len(index.rows("train")), len(index.rows("test"))) == (50, 10)
    assert index.names == [f"class{i}" for i in range(10)]
    server.shutdown()
