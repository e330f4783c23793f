"""Tests of `model.init_from`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from project.cli import main
from tests.conftest import QUICK, fit
from tests.runs import RUN, load

pytestmark = pytest.mark.slow

Failing = Callable[[list[str]], str]
ONCE = ["--trainer.max_epochs", "1", "--test_after_fit", "false"]


def test_init_from_with_other_classes_creates_a_new_head(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(fit(tree, *ONCE))
    file = RUN / "checkpoints" / "last.ckpt"
    shutil.rmtree(tree / "red")
    with pytest.warns(
        UserWarning, match=r"6 of 8 tensors.*head\.4\.weight \(2x512 in the network, 3x512 in the checkpoint\)"
    ):
        main(fit(tree, *ONCE, "--model.init_from", str(file), "--model.optimizer.lr", "0"))
    second = RUN.with_name("version_1")
    old, new = load(RUN)["state_dict"], load(second)["state_dict"]
    assert torch.equal(old["net.features.0.weight"], new["net.features.0.weight"])
    assert new["net.head.4.weight"].shape == (2, 512)
    assert load(second)["global_step"] == 2, "a new run starts at step 0"
    # The source checkpoint is not needed afterwards.
    shutil.rmtree(RUN)
    main(["test", "--ckpt_path", str(second / "checkpoints" / "best.ckpt"), *QUICK[:4]])
    main(["fit", "--ckpt_path", str(second / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "2"])
    assert load(second)["global_step"] == 4


def test_init_from_errors(tree: Path, here: Path, failing: Failing) -> None:
    assert "no such checkpoint: gone.ckpt" in failing(fit(tree, "--model.init_from", "gone.ckpt"))
    main(fit(tree, *ONCE))
    last = "logs/run/version_0/checkpoints/last.ckpt"
    both = ["fit", "--ckpt_path", "last", "--model.init_from", last]
    assert "give one of them" in failing(both)
    other = ["--model.net", "tests.test_checkpoints.OutOfMemory", "--model.init_from", last]
    assert "matches the network by name and shape" in failing(fit(tree, *other))


def test_environment_is_recorded_at_every_start(tree: Path, here: Path) -> None:
    main(fit(tree, *ONCE))
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    first, second = yaml.safe_load_all((RUN / "environment.yaml").read_text())
    assert first["data_fingerprint"] == second["data_fingerprint"] == load(RUN)["data_description"]["fingerprint"]
    assert torch.__version__.startswith(first["packages"]["torch"]) and first["hardware"]["cores"]
    assert len(first["git"]["commit"]) == 40 and "diff" in first["git"]
