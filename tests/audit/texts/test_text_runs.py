"""Commands after `fit` on texts: they name texts as such, and `groups` joins a table by its column of texts."""

import csv
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from project.audit.group_table import read_groups
from project.cli import main
from project.errors import UserError

RUN = Path("logs/reviews/version_0")
BEST = ["--ckpt_path", str(RUN / "checkpoints/best.ckpt"), "--trainer.accelerator", "cpu"]
NET = ["--model.net", "project.modules.networks.texts.ByteNet", "--model.optimizer.lr", "0.01"]
TABLE = ["--data", "project.datamodules.texts.TextDataModule", "--data.table", "reviews.csv"]


def write_reviews(count: int = 400) -> None:
    """Write reviews, some of them twice; every sixth has a wrong label, and only the first half is from the web."""
    draw = random.Random(0)
    with Path("reviews.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["review", "label", "source"])
        for number in range(count):
            good = draw.random() < 0.5
            words = [
                draw.choice(["fine", "great"] if good else ["poor", "awful"]),
                *draw.choices(["a", "film", "of", "plot"], k=6),
            ]
            draw.shuffle(words)
            row = [" ".join(words), "good" if good != (number % 6 == 0) else "bad", "web" if number % 2 else "mail"]
            writer.writerows([row] * (2 if number % 20 == 0 else 1))


@pytest.mark.slow
def test_commands_count_texts(
    here: Path, capsys: pytest.CaptureFixture[str], failing: Callable[[list[str]], str]
) -> None:
    write_reviews()
    options = ["--trainer.max_epochs", "4", "--trainer.accelerator", "cpu", "--data.val_fraction", "0.3"]
    main(["fit", *TABLE, "--data.columns.text", "review", *NET, *options, "--run_name", "reviews"])
    shown = capsys.readouterr().out
    assert "texts/s" in shown and re.search(r"recall .*texts", shown) and "images" not in shown
    assert "train/texts_per_second" in (RUN / "metrics.csv").read_text().partition("\n")[0]

    main(["calibrate", *BEST, "--target_accuracy", "0.6", "--coverage", "0.8"])
    main(["leak_test", *BEST])
    main(["test", *BEST])
    main(["groups", str(RUN), "--column", "source"])
    main(["model_card", str(RUN)])
    main(["report", str(RUN), "logs/test/version_0"])
    shown = capsys.readouterr().out
    assert "others, by a hash of texts" in shown and "of the texts reach the confidence threshold" in shown
    assert "training texts from unseen ones" in shown and re.search(r"source +texts +accuracy", shown)
    assert "image" not in shown
    card = (RUN / "model_card.md").read_text()
    assert "pipeline_tag: text-classification" in card and "| class | texts |" in card and "image" not in card.lower()
    assert re.search(r"on the\s+same [\d,]+ texts", Path("comparison.html").read_text())
    with (RUN / "groups.csv").open() as stream:
        counted = {row["group"]: int(row["texts"]) for row in csv.DictReader(stream)}
    with (RUN / "test_predictions.csv").open() as stream:
        tested = [row["text"] for row in csv.DictReader(stream)]
    assert sum(counted.values()) == len(tested) > len(set(tested)), "all have a group, also those listed twice"

    main(["predict", *BEST, "--text", "a great   film"])
    assert "a great film: good" in (shown := capsys.readouterr().out) and "predictions.csv, 1 text\n" in shown
    assert "--folder_level is for samples with paths" in failing(["groups", str(RUN), "--folder_level", "0"])
    private = ["--trainer.callbacks", "project.privacy.DifferentialPrivacy", "--trainer.callbacks.epsilon", "3"]
    refused = failing(["fit", *TABLE, "--data.columns.text", "review", *NET, *options, *private])
    assert "DifferentialPrivacy is for images, and the data has texts" in refused


def test_groups_of_repeated_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ("once", "x"),
        ("same", "x"),
        ("same", "x"),
        ("order", "x"),
        ("order", "y"),
        ("differ", "x"),
        ("differ", "y"),
    ]
    file = tmp_path / "table.csv"
    file.write_text("\n".join(["text,group", *(f"{text} ,{group}" for text, group in rows)]))
    tested = ["order", "\u200bonce", "same", "order", "differ", "a" * 100]
    found = read_groups(file, "text", "review", ["group"], tested, "texts")
    assert found == {"group": ["x", "x", "x", "y", "", ""]}
    shown = capsys.readouterr().out
    assert f"skipping 1 of 6 tested texts that are not in {file}, e.g. {'a' * 79}…" in shown
    assert f"skipping 1 of 6 tested texts that {file} lists with different values" in shown
    with pytest.raises(UserError, match="lists none of the tested texts: texts must be given like nothing"):
        read_groups(file, "text", "text", ["group"], ["nothing"], "texts")
