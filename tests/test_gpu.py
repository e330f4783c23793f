"""Tests that need a GPU; skipped without one."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from project.cli import main
from project.cli.commands import commands
from project.runs.checkpoints import load_checkpoint
from tests.conftest import REPOSITORY, process

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

DIGITS = ["--config", str(REPOSITORY / "configs/convnet.yaml"), "--trainer.accelerator", "gpu"]
GPU = ["--trainer.accelerator", "gpu", "--trainer.devices", "1", "--data.image_size", "32", "--data.batch_size", "16"]


class NoWait(Callback):
    """Raises if a step of the second epoch, after compilation and CUDA graph capture, synchronizes with the GPU."""

    steps = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start checking: transfer of the next batch, augmentation, step, schedule, metrics."""
        if trainer.current_epoch == 1 and batch_idx:
            torch.cuda.set_sync_debug_mode("error")
            NoWait.steps += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop checking after the last batch, as validation may synchronize."""
        if trainer.is_last_batch:
            torch.cuda.set_sync_debug_mode("default")


def train(tree: Path, *more: str) -> list[str]:
    """Return the arguments of a quick run on the GPU."""
    return ["fit", "--data.root", str(tree), "--trainer.max_epochs", "2", *GPU, *more]


def last_value(run: Path, name: str) -> float:
    """Return the last value of a metric."""
    with (run / "metrics.csv").open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row.get(name)][-1]


def test_default_settings_on_a_gpu(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--data.root", str(tree), "--trainer.max_epochs", "2", "--data.image_size", "32"])
    shown = capsys.readouterr().out
    assert torch.cuda.get_device_name() in shown
    assert "precision bf16-mixed" in shown
    assert "packed pixels on the device" in shown


@pytest.mark.parametrize("config", ["convnet", "cifar10", "cifar10_resnet", "cifar10_speedrun"])
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_steps_do_not_synchronize(config: str, compiled: str, tree: Path, here: Path) -> None:
    NoWait.steps = 0
    more = ["--trainer.log_every_n_steps", "1000", "--trainer.callbacks", "tests.test_gpu.NoWait"]
    recipe = ["--config", str(REPOSITORY / f"configs/{config}.yaml"), "--model.compile", compiled]
    try:
        main(["fit", *recipe, *train(tree, "--data.batch_size", "6", *more)[1:]])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert NoWait.steps


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true", "32-true"])
def test_gpu_checkpoint_gives_the_same_loss_on_the_cpu(precision: str, tree: Path, here: Path) -> None:
    main(train(tree, "--trainer.precision", precision))
    run = here / "logs/run/version_0"
    gpu_loss = last_value(run, "test/loss")
    cpu = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.default_root_dir", "logs"]
    main(["test", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--data.root", str(tree), *cpu])
    assert last_value(here / "logs/test/version_0", "test/loss") == pytest.approx(gpu_loss, rel=0.05, abs=0.02)


@pytest.mark.parametrize("compiled", ["false", "true"])
def test_exact_resume_on_the_gpu(compiled: str, tree: Path, here: Path) -> None:
    exact = ["--trainer.deterministic", "true", "--trainer.precision", "32-true", "--model.compile", compiled]
    main(train(tree, "--run_name", "whole", *exact))
    main(train(tree, "--run_name", "parts", *exact, "--trainer.max_steps", "4", "--test_after_fit", "false"))
    main(["fit", "--ckpt_path", "logs/parts/version_0/checkpoints/last.ckpt", "--trainer.max_steps", "-1"])
    whole, parts = (load_checkpoint(here / f"logs/{n}/version_0/checkpoints/last.ckpt") for n in ("whole", "parts"))
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][name], value, msg=name)


def test_gradient_accumulation_with_compile(tree: Path, here: Path) -> None:
    exact = ["--trainer.precision", "32-true", "--trainer.accumulate_grad_batches", "3", "--data.batch_size", "6"]
    for compiled in ("false", "true"):
        main(train(tree, "--run_name", f"compiled_{compiled}", "--model.compile", compiled, *exact))
    runs = [here / f"logs/compiled_{compiled}/version_0" for compiled in ("false", "true")]
    assert last_value(runs[1], "train/loss") == pytest.approx(last_value(runs[0], "train/loss"), rel=0.02)


def test_weight_averaging_on_the_gpu(tree: Path, here: Path) -> None:
    main(train(tree, "--trainer.callbacks", "EMAWeightAveraging", "--model.tta", "flip_translate"))
    assert (here / "logs/run/version_0/report.html").is_file()


def test_private_training_on_the_gpu(tree: Path, here: Path) -> None:
    pytest.importorskip("opacus")
    config = ["--config", str(REPOSITORY / "configs/private.yaml"), "--trainer.callbacks.delta", "0.01"]
    main(["fit", *config, "--data.root", str(tree), "--trainer.max_epochs", "1", "--trainer.accelerator", "gpu"])
    assert load_checkpoint(here / "logs/private/version_0/checkpoints/last.ckpt")["privacy"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run on handwritten digits."""
    folder = tmp_path_factory.mktemp("gpu")
    assert process(["fit", *DIGITS, "--trainer.max_epochs", "2"], folder).returncode == 0
    return folder


@pytest.mark.parametrize(
    "args",
    [
        ["validate"],
        ["predict", "--data.root", "data/digits/3"],
        ["explain", "--ablation", "true"],
        ["explain", "--methods", "[gradcam,integrated_gradients,occlusion]", "--images", "2"],
        ["calibrate", "--target_accuracy", "0.99"],
        ["robustness", "--images", "100"],
        ["leak_test"],
        ["prune"],
        ["export", "--format", "safetensors"],
        ["export", "--format", "pt2"],
        ["export", "--format", "onnx"],
        ["export", "--format", "onnx", "--int8", "true"],
        ["find_lr", "--steps", "20"],
        ["find_batch_size"],
    ],
    ids=lambda args: "-".join(args),
)
def test_other_commands_on_the_gpu(args: list[str], digits: Path) -> None:
    if args[0] not in commands():
        pytest.skip(f"no command {args[0]}")
    if args[0].startswith("find"):
        more = DIGITS
    else:
        more = ["--ckpt_path", "logs/convnet/version_0/checkpoints/best.ckpt", "--trainer.accelerator", "gpu"]
    finished = process([*args, *more], digits)
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"


def test_out_of_memory_is_reported(tree: Path, here: Path) -> None:
    large = ["--model.net", "project.modules.ResNet", "--data.image_size", "4096", "--data.batch_size", "40"]
    finished = process([*train(tree), *large, "--trainer.precision", "32-true"], here)
    assert finished.returncode == 2, finished.stderr
    assert "out of memory" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
