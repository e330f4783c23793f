"""The commands, as a person types them."""

import csv
import json
import os
import shutil
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
from project.interface import Batch
from project.modules import Classifier
from project.runs.options import flatten, option_name
from tests.conftest import COLORS, QUICK, REPOSITORY, fit, process, write_images

Failing = Callable[[list[str]], str]


def config_of(run: Path) -> dict[str, dict[str, object]]:
    """Its config, with the arguments of model and data in the place of these."""
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

    pictures = tmp_path / "mine"
    write_images(pictures / "deep", 5, COLORS["red"], size=20)
    write_images(pictures, 3, COLORS["blue"], size=9)
    main(["predict", "--ckpt_path", "best", "--data.root", str(pictures), *QUICK[:4]])
    assert "predictions: logs/predict/version_0/predictions.csv" in capsys.readouterr().out
    main(["predict", "--ckpt_path", "best", "--data.root", str(pictures / "deep" / "000.png"), *QUICK[:4]])
    assert "000.png: red " in capsys.readouterr().out, "of one image the answer is said"
    with Path("logs/predict/version_0/predictions.csv").open() as stream:
        predicted = list(csv.DictReader(stream))
    assert [row["path"] for row in predicted] == sorted(row["path"] for row in predicted) and len(predicted) == 8
    assert all(row["class"] == ("red" if row["path"].startswith("deep") else "blue") for row in predicted)
    assert sum(float(predicted[0][name]) for name in COLORS) == pytest.approx(1, abs=1e-5)
    assert sorted(tree.rglob("*")) == before, "the data folder was written to"


def test_precedence_and_resume(tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("model:\n  label_smoothing: 0.1\ndata:\n  batch_size: 10\nckpt_path: null\n")
    options = ["--model.label_smoothing", "0.2", "--config", "mine.yaml"]
    main([*fit(tree), *options, "--data.val_fraction", "0.2"])
    run = here / "logs" / "run" / "version_0"
    assert config_of(run)["model"]["label_smoothing"] == 0.2, "the command line beats a config that follows it"
    assert config_of(run)["data"]["batch_size"] == 16
    capsys.readouterr()

    last = str(run / "checkpoints" / "last.ckpt")
    main(["validate", "--ckpt_path", last, "--config", "mine.yaml", *QUICK[:4]])
    made = config_of(here / "logs" / "validate" / "version_0")
    assert made["model"]["label_smoothing"] == 0.1, "a config beats the checkpoint"
    assert made["data"]["val_fraction"] == 0.2, "the checkpoint beats the default"
    assert "val: 12 images" in capsys.readouterr().out

    assert "is finished: all 2 epochs; to train longer, add --trainer.max_epochs 4" in failing(
        ["fit", "--ckpt_path", "last"]
    )
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "4"])
    with (run / "metrics.csv").open() as stream:
        epochs = [int(float(row["epoch"])) for row in csv.DictReader(stream) if row["val/loss"]]
    assert epochs == [0, 1, 2, 3] and not (run.parent / "version_1").exists()


def test_a_run_that_continues_keeps_what_an_overlay_does_not_say(tree: Path, here: Path) -> None:
    main([*fit(tree), "--model.label_smoothing", "0.2"])
    Path("mine.yaml").write_text("trainer:\n  max_epochs: 3\n")
    main(["fit", "--ckpt_path", "last", "--config", "mine.yaml"])
    config = config_of(here / "logs" / "run" / "version_0")
    assert config["model"]["label_smoothing"] == 0.2 and config["trainer"]["max_epochs"] == 3
    assert config["data"]["batch_size"] == 16


