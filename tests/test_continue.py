"""Resuming runs with valid and invalid options, and starting new ones from their config or weights."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from project.cli import main
from tests.conftest import QUICK, REPOSITORY, fit
from tests.runs import RUN, load

Failing = Callable[[list[str]], str]
WITHOUT_TEST = ["--test_after_fit", "false"]


def learning_rates(run: Path) -> list[float]:
    """Return the logged learning rates."""
    with (run / "metrics.csv").open() as stream:
        return [float(row["train/learning_rate"]) for row in csv.DictReader(stream) if row["train/learning_rate"]]


def test_a_failed_resume_changes_nothing(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree, *WITHOUT_TEST))
    before = (RUN / "config.yaml").read_bytes()
    longer = ["fit", "--ckpt_path", "last", "--trainer.max_epochs", "3", *WITHOUT_TEST]
    assert "has model.net ConvNet, not ResNet: omit the option" in failing(
        [*longer, "--model.net", "project.modules.ResNet"]
    )
    assert "has model.optimizer Adam, not SGD" in failing([*longer, "--model.optimizer", "SGD"])
    assert "has model.scheduler none, not WarmupDecay" in failing(
        [*longer, "--model.scheduler", "project.modules.WarmupDecay"]
    )
    assert (RUN / "config.yaml").read_bytes() == before
    main(longer)
    assert load(RUN)["global_step"] == 9 and yaml.safe_load((RUN / "config.yaml").read_text())["ckpt_path"] is None


def test_incompatible_weights_are_an_error(tree: Path, here: Path, failing: Failing) -> None:
    net = ["--model.net", "project.modules.ResNet", "--model.net.depth"]
    main(fit(tree, *WITHOUT_TEST, *net, "8", "--trainer.max_epochs", "1"))
    before = (RUN / "config.yaml").read_bytes()
    message = failing(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2", *net, "14"])
    assert "do not fit this network, which must be built with the same options: Missing key(s)" in message
    assert (RUN / "config.yaml").read_bytes() == before


def test_the_config_of_a_resumed_run_starts_a_new_run(tree: Path, here: Path) -> None:
    main(fit(tree, *WITHOUT_TEST, "--trainer.max_epochs", "1"))
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    fresh = ["fit", "--config", str(RUN / "config.yaml"), "--run_name", "fresh", *WITHOUT_TEST]
    main(fresh)
    assert load(RUN)["global_step"] == load(Path("logs/fresh/version_0"))["global_step"] == 6
    main([*fresh, "--model.init_from", str(RUN / "checkpoints/last.ckpt"), "--model.optimizer.lr", "0"])
    for name, value in load(Path("logs/fresh/version_1"))["state_dict"].items():
        assert not name.startswith("net.") or torch.equal(value, load(RUN)["state_dict"][name]), name


def test_options_of_classes_in_the_run_config_can_be_overridden(tree: Path, here: Path, failing: Failing) -> None:
    deeper = ["--model.net", "project.modules.ResNet", "--model.net.depth", "8"]
    patient = [*("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/acc")]
    main(fit(tree, *WITHOUT_TEST, *deeper, *patient, "--trainer.callbacks.patience", "1"))
    longer = ["fit", "--ckpt_path", "last", "--trainer.max_epochs", "3", *WITHOUT_TEST]
    assert "with --trainer.callbacks.patience 2 if" in failing(longer)
    assert "unknown key patienc; did you mean" in failing([*longer, "--trainer.callbacks.patienc", "2"])
    main([*longer, "--trainer.callbacks.patience", "9", "--model.net.depth", "8"])
    assert load(RUN)["global_step"] == 9


def test_the_run_is_found_with_default_root_dir_in_a_group_config(tree: Path, here: Path) -> None:
    Path("trainer.yaml").write_text("default_root_dir: elsewhere")
    main(fit(tree, *WITHOUT_TEST, "--trainer", "trainer.yaml", "--trainer.max_epochs", "1"))
    main(["fit", "--ckpt_path", "last", "--trainer", "trainer.yaml", "--trainer.max_epochs", "2", *WITHOUT_TEST])
    assert load(Path("elsewhere") / RUN.relative_to("logs"))["global_step"] == 6


def test_the_interrupted_epoch_is_printed(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, *WITHOUT_TEST, "--trainer.max_steps", "4"))
    capsys.readouterr()
    main(["fit", "--ckpt_path", "last", "--trainer.max_steps", "-1", *WITHOUT_TEST])
    assert "\n      2/2 " in capsys.readouterr().out


def test_an_additional_checkpoint_callback_does_not_interfere(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    additional = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.dirpath", "snapshots"]
    main(fit(tree, *additional, "--trainer.callbacks.save_top_k", "-1"))
    assert len(list(Path("snapshots").iterdir())) == 2
    assert {file.name for file in (RUN / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert f"train.py test --ckpt_path {RUN / 'checkpoints' / 'best.ckpt'}" in capsys.readouterr().out
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "3"])
    assert load(RUN)["global_step"] == 9


def test_an_extended_run_has_the_schedule_of_a_longer_run(tree: Path, here: Path) -> None:
    options = ["--model.scheduler", "project.modules.WarmupDecay", "--trainer.log_every_n_steps", "1", *WITHOUT_TEST]
    main(fit(tree, *options))
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "4", *WITHOUT_TEST])
    main(fit(tree, *options, "--trainer.max_epochs", "4", "--run_name", "full"))
    extended, full = learning_rates(RUN), learning_rates(Path("logs/full/version_0"))
    assert len(extended) == len(full) > 2
    assert extended[-2:] == pytest.approx(full[-2:]) and extended[-2] > 0


def test_a_schedule_that_cannot_be_extended_is_an_error(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree, "--model.scheduler", "OneCycleLR", "--model.scheduler.max_lr", "0.01", *WITHOUT_TEST))
    longer = ["fit", "--ckpt_path", "last", "--trainer.max_epochs", "4"]
    assert "OneCycleLR has 6 steps and cannot be changed to 12" in failing(longer)


def test_run_names(tree: Path, here: Path, failing: Failing) -> None:
    for name in ("nest/one", "/abs", ".hidden", " "):
        assert "run_name must be a folder name" in failing(fit(tree, "--run_name", name))
    again = fit(tree, *WITHOUT_TEST, "--run_name", "g[1]", "--ckpt_path", "resume")
    main([*again, "--trainer.max_epochs", "1"])
    main(again)
    assert [run.name for run in Path("logs/g[1]").iterdir()] == ["version_0"]


def test_the_head_is_initialized_again_for_other_classes(tree: Path, here: Path) -> None:
    main(fit(tree, *WITHOUT_TEST, "--trainer.max_epochs", "1"))
    shutil.move(tree / "red", tree / "white")
    last = str(RUN / "checkpoints" / "last.ckpt")
    with pytest.warns(UserWarning, match=r"loaded 6 of 8 tensors .*new head, as the classes differ"):
        main(fit(tree, *WITHOUT_TEST, "--model.init_from", last, "--model.optimizer.lr", "0"))
    old, new = load(RUN)["state_dict"], load(RUN.with_name("version_1"))["state_dict"]
    assert torch.equal(old["net.head.1.weight"], new["net.head.1.weight"])
    assert not torch.equal(old["net.head.4.weight"], new["net.head.4.weight"])


@pytest.mark.slow
def test_undecodable_file_names_are_printed_on_a_strict_terminal(tree: Path, here: Path) -> None:
    odd = here / "odd"
    shutil.copytree(tree / "red", odd)
    (odd / "000.png").rename(os.fsdecode(bytes(odd) + b"/caf\xe9.png"))
    main(fit(tree, *WITHOUT_TEST))
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "OMP_NUM_THREADS": "1"}
    args = ["predict", "--ckpt_path", "best", "--data.root", os.fsdecode(bytes(odd) + b"/caf\xe9.png"), *QUICK[:4]]
    command = [sys.executable, str(REPOSITORY / "train.py"), *args]
    done = subprocess.run(command, env=strict, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and r"caf\udce9.png: red" in done.stdout, done.stderr
