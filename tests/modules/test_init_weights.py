"""A new run from the weights of an earlier one."""

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


def test_another_number_of_classes_gets_a_new_head(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, *ONCE))
    file = RUN / "checkpoints" / "last.ckpt"
    shutil.rmtree(tree / "red")
    with pytest.warns(UserWarning, match=r"6 of 8 tensors taken.*head\.4\.weight \(2x512 here, 3x512 there\)"):
        main(fit(tree, *ONCE, "--model.init_from", str(file), "--model.optimizer.lr", "0"))
    second = RUN.with_name("version_1")
    old, new = load(RUN)["state_dict"], load(second)["state_dict"]
    assert torch.equal(old["net.features.0.weight"], new["net.features.0.weight"])
    assert new["net.head.4.weight"].shape == (2, 512)
    assert load(second)["global_step"] == 2, "a new run, from its beginning"
    # The file is not needed again.
    shutil.rmtree(RUN)
    main(["test", "--ckpt_path", str(second / "checkpoints" / "best.ckpt"), *QUICK[:4]])
    main(["fit", "--ckpt_path", str(second / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "2"])
    assert load(second)["global_step"] == 4


def test_mistakes(tree: Path, here: Path, failing: Failing) -> None:
    assert "no such checkpoint: gone.ckpt" in failing(fit(tree, "--model.init_from", "gone.ckpt"))
    main(fit(tree, *ONCE))
    last = "logs/run/version_0/checkpoints/last.ckpt"
    both = ["fit", "--ckpt_path", "last", "--model.init_from", last]
    assert "give one of them" in failing(both)
    other = ["--model.net", "tests.test_checkpoints.Greedy", "--model.init_from", last]
    assert "no tensor of the net" in failing(fit(tree, *other))


def test_each_start_is_recorded(tree: Path, here: Path) -> None:
    main(fit(tree, *ONCE))
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    first, second = yaml.safe_load_all((RUN / "environment.yaml").read_text())
    assert first["data_fingerprint"] == second["data_fingerprint"] == load(RUN)["data_description"]["fingerprint"]
    assert torch.__version__.startswith(first["packages"]["torch"]) and first["hardware"]["cores"]
    assert len(first["git"]["commit"]) == 40 and "diff" in first["git"]
