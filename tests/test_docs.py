"""What the documents show works as it stands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from project.cli import main
from tests.conftest import QUICK, REPOSITORY, fit


@pytest.mark.slow
def test_extend_example_trains(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "extend.md").read_text()
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    for place, body in blocks:
        file = tmp_path / "extra" / place.removeprefix("src/project/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)
    # The example's files join the package without being written into it.
    start = (
        "import project.modules, project.datamodules; from project.cli import main;"
        f"project.modules.__path__.append({str(tmp_path / 'extra' / 'modules')!r});"
        f"project.datamodules.__path__.append({str(tmp_path / 'extra' / 'datamodules')!r}); main()"
    )
    configs = [str(tmp_path / "extra" / "configs" / name) for name in ("tiny.yaml", "stripes.yaml")]
    args = ["fit", "--config", configs[0], "--config", configs[1], "--trainer.max_epochs", "1", *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", start, *args], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "40 images, 2 classes" in done.stdout and "net       Tiny" in done.stdout


@pytest.mark.slow
def test_a_trained_model_answers_in_python(tree: Path, here: Path) -> None:
    text = (REPOSITORY / "docs" / "extend.md").read_text()
    (code,) = re.findall(r"```python\n(import torch.*?)```", text, re.DOTALL)
    main(fit(tree, "--run_name", "convnet", "--test_after_fit", "false", "--trainer.max_epochs", "8"))
    shutil.copy(tree / "red" / "000.png", "photo.jpg")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert shown.stdout == "red\n", shown.stderr
