"""Tests that loading untrusted files does not execute code."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from project.cli import main
from project.cli.commands import commands
from tests.conftest import QUICK, fit

Failing = Callable[[list[str]], str]


class Malicious:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sign),)


@pytest.fixture(params=["torch", "pickle"])
def planted(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A checkpoint with a malicious object, which is shown to work."""
    file, sign = tmp_path / "planted.ckpt", tmp_path / "sign"
    saved = {"state_dict": {"weight": torch.zeros(3)}, "hyper_parameters": {"data_description": Malicious(sign)}}
    if request.param == "torch":
        torch.save(saved, file)
        torch.load(file, weights_only=False)
    else:
        file.write_bytes(pickle.dumps(saved))
        pickle.loads(file.read_bytes())
    sign.rmdir()
    return file


@pytest.mark.parametrize("command", [c for c in ("fit", "validate", "test", "predict", "explain") if c in commands()])
def test_a_checkpoint_runs_no_code(command: str, planted: Path, tree: Path, here: Path, failing: Failing) -> None:
    message = failing([command, "--ckpt_path", str(planted), "--data.root", str(tree), *QUICK[:6]])
    assert message.startswith(f"error: {planted} is not a checkpoint of this project or is corrupted")
    assert not (planted.parent / "sign").exists() and "weights_only" not in message


def test_a_last_checkpoint_runs_no_code(planted: Path, tree: Path, here: Path, failing: Failing) -> None:
    last = here / "logs" / "run" / "version_0" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    planted.rename(last)
    message = failing(["fit", "--ckpt_path", "last"])
    assert "cannot load" in message or "is corrupted" in message
    assert not (planted.parent / "sign").exists()


@pytest.mark.parametrize(
    ("option", "expected"),
    [("--model.init_from", "is not a checkpoint of this project"), ("--model.net.weights", "is not a weights file")],
)
def test_weights_run_no_code(
    option: str, expected: str, planted: Path, tree: Path, here: Path, failing: Failing
) -> None:
    net = ["--model.net", "project.modules.Timm", "--model.net.name", "resnet18"] if "net" in option else []
    message = failing(fit(tree, *net, option, str(planted)))
    assert message.startswith("error: ") and str(planted) in message and expected in message
    assert not (planted.parent / "sign").exists() and "weights_only" not in message


def test_a_pruned_checkpoint_builds_only_modules(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree, "--test_after_fit", "false", "--trainer.max_epochs", "1"))
    file = Path("logs/run/version_0/checkpoints/best.ckpt")
    saved = torch.load(file, weights_only=True)
    for path in ("os.path.relpath", "shelve.open"):
        inner = {"class_path": path, "init_args": {}}
        pruned = {"class_path": "project.modules.Pruned", "init_args": {"net": inner, "shapes": {}}}
        saved["hyper_parameters"]["net"] = pruned
        torch.save(saved, "evil.ckpt")
        assert "is not an nn.Module" in failing(
            ["predict", "--ckpt_path", "evil.ckpt", "--data.root", str(tree), *QUICK[:6]]
        )