def test_other_images_are_tested_by_a_table(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--test_after_fit", "false"))
    write_images(here / "mine", 4, COLORS["red"])
    rows = [f"{number:03d}.png,{name},test" for number, name in enumerate(("red", "red", "blue", "green"))]
    (here / "mine" / "new.csv").write_text("\n".join(["path,label,split", *rows]))
    capsys.readouterr()
    main(["test", "--ckpt_path", "best", "--data.labels", "mine/new.csv", *QUICK[:4]])
    shown = capsys.readouterr()
    assert "test: 4 images of the test split" in shown.out and "warning" not in shown.err
    assert shown.out.startswith("model     logs/run/version_0/checkpoints/best.ckpt (epoch ")


def test_a_run_that_comes_to_nothing_leaves_nothing(tree: Path, here: Path, failing: Failing) -> None:
    assert "no such folder: nowhere" in failing(fit(Path("nowhere")))
    assert not (here / "logs").exists()
    main(fit(tree, "--test_after_fit", "false"))
    shutil.copytree(tree, here / "mine" / "test")
    message = failing(["validate", "--ckpt_path", "best", "--data.root", "mine", *QUICK[:4]])
    assert "mine has no images of the val split; it has 60 of test" in message
    assert "trained on images of 8 pixels" in failing(["test", "--ckpt_path", "best", "--data.image_size", "16"])
    assert [run.name for run in (here / "logs").iterdir()] == ["run"]


def test_the_help_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert "--data.image_size" in shown and "--model.net" in shown
    assert "known subclasses" not in shown and "data_description" not in shown


def test_a_restarted_job_continues_its_own_run(
    tree: Path, here: Path, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = fit(tree, "--test_after_fit", "false", "--ckpt_path", "resume")
    assert "give it by --run_name" in failing(quick)
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


def test_a_test_split_alone_is_tested(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree, "--test_after_fit", "false", "--data.folds", "4"))
    shutil.copytree(tree, here / "mine" / "test")
    main(["test", "--ckpt_path", "best", "--data.root", "mine", *QUICK[:4]])
    assert "test: 60 images of the test split" in capsys.readouterr().out


def test_weights_alone_cannot_be_continued(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree, "--checkpoint.save_weights_only", "true", "--test_after_fit", "false"))
    assert "holds weights only: start a new run from them by --model.init_from" in failing(
        ["fit", "--ckpt_path", "best", "--trainer.max_epochs", "9"]
    )
    torch.save({"state_dict": {}, "hyper_parameters": {}}, "other.ckpt")
    assert "is not a checkpoint of this project" in failing(["test", "--ckpt_path", "other.ckpt"])


