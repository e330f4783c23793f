"""Tests of `model.teacher`."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from project.cli import main
from project.errors import UserError
from project.interface import Batch, ClassTarget, Target
from project.modules import Classifier
from project.modules.distillation import output_order
from project.modules.tasks import Multiclass, Task
from tests.conftest import COLORS, QUICK, fit, write_images
from tests.runs import RUN, load, same

Failing = Callable[[list[str]], str]
TEACHER = Path("teacher.ckpt")
WITHOUT_TEST = ["--test_after_fit", "false"]
TAUGHT = [*WITHOUT_TEST, "--model.net.dropout", "0.2", "--model.teacher", str(TEACHER)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a ResNet with its own normalization and test-time augmentation."""
    folder = tmp_path_factory.mktemp("teacher")
    for name, color in COLORS.items():
        write_images(folder / "images" / name, 20, color)
    net = ["--model.net", "project.modules.ResNet", "--model.net.depth", "8", "--model.tta", "flip"]
    options = [*net, "--data.channel_statistics", "fixed", "--trainer.default_root_dir", str(folder / "logs")]
    with contextlib.chdir(folder):
        main(fit(folder / "images", *WITHOUT_TEST, *options))
    return folder / "logs/run/version_0/checkpoints/last.ckpt"


@pytest.fixture
def teacher(trained: Path, here: Path) -> Path:
    """The trained teacher in the current folder."""
    return Path(shutil.copy(trained, TEACHER))


def test_loss_of_soft_targets() -> None:
    task, draw = Multiclass(ClassTarget(["a", "b", "c"], [1, 1, 1])), torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, generator=draw)
    p, q = (teacher / 4).softmax(1), (student / 4).softmax(1)
    loss = task.distillation_loss(student, teacher, 4.0)
    assert float(loss) == pytest.approx(float(16 * (p * (p / q).log()).sum(1).mean()), rel=1e-5)
    assert float(task.distillation_loss(teacher, teacher, 4.0)) == 0
    assert float(task.distillation_loss(student[:0], teacher[:0], 4.0)) == 0
    with pytest.raises(UserError, match="model.teacher is not supported by Task: leave it out"):
        Task(Target()).distillation_loss(student, teacher, 4.0)


def test_classes_are_matched_by_name() -> None:
    def order(names: str) -> list[int] | None:
        return output_order(TEACHER, ClassTarget([*names], [1, 1, 1]), ClassTarget(["a", "b", "c"], [2, 2, 2]))

    assert order("abc") is None
    assert order("bca") == [2, 0, 1]
    with pytest.raises(UserError, match=r"predicts 3 classes, which are not .*in one of them only: d, c\)"):
        order("abd")


class CheckLoss(L.Callback):
    """Callback that compares each training loss with the formula, for mixed images and labels, and the val loss."""

    steps = 0

    def __init__(self) -> None:
        self.teacher = Classifier.load_from_checkpoint(TEACHER, weights_only=True).eval()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        assert batch.target.is_floating_point()
        student, teacher = pl_module(batch.inputs), self.teacher.net(self.teacher.preprocess(batch.inputs))
        soft = F.kl_div((student / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="batchmean")
        expected = 0.75 * F.cross_entropy(student, batch.target) + 0.25 * 4 * soft
        torch.testing.assert_close(outputs["loss"], expected)
        CheckLoss.steps += 1

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.expected = F.nll_loss(outputs.log(), batch.target)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        torch.testing.assert_close(pl_module.metrics.results["val"].scalars["loss"], self.expected)


def test_soft_targets_of_the_augmented_batch(tree: Path, teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The teacher normalizes images by itself; its test-time augmentation is not used."""
    options = ["--model.teacher", str(teacher), "--model.teacher_weight", "0.25", "--model.teacher_temperature", "2"]
    mixing = ["--data.batch_transforms+", "project.datamodules.MixUp", "--model.optimizer.lr", "0"]
    main(fit(tree, *WITHOUT_TEST, *options, *mixing, "--trainer.callbacks", f"{__name__}.CheckLoss"))
    assert CheckLoss.steps == 6
    assert "teacher   ResNet from teacher.ckpt; temperature 2, weight 0.25" in capsys.readouterr().out


def test_weight_zero_changes_nothing(tree: Path, teacher: Path) -> None:
    """Neither random numbers nor the checkpoint, which has no weights of the teacher."""
    main(fit(tree, *TAUGHT, "--model.teacher_weight", "0"))
    main(fit(tree, *TAUGHT[:-2]))
    taught, alone = load(RUN), load(RUN.with_name("version_1"))
    for part in ("state_dict", "optimizer_states"):
        same(taught[part], alone[part], part)


@pytest.mark.slow
def test_resume_is_exact_and_needs_the_file(tree: Path, teacher: Path, failing: Failing) -> None:
    main(fit(tree, *TAUGHT, "--run_name", "uninterrupted"))
    main(fit(tree, *TAUGHT, "--trainer.max_steps", "4"))
    moved, config = shutil.move(teacher, "moved.ckpt"), (RUN / "config.yaml").read_bytes()
    main(["test", "--ckpt_path", "best", *QUICK[:4]])
    rest = ["fit", "--ckpt_path", str(RUN / "checkpoints" / "last.ckpt"), "--trainer.max_steps", "-1", *WITHOUT_TEST]
    assert "model.teacher: no such checkpoint: teacher.ckpt" in failing(rest)
    assert (RUN / "config.yaml").read_bytes() == config
    main([*rest, "--model.teacher", moved])
    ends = load(RUN), load(Path("logs/uninterrupted/version_0"))
    for part in ("state_dict", "optimizer_states", "global_step"):
        same(*(end[part] for end in ends), part)


def test_errors(tree: Path, teacher: Path, failing: Failing) -> None:
    assert "need --model.teacher FILE" in failing(fit(tree, "--model.teacher_weight", "0.5"))
    assert "model.teacher_weight in [0, 1], got 4.0 and 2.0" in failing(
        fit(tree, *TAUGHT, "--model.teacher_weight", "2")
    )
    larger = failing(fit(tree, *TAUGHT, "--data.image_size", "16"))
    assert "was trained on images 8x8, but this run has images 16x16: use the data options" in larger
    (tree / "red").rename(tree / "white")
    assert "in one of them only: red, white): choose a teacher" in failing(fit(tree, *TAUGHT))
