"""Tests of sharded training and of gradient accumulation."""

import contextlib
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule

from project.cli import main
from project.modules import ConvNet
from project.modules.distributed import shard
from tests.conftest import fit, square
from tests.runs import finish

Weights = dict[str, torch.Tensor]


def weights(run: Path) -> Weights:
    loaded: Weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return loaded


def final_metrics(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    tags = ("train/loss", "val/loss", "val/acc", "test/loss", "test/acc")
    return [float([row[tag] for row in rows if row[tag]][-1]) for tag in tags]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(20, 1), (10, 2), (7, 3)])
def test_gradient_accumulation_equals_a_large_batch(
    batch: tuple[int, int], tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """42 images: steps of 20, 20 and 2 images (one batch of 2), or of 21 and 21 in batches of 7."""
    monkeypatch.chdir(tmp_path)
    sgd = ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.1", "--data.batch_transforms", "[]"]
    common = [*sgd, "--model.class_weights", "[1, 2, 3]", "--trainer.max_epochs", "1", "--test_after_fit", "false"]
    size, count = batch
    main([*fit(tree, *common, "--run_name", "large"), "--data.batch_size", str(size * count)])
    parts = ["--data.batch_size", str(size), "--trainer.accumulate_grad_batches", str(count)]
    main([*fit(tree, *common, "--run_name", "parts"), *parts])
    large, small = (weights(tmp_path / "logs" / name / "version_0") for name in ("large", "parts"))
    for key, value in large.items():
        torch.testing.assert_close(small[key], value, rtol=1e-5, atol=1e-6)


@pytest.fixture
def group() -> Iterator[None]:
    """A process group with one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Transformer(nn.Module):
    """Two transformer blocks; attention uses the weights of its output projection without calling it."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(1024, 4, 1024, batch_first=True)
        self.blocks = nn.ModuleList([layer, nn.TransformerEncoderLayer(1024, 4, 1024, batch_first=True)])
        self.norm = nn.LayerNorm(1024)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)


def units(net: nn.Module) -> set[str]:
    return {name for name, module in net.named_modules() if isinstance(module, FSDPModule)}


def test_large_modules_become_units_and_all_parameters_get_gradients(group: None) -> None:
    mesh = init_device_mesh("cpu", (1,))
    convnet, transformer = ConvNet(3, square(32)), Transformer()
    shard(convnet, mesh)
    shard(transformer, mesh)
    assert units(convnet) == {"", "head"}
    attention = {f"blocks.{number}.self_attn" for number in range(2)}
    assert units(transformer) == {"", *attention, "blocks.0", "blocks.1"}
    transformer(torch.randn(2, 3, 1024)).sum().backward()
    assert all(parameter.grad is not None for parameter in transformer.parameters())


@pytest.mark.slow
@pytest.mark.ddp
def test_resume_between_sharded_and_single_process_training(tree: Path, tmp_path: Path) -> None:
    """Two epochs give the same weights in one process, in one then two, and in two then one."""
    adam = ["--model.optimizer", "AdamW", "--model.optimizer.lr", "0.0003", "--model.optimizer.weight_decay", "0.1"]
    size = ["--data.image_size", "16", "--data.batch_size", "10", "--data.batch_transforms", "[]"]
    step = ["--trainer.accumulate_grad_batches", "2", "--trainer.gradient_clip_val", "0.5"]
    args = fit(tree, *adam, *size, *step, "--model.channels_last", "false")
    sharded = ["--trainer.devices", "2", "--trainer.strategy", "fsdp2"]

    def run(name: str) -> Path:
        return tmp_path / "logs" / name / "version_0"

    with contextlib.chdir(tmp_path):
        main([*args, "--run_name", "one"])
        main([*args, "--run_name", "one_two", "--trainer.max_epochs", "1"])
        shown = finish([*args, *sharded, "--run_name", "two_one", "--trainer.max_epochs", "1"], tmp_path)
        assert "FSDPConvNet: 1,126,275 parameters" in shown and shown.count("accuracy ") == 1
        last = str(Path("logs") / "two_one" / "version_0" / "checkpoints" / "last.ckpt")
        main([*args, "--trainer.strategy", "auto", "--ckpt_path", last])
        last = str(Path("logs") / "one_two" / "version_0" / "checkpoints" / "last.ckpt")
        finish([*args, *sharded, "--ckpt_path", last], tmp_path)
    for name in ("two_one", "one_two"):
        assert final_metrics(run(name)) == pytest.approx(final_metrics(run("one")), rel=1e-3)
        for key, value in weights(run("one")).items():
            torch.testing.assert_close(weights(run(name))[key], value, rtol=1e-3, atol=1e-5)


def test_weight_averaging_with_sharding_raises(tree: Path, here: Path, failing) -> None:  # type: ignore[no-untyped-def]
    args = fit(tree, "--trainer.strategy", "fsdp2", "--trainer.callbacks", "EMAWeightAveraging")
    with mock.patch.dict(os.environ):  # Lightning sets variables for the processes that it would start
        assert "weight averaging does not work with sharded parameters" in failing(args)
