"""Eight bits: smaller, and nearly always of the same opinion."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from project.cli import main
from project.deploy.load import load_exported
from tests.conftest import QUICK, fit

RUN = Path("logs/run/version_0")


@pytest.mark.slow
@pytest.mark.parametrize("net", [[], ["--model.net", "project.modules.ResNet", "--model.net.depth", "8"]])
def test_int8_is_smaller_and_its_loss_is_told(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str], net: list[str]
) -> None:
    main(fit(tree, "--test_after_fit", "false", "--trainer.max_epochs", "8", *net))
    for int8 in ("false", "true"):
        main(["export", "--ckpt_path", "best", "--int8", int8, *QUICK[:6]])
    shown = capsys.readouterr()
    told = re.search(r"test +9 images: accuracy ([\d.]+)% in float32, ([\d.]+)% in int8; ([\d.]+)% of", shown.out)
    assert told and float(told[1]) == float(told[2]) == float(told[3]) == 100, shown.out
    assert "WARNING" not in shown.err + shown.out
    whole, small = RUN / "model.onnx", RUN / "model_int8.onnx"
    assert small.stat().st_size < (0.35 if not net else 0.75) * whole.stat().st_size
    metadata = load_exported(small).metadata
    assert metadata.pop("int8_calibration_images") == 42 and metadata == load_exported(whole).metadata
    assert sorted(file.name for file in RUN.glob("*.onnx")) == ["model.onnx", "model_int8.onnx"]


def test_int8_mistakes_end_in_one_line(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    main(fit(tree, "--test_after_fit", "false"))
    said = failing(["export", "--ckpt_path", "best", "--int8", "true", "--format", "pt2"])
    assert said == "error: --int8 true goes with --format onnx, not pt2"
    unlabeled = ["--data.root", str(tree / "red")]
    assert "red lacks class" in failing(["export", "--ckpt_path", "best", "--int8", "true", *unlabeled])
    assert not list(RUN.glob("*.onnx"))
