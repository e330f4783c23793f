"""Tags and pages of TensorBoard."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from project.cli import main
from tests.browser import Browser, browser, chromium  # noqa: F401
from tests.conftest import fit

SCALARS = {
    *(f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "acc", "precision", "recall", "f1")),
    "train/learning_rate",
    "train/images_per_second",
    "test/calibration_error",
    "test/auroc",
    "test/average_precision",
    "test/brier",
    "test/kappa",
}


def test_logged_tags(tree: Path, here: Path) -> None:
    main(fit(tree))
    tags = EventAccumulator(str(here / "logs" / "run" / "version_0")).Reload().Tags()
    assert set(tags["scalars"]) == SCALARS, "no hp_metric"
    assert set(tags["images"]) == {"train/first_batch", "val/confusion_matrix", "test/confusion_matrix"}


@pytest.fixture
def board(tree: Path, here: Path) -> Iterator[str]:
    """URL of a TensorBoard that shows one run."""
    main(fit(tree))
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "logs", "--port", "0", "--load_fast", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if match := re.search(r"http://localhost:\d+/", line):
                yield match[0]
                break
        server.terminate()


@pytest.mark.slow
@pytest.mark.browser
def test_tensorboard_shows_curves_figures_and_hyperparameters(board: str, browser: Browser) -> None:  # noqa: F811
    browser.set_window_size(1400, 6000)  # cards are rendered only when in view
    browser.get(f"{board}#timeseries")
    for tag in ("val/acc", "train/loss", "train/images_per_second", "test/confusion_matrix"):
        browser.wait_for(tag.rpartition("/")[2])
    assert "hp_metric" not in browser.text()
    browser.get(f"{board}?fresh#hparams")
    for text in ("data.batch_size", "test/acc"):
        browser.wait_for(text)
