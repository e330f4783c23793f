"""End-to-end tests of the command line."""

import csv
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from PIL import Image

from project.cli import main
from project.cli.commands import GROUPS, commands
from project.cli.tools import split_fit_options
from project.interface import Batch
from project.modules import Classifier
from project.runs.options import flatten, option_name
from tests.conftest import COLORS, QUICK, REPOSITORY, fit, process, write_images
from tests.runs import finish

Failing = Callable[[list[str]], str]


def config_of(run: Path) -> dict[str, dict[str, object]]:
    """Return the config of a run, with the `init_args` of model and data one level up."""
    loaded: dict[str, dict[str, object]] = yaml.safe_load((run / "config.yaml").read_text())
    return loaded | {key: loaded[key]["init_args"] for key in ("model", "data")}  # type: ignore[dict-item]


def test_fit_then_test_and_predict_from_the_checkpoint_alone(
    tree: Path, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tree.rglob("*"))
    main(fit(tree, "--run_name", "colors", "--trainer.max_epochs", "8"))
    shown = capsys.readouterr().out
    assert "60 images, 3 classes; train 42  val 9  test 9" in shown and "precision 32-true" in shown
    assert "accuracy 100.00%" in shown and "train.py predict --ckpt_path" in shown
    run = here / "logs" / "colors" / "version_0"
    assert {"config.yaml", "split.csv", "metrics.csv", "checkpoints"} <= {item.name for item in run.iterdir()}
    assert {item.name for item in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    with (run / "split.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 60 and {row["split"] for row in rows} == {"train", "val", "test"}
    with (run / "metrics.csv").open() as stream:
        metrics = list(csv.DictReader(stream))
    tags = {f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc", "f1")}
    assert tags <= set(metrics[0])
    torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)

    main(["test", "--ckpt_path", "best", *QUICK[:4]])
    assert "accuracy 100.00%" in capsys.readouterr().out

    images = tmp_path / "mine"
    write_images(images / "nested", 5, COLORS["red"], size=20)
    write_images(images, 3, COLORS["blue"], size=9)
    main(["predict", "--ckpt_path", "best", "--data.root", str(images), *QUICK[:4]])
    assert "predictions: logs/predict/version_0/predictions.csv" in capsys.readouterr().out
    main(["predict", "--ckpt_path", "best", "--data.root", str(images / "nested" / "000.png"), *QUICK[:4]])
    assert "000.png: red " in capsys.readouterr().out, "the prediction for a single image is printed"
    with Path("logs/predict/version_0/predictions.csv").open() as stream:
        predicted = list(csv.DictReader(stream))
    assert [row["path"] for row in predicted] == sorted(row["path"] for row in predicted) and len(predicted) == 8
    assert all(row["class"] == ("red" if row["path"].startswith("nested") else "blue") for row in predicted)
    assert sum(float(predicted[0][name]) for name in COLORS) == pytest.approx(1, abs=1e-5)
    assert sorted(tree.rglob("*")) == before, "the dataset directory is read-only"


def test_precedence_and_resume(tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("model:\n  label_smoothing: 0.1\ndata:\n  batch_size: 10\nckpt_path: null\n")
    options = ["--model.label_smoothing", "0.2", "--config", "mine.yaml"]
    main([*fit(tree), *options, "--data.val_fraction", "0.2"])
    run = here / "logs" / "run" / "version_0"
    assert config_of(run)["model"]["label_smoothing"] == 0.2, "the command line takes precedence over a config after it"
    assert config_of(run)["data"]["batch_size"] == 16
    capsys.readouterr()

    last = str(run / "checkpoints" / "last.ckpt")
    main(["validate", "--ckpt_path", last, "--config", "mine.yaml", *QUICK[:4]])
    config = config_of(here / "logs" / "validate" / "version_0")
    assert config["model"]["label_smoothing"] == 0.1, "a config takes precedence over the checkpoint"
    assert config["data"]["val_fraction"] == 0.2, "the checkpoint takes precedence over the default"
    assert "val: 12 images" in capsys.readouterr().out

    assert "is finished: all 2 epochs done; to train longer, add --trainer.max_epochs 4" in failing(
        ["fit", "--ckpt_path", "last"]
    )
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "4"])
    with (run / "metrics.csv").open() as stream:
        epochs = [int(float(row["epoch"])) for row in csv.DictReader(stream) if row["val/loss"]]
    assert epochs == [0, 1, 2, 3] and not (run.parent / "version_1").exists()


def test_resume_with_a_config_keeps_all_other_options(tree: Path, here: Path) -> None:
    main([*fit(tree), "--model.label_smoothing", "0.2"])
    Path("mine.yaml").write_text("trainer:\n  max_epochs: 3\n")
    main(["fit", "--ckpt_path", "last", "--config", "mine.yaml"])
    config = config_of(here / "logs" / "run" / "version_0")
    assert config["model"]["label_smoothing"] == 0.2 and config["trainer"]["max_epochs"] == 3
    assert config["data"]["batch_size"] == 16


def test_a_labels_table_selects_other_test_images(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--test_after_fit", "false"))
    write_images(here / "mine", 4, COLORS["red"])
    rows = [f"{number:03d}.png,{name},test" for number, name in enumerate(("red", "red", "blue", "green"))]
    (here / "mine" / "new.csv").write_text("\n".join(["path,label,split", *rows]))
    capsys.readouterr()
    main(["test", "--ckpt_path", "best", "--data.table", "mine/new.csv", *QUICK[:4]])
    shown = capsys.readouterr()
    assert "test: 4 images of the test split" in shown.out and "warning" not in shown.err
    assert shown.out.startswith("model     logs/run/version_0/checkpoints/best.ckpt (epoch ")


def test_a_failed_run_leaves_no_folder(tree: Path, here: Path, failing: Failing) -> None:
    assert "no such folder: nowhere" in failing(fit(Path("nowhere")))
    assert not (here / "logs").exists()
    main(fit(tree, "--test_after_fit", "false"))
    message = failing(["validate", "--ckpt_path", "best", "--data.root", "nowhere", *QUICK[:4]])
    assert "no such folder: nowhere" in message
    assert "trained on images of 8x8" in failing(["test", "--ckpt_path", "best", "--data.image_size", "16"])
    assert [run.name for run in (here / "logs").iterdir()] == ["run"]


def test_help_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert "--data.image_size" in shown and "--model.net" in shown
    assert "known subclasses" not in shown and "data_description" not in shown


def test_a_restarted_job_resumes_its_own_run(
    tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = fit(tree, "--test_after_fit", "false", "--ckpt_path", "resume")
    assert "add --run_name NAME" in failing(quick)
    mine = here / "logs" / "mine"
    main([*quick, "--run_name", "mine"])
    main([*quick, "--run_name", "other"])
    main([*quick, "--run_name", "mine", "--trainer.max_epochs", "3"])
    assert "3/3" in capsys.readouterr().out and [run.name for run in mine.iterdir()] == ["version_0"]
    with pytest.raises(SystemExit) as stopped:
        main([*quick, "--run_name", "mine", "--trainer.max_epochs", "3"])
    assert not stopped.value.code and "is finished: all 3 epochs" in capsys.readouterr().out


def test_a_run_that_stopped_early_is_finished(tree: Path, here: Path, failing: Failing) -> None:
    stop = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    never = ["--trainer.callbacks.min_delta", "100", "--trainer.callbacks.patience", "1"]
    main(fit(tree, *stop, *never, "--trainer.max_epochs", "9", "--test_after_fit", "false"))
    assert "stopped early after 2 epochs" in failing(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "20"])


def test_a_dataset_with_only_a_test_split(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--test_after_fit", "false", "--data.folds", "4"))
    shutil.copytree(tree, here / "mine" / "test")
    main(["test", "--ckpt_path", "best", "--data.root", "mine", *QUICK[:4]])
    assert "test: 60 images of the test split" in capsys.readouterr().out


def test_weights_only_checkpoints_cannot_be_resumed(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree, "--checkpoint.save_weights_only", "true", "--test_after_fit", "false"))
    assert "has weights only: start a new run from them with --model.init_from" in failing(
        ["fit", "--ckpt_path", "best", "--trainer.max_epochs", "9"]
    )
    torch.save({"state_dict": {}, "hyper_parameters": {}}, "other.ckpt")
    assert "is not a checkpoint of this project" in failing(["test", "--ckpt_path", "other.ckpt"])


def test_averaged_weights_are_tested_after_fit_and_from_the_checkpoint(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ema = ["--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", "0.8"]
    main(fit(tree, *ema, "--model.tta", "flip", "--trainer.max_epochs", "3"))
    after_fit = capsys.readouterr().out.split("accuracy ")[1].splitlines()[0]
    best = here / "logs/run/version_0/checkpoints/best.ckpt"
    saved = torch.load(best, weights_only=True)
    averaged, live = saved["state_dict"], saved["current_model_state"]
    assert any(not torch.equal(averaged[key], live[key]) for key in averaged if key.startswith("net."))
    main(["test", "--ckpt_path", str(best), *QUICK[:4], "--trainer.precision", "32-true"])
    assert capsys.readouterr().out.split("accuracy ")[1].splitlines()[0] == after_fit


def test_without_a_test_split_val_is_tested_on(tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for name, color in COLORS.items():
            write_images(tmp_path / "images" / split / name, 6, color)
    main(fit(tmp_path / "images"))
    shown = capsys.readouterr().out
    assert "no test split: val is used for testing" in shown and "test: 18 images of the val split" in shown


def test_callbacks_append(tree: Path, here: Path) -> None:
    Path("a.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      init_args: {monitor: val/loss}\n"
    )
    main([*fit(tree, "--test_after_fit", "false"), "--config", "a.yaml", "--trainer.callbacks", "ModelSummary"])
    callbacks = config_of(here / "logs" / "run" / "version_0")["trainer"]["callbacks"]
    assert isinstance(callbacks, list)
    assert [item["class_path"].rpartition(".")[2] for item in callbacks] == ["EarlyStopping", "ModelSummary"]


def test_configs_merge_deeply_and_resolve_relative_files(tree: Path, here: Path) -> None:
    Path("sub/model").mkdir(parents=True)
    Path("sub/model/x.yaml").write_text("net: {class_path: ConvNet, init_args: {dropout: 0.3}}\n")
    Path("sub/a.yaml").write_text("model: model/x.yaml\ntrainer: {max_epochs: 1, log_every_n_steps: 7}\n")
    Path("b.yaml").write_text("model: {net: {init_args: {dropout: 0.4}}}\ntrainer: {max_epochs: 3}\n")
    args = fit(tree, "--test_after_fit", "false", "--trainer.limit_train_batches", "1")
    main([*args, "--config", "sub/a.yaml", "--config", "b.yaml"])
    config = config_of(here / "logs" / "run" / "version_0")
    assert config["model"]["net"] == {"class_path": "project.modules.ConvNet", "init_args": {"dropout": 0.4}}
    assert config["trainer"]["log_every_n_steps"] == 7 and config["trainer"]["max_epochs"] == 2


def test_the_source_option_is_dropped_if_root_is_given(tree: Path, here: Path) -> None:
    main(fit(tree, "--data.source", "Digits", "--trainer.max_epochs", "1"))
    run = Path("logs/run/version_0")
    assert config_of(run)["data"]["source"] is None
    assert "Digits" not in (run / "config.yaml").read_text()


def test_a_run_config_works_with_every_command(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--test_after_fit", "false"))
    run = here / "logs" / "run" / "version_0"
    for command, expected in {"validate": "accuracy", "test": "accuracy", "predict": "predictions:"}.items():
        capsys.readouterr()
        main([command, "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--config", str(run / "config.yaml")])
        assert expected in capsys.readouterr().out


def test_the_overview_lists_every_command_on_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 80
    headings = dict.fromkeys(f"{GROUPS[group]}:" for _, group, *_ in commands().values())
    assert [line for line in lines if line in headings] == list(headings)
    for command in commands():
        assert sum(line.startswith(f"  {command} ") for line in lines) == 1, command
    with pytest.raises(SystemExit):
        main(["test", "--help"])
    shown = capsys.readouterr().out
    assert "a file, or best or last" in shown and "hpc" not in shown  # Lightning's description of ckpt_path


@pytest.mark.parametrize(("args", "unbuffered"), [(["--help"], ""), (["--help"], "1"), (["fit", "--help"], "")])
def test_help_into_a_closed_pipe(args: list[str], unbuffered: str) -> None:
    """As in `python train.py --help | head -2`, once `head` has exited."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *args]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout and running.stderr
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode in (0, 141)


def test_help_lists_the_options_of_the_chosen_classes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model", "tests.test_cli.Further", "--help"])
    assert "--model.further" in capsys.readouterr().out


class Further(Classifier):
    """A user-defined module with an additional option."""

    def __init__(self, further: int = 1, **rest: Any) -> None:
        super().__init__(**rest)


def test_class_help_of_callbacks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--trainer.callbacks.help", "EarlyStopping"])
    assert stopped.value.code == 0 and "--trainer.callbacks.patience" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "--trainer.max_epoch", "3"], "--trainer.max_epoch; did you mean --trainer.max_epochs?"),
        (["fit", "--batch_size", "3"], "--batch_size; did you mean --data.batch_size?"),
        (["fit", "--learning_rate", "3"], "--learning_rate; did you mean --model.optimizer.lr?"),
        (["fit", "--model.net", "project.modules.ConvNot"], "project.modules has no ConvNot; did you mean ConvNet?"),
        (["fit", "--test_after_fit"], "--test_after_fit expects a value, e.g. --test_after_fit true"),
        (["--config", "typo.yaml"], "missing command: train.py {fit,validate,"),
        (["fit", "--trainer.max_epochs", "abc"], "trainer.max_epochs: expected int, got 'abc'"),
        (["fit", "--data.batch_size", "abc"], "data.batch_size: expected int, got 'abc'"),
        (["fit", "--trainer.precision", "bf32"], "bf16-mixed, 32-true, 64-true, 64, 32, 16, bf16, got 'bf32'"),
        (["fit", "--config", "broken.yaml"], "broken.yaml, line 2, column 6: "),
        (["fit", "--config", "binary.yaml"], "binary.yaml: special characters are not allowed"),
        (["fit", "--model.class_weights", "even"], "model.class_weights: expected balanced or list, got 'even'"),
        (["fit", "--model.net", "ConvNett"], "model.net: no class named ConvNett; did you mean ConvNet?"),
        (["fit", "--model.net.dropou", "0.1"], "unknown key dropou; did you mean dropout?"),
        (["fit", "--config", "typo.yaml"], "unknown key trainer.max_epoch; did you mean trainer.max_epochs?"),
        (["fit", "--config", "none.yaml"], "no such config: "),
        (["tset"], "unknown command 'tset'; did you mean test?"),
        (["xyz"], "unknown command 'xyz': choose from fit, validate, "),
        (["fit", "--data.rooot", "x"], "unknown option --data.rooot; did you mean --data.root?"),
        (["fit", "--config", "old.yaml"], "unknown key data_description: written by an older version"),
        (["fit", "--data.sampling", "poisson"], "replaced by --data.sampler project.privacy.PoissonBatchSampler"),
        (["fit", "--model", "Classifyer"], "model: no class named Classifyer; did you mean Classifier?"),
        (["fit", "--data.root", "nowhere"], "no such folder: nowhere"),
        (["fit"], "no images: give --data.root DIR"),
        (["test"], "test needs a trained model"),
        (
            ["predict", "--ckpt_path", "best"],
            "no best checkpoint found in logs: train a model with `train.py fit` first",
        ),
        (["test", "--ckpt_path", "gone.ckpt"], "no such checkpoint: gone.ckpt"),
        (["test", "--ckpt_path", "typo.yaml"], "is not a checkpoint"),
        (["fit", "--data.val_fraction", "2"], "data.val_fraction must be"),
        (["fit", "--data.batch_size", "0"], "data.batch_size must be at least 1"),
        (["fit", "--data.num_workers", "-1"], "data.num_workers must be at least 0"),
        (["fit", "--data.split_seed", "-1"], "data.split_seed must be at least 0"),
        (["fit", "--seed_everything", "-1"], "seed_everything: "),
        (["fit", "--model.label_smoothing", "2"], "model.label_smoothing must be"),
        (["fit", "--trainer.strategy", "foo"], "invalid strategy"),
        (["fit", "--trainer.max_epochs", "0"], "trainer.max_epochs 0: give a number above 0"),
        (["fit", "--trainer.limit_train_batches", "0"], "trainer.limit_train_batches 0"),
        (["fit", "--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches 0"),
        (["fit", "--trainer.log_every_n_steps", "0"], "trainer.log_every_n_steps 0"),
        (["fit", "--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch 0"),
        (
            ["fit", "--data.batch_transforms", "[project.datamodules.MixUp]", "--data.batch_transforms.alpha", "0"],
            "MixUp.alpha must be above 0",
        ),
        (["fit", "--trainer.default_root_dir", "typo.yaml"], "cannot use typo.yaml/run: Not a directory"),
    ],
)
def test_mistakes_end_in_one_line(args: list[str], message: str, here: Path, failing: Failing) -> None:
    Path("typo.yaml").write_text("trainer:\n  max_epoch: 3\n")
    Path("old.yaml").write_text("model:\n  data_description: null\n")
    Path("broken.yaml").write_text("trainer\n  max: 3\n")
    Path("binary.yaml").write_text("trainer:\n  max_epochs: 3\n\0\n")
    assert message in failing(args)


def test_a_config_of_comments_only_is_ignored(tree: Path, here: Path) -> None:
    Path("empty.yaml").write_text("# trainer:\n#   max_epochs: 3\n")
    main(fit(tree, "--config", "empty.yaml", "--test_after_fit", "false"))
    assert Path("logs/run/version_0/checkpoints/last.ckpt").is_file()


STOP = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.optimizer.lr", "-1"], "model.optimizer: Invalid learning rate"),
        (["--model.optimizer", "LBFGS"], "model.optimizer: LBFGS"),
        (["--model.scheduler", "project.modules.WarmupDecay", "--model.scheduler.warmup", "1"], "warmup must be"),
        (["--trainer.val_check_interval", "1000"], "val_check_interval"),
        (["--data.cache_dir", "file"], "cannot use file"),
        (["--config", "stop.yaml", *STOP], "change it by its options alone"),
    ],
)
def test_mistakes_found_after_reading_the_data(
    options: list[str], message: str, tree: Path, here: Path, failing: Failing
) -> None:
    Path("file").write_text("")
    stop = "{class_path: EarlyStopping, init_args: {monitor: val/loss}}"
    Path("stop.yaml").write_text(f"trainer: {{callbacks: [{stop}]}}")
    assert message in failing(fit(tree, *options))
    assert not Path("logs").exists()


def test_limited_test_batches_contain_all_classes(tree: Path, here: Path) -> None:
    main(fit(tree, "--trainer.limit_test_batches", "1", "--data.batch_size", "6"))
    with (here / "logs" / "run" / "version_0" / "test_predictions.csv").open() as stream:
        assert len({row["class"] for row in csv.DictReader(stream)}) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu(tree: Path, here: Path, failing: Failing) -> None:
    assert "gpu" in failing(["fit", "--data.root", str(tree), "--trainer.accelerator", "gpu"])


def test_unreadable_images_are_listed_or_skipped(
    tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "red" / "000.png").write_bytes(b"")
    (tree / "blue" / "007.png").write_text("no image")
    message = failing(fit(tree))
    assert "2 of 60 images" in message and "--data.on_corrupt skip" in message
    with pytest.raises(SystemExit):
        main(fit(tree))
    shown = capsys.readouterr().err
    assert f"{tree}/red/000.png: not an image\n" in shown and f"{tree}/blue/007.png: not an image\n" in shown
    with pytest.warns(UserWarning, match="skipping 2 unreadable images"):
        main(fit(tree, "--data.on_corrupt", "skip"))
    assert "58 images" in capsys.readouterr().out
    split = (here / "logs" / "run" / "version_0" / "split.csv").read_text()
    assert "red/000.png,red,skip" in split and "blue/007.png,blue,skip" in split
    main(["predict", "--ckpt_path", "best", *QUICK[:4]])
    assert len(Path("logs/predict/version_0/predictions.csv").read_text().splitlines()) == 1 + 58
    for file in (tree / "red").iterdir():
        file.write_bytes(b"not an image")
    assert "class 'red'" in failing(fit(tree, "--data.on_corrupt", "skip"))


@pytest.mark.slow
def test_images_without_read_permission(tree: Path, here: Path) -> None:
    """As root, drop the capabilities that bypass file permissions."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("root can read every file, and setpriv is not installed")
        prefix = (setpriv, "--bounding-set", "-dac_override,-dac_read_search", "--")
    for name in ("red/003.png", "blue/011.png"):
        (tree / name).chmod(0)
    refused = process(fit(tree), here, prefix=prefix)
    assert refused.returncode == 2 and "2 of 60 images" in refused.stderr.splitlines()[-1]
    assert {f"{tree}/blue/011.png: Permission denied", f"{tree}/red/003.png: Permission denied"} <= set(
        refused.stderr.splitlines()
    )
    done = process(fit(tree, "--data.on_corrupt", "skip"), here, prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert "skipping 2 unreadable images" in done.stderr and "58 images" in done.stdout


def test_an_image_that_disappears_during_training_is_named(tree: Path, here: Path, failing: Failing) -> None:
    """The error of a worker process is reported as one line, too."""
    args = fit(tree, "--data.item_transforms+", "tests.test_cli.Vanish", "--data.item_transforms.tree", str(tree))
    assert "removed since it was indexed): No such file" in failing([*args, "--data.num_workers", "1"])


class Vanish(torch.nn.Module):
    """An item transform that deletes the files while they are being read."""

    def __init__(self, tree: str) -> None:
        super().__init__()
        self.tree = tree

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        shutil.rmtree(self.tree, ignore_errors=True)
        return image


def test_class_weights_and_image_size_are_validated(tree: Path, here: Path, failing: Failing) -> None:
    assert "has 2 values, but the data has 3 classes" in failing(fit(tree, "--model.class_weights", "[1, 2]"))
    assert "image_size must be at least 4" in failing(fit(tree, "--data.image_size", "3"))


def test_an_unknown_class_is_rejected(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree))
    (tree / "red").rename(tree / "violet")
    assert "has class 'violet', which the trained model" in failing(["test", "--ckpt_path", "best", *QUICK[:4]])


@pytest.mark.slow
def test_changed_images_are_detected(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree))
    shutil.copytree(tree, here / "moved")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*has changed since the model was trained.*")
        main(["test", "--ckpt_path", "best", "--data.root", "moved", *QUICK[:4]])
    write_images(tree / "red" / "more", 1, COLORS["red"])
    with pytest.warns(UserWarning, match="has changed since the model was trained"):
        main(["test", "--ckpt_path", "best", *QUICK[:4]])
    refused = failing(["fit", "--ckpt_path", "logs/run/version_0/checkpoints/last.ckpt", "--trainer.max_epochs", "4"])
    assert "changed since the checkpoint was saved" in refused


@pytest.mark.parametrize(
    "scheduler",
    [
        ["OneCycleLR", "--model.scheduler.max_lr", "0.01"],
        ["StepLR", "--model.scheduler.step_size", "1"],
        ["lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val/loss"],
    ],
)
def test_any_schedule(tree: Path, here: Path, scheduler: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--model.scheduler", *scheduler, "--test_after_fit", "false"))
    assert f"schedule {scheduler[0].rpartition('.')[2]}" in capsys.readouterr().out


CONFIGS = [file for file in sorted(REPOSITORY.glob("configs/*.yaml")) if "datamodules.texts" not in file.read_text()]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configs_run_one_batch(config: Path, tree: Path, here: Path) -> None:
    offline = ["--model.net.weights", "null"] if config.stem == "transfer" else []
    quick = ["--trainer.fast_dev_run", "true", *QUICK[:6], *offline]
    main(["fit", "--config", str(config), "--data.root", str(tree), *quick])


OVERLAYS = [file for file in sorted(REPOSITORY.glob("configs/*/*.yaml")) if file.parent.name != "sweep"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_are_accepted(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_config = str(REPOSITORY / "configs" / "convnet.yaml")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", main_config, "--config", str(overlay), "--print_config"])
    assert stopped.value.code == 0
    printed = {option_name(key): value for key, value in flatten(yaml.safe_load(capsys.readouterr().out)).items()}
    for key, value in flatten(yaml.safe_load(overlay.read_text())).items():
        assert isinstance(value, list) or printed[option_name(key)] == value


@pytest.mark.parametrize("overlay", ["photos", "mixing"])
def test_augmentations_train(overlay: str, tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(REPOSITORY / "configs" / "data" / f"{overlay}.yaml")
    main([*fit(tree, "--trainer.max_epochs", "4"), "--config", config])
    with (here / "logs" / "run" / "version_0" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[-1]["test/acc"]) == 1, "colors are preserved"


def test_balance(tree: Path, here: Path) -> None:
    """A class of 2 training images beside two of 14, with class-balanced sampling and a class-weighted loss."""
    for file in sorted((tree / "red").iterdir())[4:]:
        file.unlink()
    main(fit(tree, "--data.sampling", "balanced", "--model.class_weights", "balanced", "--trainer.max_epochs", "1"))
    saved = torch.load(here / "logs/run/version_0/checkpoints/last.ckpt", weights_only=True)
    counts = saved["data_description"]["target"]["init_args"]["train_counts"]
    assert counts == [14, 14, 2]
    model = Classifier.load_from_checkpoint(here / "logs/run/version_0/checkpoints/last.ckpt", weights_only=True)
    assert (model.loss.weight * torch.tensor(counts)).tolist() == pytest.approx([10, 10, 10])


def test_transforms_that_change_the_size_are_rejected(tree: Path, here: Path, failing: Failing) -> None:
    crop = ["--data.batch_transforms+", "kornia.augmentation.RandomCrop", "--data.batch_transforms.size", "[4, 4]"]
    assert "change the image size from [8, 8] to [4, 4]" in failing(fit(tree, *crop))


def metrics_of(tree: Path, folder: Path, processes: int, *more: str) -> list[float]:
    """Train with several processes, and return every loss and accuracy of the run."""
    folder.mkdir()
    same = ["--data.batch_size", "16", "--data.batch_transforms", "[]", "--model.channels_last", "false", *more]
    shown = finish(fit(tree, "--trainer.devices", str(processes), *same), folder)
    assert shown.count("test: ") == 1, "one table"
    runs = list((folder / "logs" / "run").iterdir())
    assert [run.name for run in runs] == ["version_0"], "one run folder"
    with (runs[0] / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    tags = ("val/loss", "val/acc", "train/loss", "test/acc")
    return [float(row[tag]) for row in rows for tag in tags if row[tag]]


@pytest.mark.slow
@pytest.mark.ddp
def test_balanced_sampling_with_two_processes(tree: Path, tmp_path: Path) -> None:
    for file in sorted((tree / "red").iterdir())[4:]:
        file.unlink()
    balanced = ["--data.sampling", "balanced", "--model.class_weights", "balanced"]
    balanced += ["--trainer.callbacks", "tests.test_cli.CountLabels"]
    one, two = (metrics_of(tree, tmp_path / f"world{count}", count, *balanced) for count in (1, 2))
    assert one == pytest.approx(two, rel=2e-3) and len(one) == 7
    ranks = [json.loads((tmp_path / "world2" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [sum(map(sum, batches)) for batches in ranks] == [30, 30], (
        "two epochs of 30 images, half of them on each process"
    )
    for batches in ranks:
        assert min(map(sum, zip(*batches, strict=True))) >= 6, "the small class is sampled as often as the others"
    assert [sum(each) for each in zip(*ranks[0], *ranks[1], strict=True)] == [20, 20, 20]


class CountLabels(Callback):
    """Write the number of images per class in each batch of this process."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: object, outputs: object, batch: Batch, *_: object
    ) -> None:
        self.batches.append(torch.bincount(batch.target, minlength=3).tolist())
        Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(self.batches))


@pytest.mark.slow
def test_the_default_config_reaches_its_accuracy(tmp_path: Path) -> None:
    config = str(REPOSITORY / "configs" / "convnet.yaml")
    shown = finish(["fit", "--config", config, "--trainer.max_epochs", "6"], tmp_path)
    accuracy = float(shown.split("accuracy ")[1].split("%")[0])
    assert accuracy >= 97
    Image.open(tmp_path / "data" / "digits" / "0" / "0000.png").verify()


def test_commands_that_do_not_train_reject_options_of_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (
        ["check_data", "--config", "c.yaml"],
        ["check_data", "--data.root", "x"],
        ["shard", "a", "b", "--", "--trainer.max_epochs", "1"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert stopped.value.code == 2 and f"{args[0]} does not train" in capsys.readouterr().err


def test_loss_monitored_with_mode_max_is_rejected(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    message = failing(fit(tree, "--checkpoint.monitor", "val/loss", "--checkpoint.mode", "max"))
    assert message == "error: checkpoint.monitor val/loss would keep the highest loss: add --checkpoint.mode min"
    assert not Path("logs").exists()


def test_error_in_a_custom_module_is_named(
    tree: Path, here: Path, failing: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("broken_part.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(here))
    message = failing(fit(tree, "--model.loss", "broken_part.Focal"))
    assert "No module named 'not_installed_anywhere'" in message


def test_defaults_of_another_datamodule_are_kept(
    tree: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "small_batches.py").write_text(
        "from project.datamodules import ImageDataModule\n\n\n"
        "class SmallBatches(ImageDataModule):\n"
        "    def __init__(self, root: str, batch_size: int = 7):\n"
        "        super().__init__(root=root, batch_size=batch_size, image_size=8)\n"
    )
    monkeypatch.syspath_prepend(str(here))
    quick = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    main(["fit", "--data", "small_batches.SmallBatches", "--data.root", str(tree), *quick])
    assert "batch     7 images" in capsys.readouterr().out


def test_commands_that_train_take_classes_of_model_and_data() -> None:
    own, fit_args = split_fit_options(["--data", "DatasetModule", "--folds", "3", "--model=M", "--config", "c.yaml"])
    assert own == ["--folds", "3"] and fit_args == ["--data", "DatasetModule", "--model=M", "--config", "c.yaml"]
    assert split_fit_options(["--model", "m.onnx"], {"model"}) == (["--model", "m.onnx"], [])
