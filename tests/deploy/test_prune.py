"""Tests of pruning: size, loading and fine-tuning of pruned networks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from project.cli import main
from project.interface import ImageInput
from project.modules import Classifier, ConvNet, Pruned
from tests.conftest import QUICK, fit

RUN = Path("logs/run/version_0")


def built(num_classes: int, inputs: ImageInput) -> nn.Module:
    """Build a network in a function."""
    return ConvNet(num_classes, inputs)


NETS = {
    "ConvNet": [],
    "function": ["--model.net", f"{__name__}.built"],
    "ResNet": ["--model.net", "project.modules.ResNet", "--model.net.depth", "8"],
    "timm": ["--model.net", "Timm", "--model.net.name", "test_efficientnet", "--model.net.weights", "null"],
}


def parameters(file: Path) -> int:
    model = Classifier.load_from_checkpoint(file, map_location="cpu")
    assert model.net is not None
    return sum(parameter.numel() for parameter in model.net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_a_pruned_network_is_fine_tuned_exported_and_pruned_again(tree: Path, here: Path, net: str) -> None:
    main(fit(tree, "--test_after_fit", "false", *NETS[net]))
    main(["prune", "--ckpt_path", "best", "--ratio", "0.5", *QUICK[:6]])
    before, after = parameters(RUN / "checkpoints/best.ckpt"), parameters(RUN / "pruned.ckpt")
    assert after < 0.45 * before
    spec = torch.load(RUN / "pruned.ckpt", weights_only=True)["hyper_parameters"]["net"]["init_args"]
    assert Pruned(5, ImageInput(8, 8), **spec).eval()(torch.rand(1, 3, 8, 8)).shape == (1, 5)  # other number of classes
    configs = ["--config", str(RUN / "config.yaml"), "--config", str(RUN / "pruned.yaml")]
    main(["fit", *configs, "--run_name", "again", "--test_after_fit", "false"])
    best = Path("logs/again/version_0/checkpoints/best.ckpt")
    assert parameters(best) == after
    main(["test", "--ckpt_path", str(best), *QUICK[:6]])
    main(["export", "--ckpt_path", str(best), *QUICK[:6]])
    assert (best.parents[1] / "model.onnx").is_file()
    main(["prune", "--ckpt_path", str(best), "--ratio", "0.5", "--output", "twice.ckpt", *QUICK[:6]])
    assert parameters(Path("twice.ckpt")) < 0.5 * after


def test_error_messages(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    attention = ["--model.net", "Timm", "--model.net.name", "test_vit", "--model.net.weights", "null"]
    main(fit(tree, "--test_after_fit", "false", "--trainer.max_epochs", "1", "--data.image_size", "16", *attention))
    assert "--ratio must be above 0 and below 1, got 1" in failing(["prune", "--ckpt_path", "best", "--ratio", "1"])
    assert "this network cannot be pruned" in failing(["prune", "--ckpt_path", "best"])
    assert not (RUN / "pruned.ckpt").exists()
