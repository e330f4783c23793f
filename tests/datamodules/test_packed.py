"""Packed pixels: equal to those of the files, written once and atomically."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from project.datamodules.images.dataset import Images
from project.datamodules.images.packed import decode_all
from project.datamodules.sampler import Request
from project.datamodules.tree import index_tree
from project.errors import UserError
from project.images import to_pixels
from project.interface import ImageInput
from tests.conftest import COLORS, write_images

SMALL = ImageInput(8, 8)


def test_packed_pixels_match_the_files(tree: Path, tmp_path: Path) -> None:
    index = index_tree(tree)
    decoded = decode_all(index, SMALL, [], 1e9, tmp_path / "packed")
    assert decoded.facts.errors == {} and decoded.pixels is not None and decoded.pixels.shape == (60, 8, 8, 3)
    rows = np.arange(60)[::-1].copy()
    packed = Images(index, rows, SMALL, pixels=decoded.pixels)[Request(0, [3, 50, 7])]
    plain = Images(index, rows, SMALL)[Request(0, [3, 50, 7])]
    assert torch.equal(packed.inputs, plain.inputs) and torch.equal(packed.target, plain.target)
    assert packed.inputs.is_contiguous(memory_format=torch.channels_last) and packed.index.tolist() == [56, 9, 52]
    assert torch.equal(packed.inputs[0], torch.from_numpy(SMALL.read(tree / index.keys[56])))


def test_packed_again_only_when_a_file_or_transform_changes(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    index = index_tree(tree)

    def new_files(size: int = 8, transforms: tuple[nn.Module, ...] = ()) -> set[Path]:
        before = set(folder.glob("*.npy"))
        decode_all(index, ImageInput(size, size), transforms, 1e9, folder)
        return set(folder.glob("*.npy")) - before

    assert len(new_files()) == 1 and not new_files()
    assert len(new_files(size=9)) == 1
    assert len(new_files(transforms=(nn.Identity(),))) == 1
    os.utime(tree / "red" / "003.png", ns=(1, 1))
    assert len(new_files()) == 1 and not new_files()


def test_files_unused_for_a_week_are_deleted_when_new_ones_are_written(tree: Path, tmp_path: Path) -> None:
    folder, index = tmp_path / "packed", index_tree(tree)
    held = decode_all(index, SMALL, [], 1e9, folder).pixels
    old = set(folder.glob("[!.]*"))
    for file in old:
        os.utime(file, (time.time() - 8 * 24 * 3600,) * 2)
    decode_all(index, SMALL, [], 1e9, folder)
    assert set(folder.glob("[!.]*")) == old, "nothing new was written"
    write_images(tree / "red" / "more", 1, COLORS["red"])
    decode_all(index_tree(tree), SMALL, [], 1e9, folder)
    assert old < set(folder.iterdir()), "they were used just now"
    for file in old:
        os.utime(file, (time.time() - 8 * 24 * 3600,) * 2)
    decode_all(index_tree(tree), ImageInput(9, 9), [], 1e9, folder)
    assert not old & set(folder.iterdir())
    expected = Images(index, np.arange(60), SMALL)[Request(0, list(range(60)))].inputs.permute(0, 2, 3, 1)
    assert held is not None and np.array_equal(held, expected), "an open memory map stays valid"


def test_unreadable_files_are_cached(tree: Path, tmp_path: Path) -> None:
    (tree / "green" / "000.png").write_bytes(b"GIF89a")
    index = index_tree(tree)
    row = list(index.keys).index("green/000.png")
    for limit in (0, 1e9, 0):
        assert set(decode_all(index, SMALL, [], limit, tmp_path / "packed").facts.errors) == {row}


def test_a_full_disk_is_a_user_error_and_leaves_no_files(tree: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted on this machine")
    try:
        with pytest.raises(UserError, match="the disk is full: packing the images needs"):
            decode_all(index_tree(tree), ImageInput(32, 32), [], 1e9, disk)
        assert not [item for item in disk.iterdir() if item.suffix != ".lock"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_killed_while_packing_then_packed_by_two_processes(tmp_path: Path) -> None:
    for name, color in COLORS.items():
        write_images(tmp_path / "images" / name, 400, color, size=64)
    script = (
        "import sys; from pathlib import Path; from project.datamodules.tree import index_tree;"
        "from project.datamodules.images.packed import decode_all; from project.interface import ImageInput;"
        "index, inputs = index_tree(Path(sys.argv[1])), ImageInput(64, 64);"
        "print(decode_all(index, inputs, [], 1e9, Path(sys.argv[2])).pixels.sum())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "images"), str(tmp_path / "packed")]
    killed = subprocess.Popen(command, start_new_session=True)
    while not list((tmp_path / "packed").glob("*.partial")):
        time.sleep(0.01)
        assert killed.poll() is None, "completed before it was killed"
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "packed").glob("*.npy"))
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate(timeout=120)[0] for process in pair}
    index = index_tree(tmp_path / "images")
    expected = sum(int(to_pixels(index.root / path).sum()) for path in index.keys)
    assert sums == {f"{expected}\n"}
    assert len(list((tmp_path / "packed").glob("*.npy"))) == 1 and not list((tmp_path / "packed").glob("*.partial"))