def test_averaged_weights_are_tested_after_fit_and_from_the_file(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ema = ["--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", "0.8"]
    main(fit(tree, *ema, "--model.tta", "flip", "--trainer.max_epochs", "3"))
    after_fit = capsys.readouterr().out.split("accuracy ")[1].splitlines()[0]
    best = here / "logs/run/version_0/checkpoints/best.ckpt"
    saved = torch.load(best, weights_only=True)
    averaged, live = saved["state_dict"], saved["current_model_state"]
    assert any(not torch.equal(averaged[key], live[key]) for key in averaged if key.startswith("net."))
    main(["test", "--ckpt_path", str(best), *QUICK[:4]])
    assert capsys.readouterr().out.split("accuracy ")[1].splitlines()[0] == after_fit


def test_tree_without_test_is_tested_on_val_and_says_so(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        for name, color in COLORS.items():
            write_images(tmp_path / "images" / split / name, 6, color)
    main(fit(tmp_path / "images"))
    shown = capsys.readouterr().out
    assert "no test split: val will be tested on" in shown and "test: 18 images of the val split" in shown


def test_callbacks_append(tree: Path, here: Path) -> None:
    Path("a.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: EarlyStopping\n      init_args: {monitor: val/loss}\n"
    )
    main([*fit(tree, "--test_after_fit", "false"), "--config", "a.yaml", "--trainer.callbacks", "ModelSummary"])
    callbacks = config_of(here / "logs" / "run" / "version_0")["trainer"]["callbacks"]
    assert isinstance(callbacks, list)
    assert [item["class_path"].rpartition(".")[2] for item in callbacks] == ["EarlyStopping", "ModelSummary"]


def test_configs_merge_deeply_and_name_files_beside_them(tree: Path, here: Path) -> None:
    Path("sub/model").mkdir(parents=True)
    Path("sub/model/x.yaml").write_text("net: {class_path: ConvNet, init_args: {dropout: 0.3}}\n")
    Path("sub/a.yaml").write_text("model: model/x.yaml\ntrainer: {max_epochs: 1, log_every_n_steps: 7}\n")
    Path("b.yaml").write_text("model: {net: {init_args: {dropout: 0.4}}}\ntrainer: {max_epochs: 3}\n")
    args = fit(tree, "--test_after_fit", "false", "--trainer.limit_train_batches", "1")
    main([*args, "--config", "sub/a.yaml", "--config", "b.yaml"])
    config = config_of(here / "logs" / "run" / "version_0")
    assert config["model"]["net"] == {"class_path": "project.modules.ConvNet", "init_args": {"dropout": 0.4}}
    assert config["trainer"]["log_every_n_steps"] == 7 and config["trainer"]["max_epochs"] == 2


def test_a_data_set_by_name_is_not_written_down_beside_own_images(tree: Path, here: Path) -> None:
    main(fit(tree, "--data.source", "Digits", "--trainer.max_epochs", "1"))
    run = Path("logs/run/version_0")
    assert config_of(run)["data"]["source"] is None
    assert "Digits" not in (run / "config.yaml").read_text()


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_runs_own_config_serves_every_command(
    command: str, tree: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(fit(tree, "--test_after_fit", "false"))
    run = here / "logs" / "run" / "version_0"
    main([command, "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--config", str(run / "config.yaml")])
    assert ("predictions:" if command == "predict" else "accuracy") in capsys.readouterr().out


def test_every_command_is_listed_on_one_screen_by_what_a_person_wants(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 80
    assert [line for line in lines if line in GROUPS] == list(
        dict.fromkeys(group for _, group, *_ in commands().values())
    )
    for command in commands():
        assert sum(line.startswith(f"  {command} ") for line in lines) == 1, command
    with pytest.raises(SystemExit):
        main(["test", "--help"])
    shown = capsys.readouterr().out
    assert "a file, or best or last" in shown and "hpc" not in shown  # not Lightning's words for it


def test_help_lists_the_options_of_the_classes_that_are_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model", "tests.test_cli.Further", "--help"])
    assert "--model.further" in capsys.readouterr().out


class Further(Classifier):
    """A module of one's own."""

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
        (["fit", "--test_after_fit"], "--test_after_fit wants a value, such as --test_after_fit true"),
        (["--config", "typo.yaml"], "say first what to do, then the options: train.py fit, validate"),
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
        (["tset"], "; did you mean test?"),
        (["fit", "--data.rooot", "x"], "unknown option --data.rooot; did you mean --data.root?"),
        (["fit", "--config", "old.yaml"], "unknown key data_description: this config is of an older version"),
        (["fit", "--data.sampling", "poisson"], "is now --data.sampler project.privacy.PoissonBatchSampler"),
        (["fit", "--model", "Classifyer"], "model: no class named Classifyer; did you mean Classifier?"),
        (["fit", "--data.root", "nowhere"], "no such folder: nowhere"),
        (["fit"], "no images: give --data.root DIR"),
        (["test"], "test needs a trained model"),
        (["predict", "--ckpt_path", "best"], "train one with `fit` first"),
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


def test_a_config_whose_lines_are_all_comments_changes_nothing(tree: Path, here: Path) -> None:
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
        (["--config", "stop.yaml", *STOP], "one already. Change that by its options alone"),
    ],
)
def test_mistakes_that_show_once_the_images_are_known(
    options: list[str], message: str, tree: Path, here: Path, failing: Failing
) -> None:
    Path("file").write_text("")
    stop = "{class_path: EarlyStopping, init_args: {monitor: val/loss}}"
    Path("stop.yaml").write_text(f"trainer: {{callbacks: [{stop}]}}")
    assert message in failing(fit(tree, *options))
    assert not Path("logs").exists()


def test_a_few_batches_to_judge_by_are_of_all_classes(tree: Path, here: Path) -> None:
    main(fit(tree, "--trainer.limit_test_batches", "1", "--data.batch_size", "6"))
    with (here / "logs" / "run" / "version_0" / "test_predictions.csv").open() as stream:
        assert len({row["class"] for row in csv.DictReader(stream)}) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(tree: Path, here: Path, failing: Failing) -> None:
    assert "gpu" in failing(["fit", "--data.root", str(tree), "--trainer.accelerator", "gpu"])


def test_unreadable_images_are_all_named_or_skipped(
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
    with pytest.warns(UserWarning, match="skipping 2 images"):
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
def test_images_without_permission_to_read(tree: Path, here: Path) -> None:
    """Root may read everything, until it gives that up."""
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("root reads every file, and there is no setpriv to give that up by")
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
    assert "skipping 2 images that cannot be read" in done.stderr and "58 images" in done.stdout


def test_an_image_that_disappears_during_training_is_named(tree: Path, here: Path, failing: Failing) -> None:
    """Unpacked and read by a worker process, whose error must arrive as one line too."""
    args = fit(tree, "--data.item_transforms+", "tests.test_cli.Vanish", "--data.item_transforms.tree", str(tree))
    assert "gone since the images were found): No such file" in failing([*args, "--data.num_workers", "1"])


class Vanish(torch.nn.Module):
    """An item transform that takes the files away while they are being read."""

    def __init__(self, tree: str) -> None:
        super().__init__()
        self.tree = tree

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        shutil.rmtree(self.tree, ignore_errors=True)
        return image


def test_class_weights_and_net_are_checked_against_the_data(tree: Path, here: Path, failing: Failing) -> None:
    assert "has 2 values, but the data has 3 classes" in failing(fit(tree, "--model.class_weights", "[1, 2]"))
    assert "image_size must be at least 4" in failing(fit(tree, "--data.image_size", "3"))


def test_other_classes_than_the_checkpoints_are_refused(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree))
    (tree / "red").rename(tree / "violet")
    assert "lacks class 'red', which the model was trained on" in failing(["test", "--ckpt_path", "best", *QUICK[:4]])


@pytest.mark.slow
def test_changed_images_are_noticed(tree: Path, here: Path, failing: Failing) -> None:
    main(fit(tree))
    shutil.copytree(tree, here / "moved")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*not as it was when the model was trained.*")
        main(["test", "--ckpt_path", "best", "--data.root", "moved", *QUICK[:4]])
    write_images(tree / "red" / "more", 1, COLORS["red"])
    with pytest.warns(UserWarning, match="not as it was when the model was trained"):
        main(["test", "--ckpt_path", "best", *QUICK[:4]])
    refused = failing(["fit", "--ckpt_path", "logs/run/version_0/checkpoints/last.ckpt", "--trainer.max_epochs", "4"])
    assert "changed since the checkpoint was made" in refused


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


@pytest.mark.parametrize("config", sorted(REPOSITORY.glob("configs/*.yaml")), ids=lambda path: path.stem)
def test_configs_run_a_batch(config: Path, tree: Path, here: Path) -> None:
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
    made = {option_name(key): value for key, value in flatten(yaml.safe_load(capsys.readouterr().out)).items()}
    for key, value in flatten(yaml.safe_load(overlay.read_text())).items():
        assert isinstance(value, list) or made[option_name(key)] == value


@pytest.mark.parametrize("overlay", ["photos", "mixing"])
def test_augmentations_train(overlay: str, tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(REPOSITORY / "configs" / "data" / f"{overlay}.yaml")
    main([*fit(tree, "--trainer.max_epochs", "4"), "--config", config])
    with (here / "logs" / "run" / "version_0" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[-1]["test/acc"]) == 1, "colors survive"


def test_balance(tree: Path, here: Path) -> None:
    """Two images of a class against twenty: drawn equally often, or weighed in the loss."""
    for file in sorted((tree / "red").iterdir())[4:]:
        file.unlink()
    main(fit(tree, "--data.sampling", "balanced", "--model.class_weights", "balanced", "--trainer.max_epochs", "1"))
    saved = torch.load(here / "logs/run/version_0/checkpoints/last.ckpt", weights_only=True)
    counts = saved["data_description"]["target"]["init_args"]["train_counts"]
    assert counts == [14, 14, 2]
    model = Classifier.load_from_checkpoint(here / "logs/run/version_0/checkpoints/last.ckpt", weights_only=True)
    assert (model.loss.weight * torch.tensor(counts)).tolist() == pytest.approx([10, 10, 10])


def test_transforms_that_change_the_size_are_refused(tree: Path, here: Path, failing: Failing) -> None:
    crop = ["--data.batch_transforms+", "kornia.augmentation.RandomCrop", "--data.batch_transforms.size", "[4, 4]"]
    assert "turn images of [8, 8] pixels into [4, 4]" in failing(fit(tree, *crop))


def figures_of(tree: Path, place: Path, processes: int, *more: str) -> list[float]:
    """Every loss and accuracy of a run by so many processes, which show one table and make one run folder."""
    place.mkdir()
    same = ["--data.batch_size", "16", "--data.batch_transforms", "[]", "--model.channels_last", "false", *more]
    done = process(fit(tree, "--trainer.devices", str(processes), *same), place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test: ") == 1, "one table"
    runs = list((place / "logs" / "run").iterdir())
    assert [run.name for run in runs] == ["version_0"], "one run folder"
    with (runs[0] / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    tags = ("val/loss", "val/acc", "train/loss", "test/acc")
    return [float(row[tag]) for row in rows for tag in tags if row[tag]]


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_balance_alike(tree: Path, tmp_path: Path) -> None:
    for file in sorted((tree / "red").iterdir())[4:]:
        file.unlink()
    balanced = ["--data.sampling", "balanced", "--model.class_weights", "balanced"]
    balanced += ["--trainer.callbacks", "tests.test_cli.CountLabels"]
    one, two = (figures_of(tree, tmp_path / f"world{count}", count, *balanced) for count in (1, 2))
    assert one == pytest.approx(two, rel=2e-3) and len(one) == 7
    ranks = [json.loads((tmp_path / "world2" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [sum(map(sum, batches)) for batches in ranks] == [30, 30], "two epochs of 30 images, half on each"
    for batches in ranks:
        assert min(map(sum, zip(*batches, strict=True))) >= 6, "the class of two images among thirty is drawn as others"
    assert [sum(each) for each in zip(*ranks[0], *ranks[1], strict=True)] == [20, 20, 20]


class CountLabels(Callback):
    """Writes how many images of each class were in every batch of this process."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: object, outputs: object, batch: Batch, *_: object
    ) -> None:
        self.batches.append(torch.bincount(batch.target, minlength=3).tolist())
        Path(f"rank{trainer.global_rank}.json").write_text(json.dumps(self.batches))


@pytest.mark.slow
def test_the_main_command_from_a_process(tmp_path: Path) -> None:
    config = str(REPOSITORY / "configs" / "convnet.yaml")
    done = process(["fit", "--config", config, "--trainer.max_epochs", "6"], tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    accuracy = float(done.stdout.split("accuracy ")[1].split("%")[0])
    assert accuracy >= 97
    Image.open(tmp_path / "data" / "digits" / "0" / "0000.png").verify()


def test_a_tool_that_trains_nothing_takes_no_config(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["check_data", "--config", "c.yaml"],
        ["check_data", "--data.root", "x"],
        ["shard", "a", "b", "--", "--trainer.max_epochs", "1"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2 and f"{words[0]} trains nothing" in capsys.readouterr().err
