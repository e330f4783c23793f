"""Tests of int8 quantization: size, accuracy and error messages."""

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
def test_int8_is_smaller_and_its_accuracy_is_printed(
    tree: Path, here: Path, capsys: pytest.CaptureFixture[str], net: list[str]
) -> None:
    main(fit(tree, "--test_after_fit", "false", "--trainer.max_epochs", "8", *net))
    for value in ("false", "true"):
        main(["export", "--ckpt_path", "best", "--int8", value, *QUICK[:6]])
    shown = capsys.readouterr()
    match = re.search(r"test +9 images: accuracy ([\d.]+)% in float32, ([\d.]+)% in int8; ([\d.]+)% of", shown.out)
    assert match and float(match[1]) == float(match[2]) == float(match[3]) == 100, shown.out
    assert "WARNING" not in shown.err + shown.out
    float32, int8 = RUN / "model.onnx", RUN / "model_int8.onnx"
    assert int8.stat().st_size < (0.35 if not net else 0.75) * float32.stat().st_size
    metadata = load_exported(int8).metadata
    assert metadata.pop("int8_calibration_images") == 42 and metadata == load_exported(float32).metadata
    assert sorted(file.name for file in RUN.glob("*.onnx")) == ["model.onnx", "model_int8.onnx"]


def test_error_messages(tree: Path, here: Path, failing: Callable[[list[str]], str]) -> None:
    main(fit(tree, "--test_after_fit", "false"))
    message = failing(["export", "--ckpt_path", "best", "--int8", "true", "--format", "pt2"])
    assert message == "error: --int8 true requires --format onnx, got --format pt2"
    unlabeled = ["--data.root", str(tree / "red")]
    assert "red has no class folders" in failing(["export", "--ckpt_path", "best", "--int8", "true", *unlabeled])
    assert not list(RUN.glob("*.onnx"))
