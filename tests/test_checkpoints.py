"""Checkpoint files on full or read-only disks; out-of-memory errors."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from kornia.augmentation import RandomHorizontalFlip
from torch import Tensor, nn

from project.cli import main
from project.datamodules import Digits, ImageDataModule, RandomCrop
from project.errors import UserError
from project.interface import ImageInput
from project.modules import Classifier
from project.runs.checkpoints import DurableCheckpointIO, find_damage
from tests.conftest import fit
from tests.runs import finish, start

Failing = Callable[[list[str]], str]


def mounted(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("cannot mount a small disk on this machine")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with space for two checkpoints of the small ConvNet, not three."""
    yield from mounted(tmp_path / "disk", "13m")


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_keeps_earlier_checkpoints(tree: Path, small_disk: Path, tmp_path: Path) -> None:
    args = fit(tree, "--trainer.default_root_dir", str(small_disk), "--last.every_n_steps", "1")
    process = start(args, tmp_path)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 2, shown
    last_line = shown.strip().splitlines()[-1]
    assert last_line.startswith("error: cannot write checkpoint") and "No space left on device" in last_line
    folder = small_disk / "run" / "version_0" / "checkpoints"
    assert (folder / "last.ckpt").is_file() and not list(folder.glob(".*"))
    assert not any(find_damage(file) for file in folder.glob("*.ckpt"))
    (folder / "previous.ckpt").unlink()
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    finish(["fit", "--ckpt_path", str(folder / "last.ckpt")], tmp_path)


def test_an_existing_checkpoint_is_kept_until_the_new_one_is_complete(tmp_path: Path) -> None:
    file, writer = tmp_path / "last.ckpt", DurableCheckpointIO()
    writer.save_checkpoint({"value": torch.zeros(1000)}, file)
    before, limits = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # Python ignores the signal of it
    try:
        with pytest.raises(UserError, match=f"cannot write checkpoint {file}: File too large"):
            writer.save_checkpoint({"value": torch.zeros(1_000_000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before and os.listdir(tmp_path) == ["last.ckpt"]


def test_a_folder_without_write_permission_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write checkpoint .*: (Not a directory|File exists)"):
        DurableCheckpointIO().save_checkpoint({}, tmp_path / "file" / "last.ckpt")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="Permission denied"):
            DurableCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt")


def test_corruption_is_detected(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({"value": torch.arange(10_000)}, file)
    content = file.read_bytes()
    assert find_damage(file) == ""
    for number in range(1000, len(content), len(content) // 7):
        file.write_bytes(content[:number])
        assert find_damage(file)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    file.write_bytes(flipped)
    assert "checksum" in find_damage(file) or "CRC" in find_damage(file)


class OutOfMemory(nn.Module):
    """A network that allocates more memory than available."""

    def __init__(self, num_classes: int, inputs: ImageInput) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.mean((2, 3))) + torch.zeros(1 << 50)[0]
        return logits


def test_out_of_memory_error_reports_batch_size_and_suggestions(tree: Path, here: Path, failing: Failing) -> None:
    message = failing(fit(tree, "--model.net", "tests.test_checkpoints.OutOfMemory"))
    assert "out of memory with data.batch_size 16 and inputs of 8x8" in message
    assert "try --data.batch_size 8" in message


def test_a_checkpoint_of_objects_built_in_python_is_plain_data(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    augmentation: list[nn.Module] = [RandomHorizontalFlip(), RandomCrop(1)]
    data = ImageDataModule(str(tree), source=Digits(), image_size=8, batch_transforms=augmentation)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.fit(Classifier(), data)
    trainer.save_checkpoint("python.ckpt")
    assert torch.load("python.ckpt", weights_only=True)["datamodule_hyper_parameters"]["image_size"] == 8
    main(["test", "--ckpt_path", "python.ckpt"])
    assert "accuracy" in capsys.readouterr().out


def test_without_validation_the_last_checkpoint_is_tested(
    tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    main(fit(tree, "--test_after_fit", "false"))
    earlier, last = (Path(f"logs/run/version_{number}/checkpoints") for number in range(2))
    capsys.readouterr()
    with pytest.warns(match=r"validation never ran in 2 epochs \(trainer.check_val_every_n_epoch 5\): there is"):
        main(fit(tree, "--trainer.check_val_every_n_epoch", "5"))
    shown = capsys.readouterr().out
    assert "no validation in these epochs, hence no best checkpoint" in shown
    assert "test: 9 images of the test split" in shown and f"test --ckpt_path {last / 'last.ckpt'}" in shown
    message = failing(["test", "--ckpt_path", "best"])
    assert message == (
        "error: the newest run, logs/run/version_1, has no best checkpoint: give --ckpt_path last, or"
        f" {earlier / 'best.ckpt'} of an earlier run"
    )
    main(["test", "--ckpt_path", "last"])
