"""Run the documented commands for texts, in order."""

import csv
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from project.cli import main
from tests.commands import find_commands
from tests.conftest import REPOSITORY

QUICK = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
QUICK += ["--trainer.limit_train_batches", "30"]
WORDS = ["a", "the", "this", "film", "book", "food", "room", "was", "is", "with", "and", "very", "it", "we", "they"]


def write_tables() -> None:
    """Write reviews.csv with labels, and new.csv with texts in two columns."""
    draw = np.random.default_rng(0)
    with Path("reviews.csv").open("w", newline="") as reviews, Path("new.csv").open("w", newline="") as new:
        labeled, unlabeled = csv.writer(reviews), csv.writer(new)
        labeled.writerow(["text", "label"])
        unlabeled.writerow(["text", "review"])
        for number in range(200):
            name, word = (("negative", "awful"), ("positive", "lovely"))[number % 2]
            text = " ".join([*draw.choice(WORDS, 12), word, *draw.choice(WORDS, 6)])
            labeled.writerow([text, name])
            unlabeled.writerow([text, text])


@pytest.mark.slow
def test_documented_commands_of_texts_work(here: Path) -> None:
    shutil.copytree(REPOSITORY / "configs", "configs")
    write_tables()
    pages = (REPOSITORY / "docs" / name for name in ("text.md", "deploy.md"))
    texts = [each.text.rpartition("&& ")[2] for page in pages for each in find_commands(page) if each.block]
    documented = [shlex.split(text.removeprefix("python train.py ")) for text in texts if "python train.py" in text]
    done = []
    for words in documented:
        about_texts = words[0] == "check_texts" or {"reviews.csv", "new.csv", "--text", "configs/text.yaml"} & {*words}
        if not about_texts or "configs/language_model.yaml" in words:  # needs a model; tests/modules/texts
            continue
        if words[0] == "predict_exported" and not Path("model.onnx").exists():
            main(["export", "--ckpt_path", "best", "--output", "model.onnx", *QUICK[2:6]])
        main([*words, *(QUICK if words[0] == "fit" else ())])
        done.append(words[0])
    assert done[:2] == ["fit", "fit"] and done.count("predict") == 2 and done.count("predict_exported") == 2
    assert "check_texts" in done
    with Path("predictions.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 200, "new.csv by the exported file"


@pytest.mark.parametrize("config", sorted(REPOSITORY.glob("configs/text*.yaml")), ids=lambda path: path.stem)
def test_configs_of_texts_run_one_batch(config: Path, here: Path) -> None:
    main(["fit", "--config", str(config), "--trainer.fast_dev_run", "true", *QUICK[2:6]])
