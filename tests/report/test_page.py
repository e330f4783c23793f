"""Tests of the report of a run and of comparisons."""

import base64
import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import (
    average_precision_score,
    mean_absolute_error,
    precision_recall_fscore_support,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from project.cli import main
from tests.conftest import COLORS, QUICK, fit, write_images
from tests.report.made import made_labels, made_run, made_values
from tests.runs import finish

RUN = Path("logs/run/version_0")
Failing = Callable[[list[str]], str]


def text_of(page: Path) -> str:
    """Return the text of a page without tags, on one line."""
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def table(run: Path) -> list[dict[str, str]]:
    with (run / "test_predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def error(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_fit_and_test_write_a_report(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(fit(tree))
    assert f"report    {RUN / 'report.html'}" in capsys.readouterr().out
    rows = table(RUN)
    with (RUN / "metrics.csv").open() as stream:
        accuracy = [row["test/acc"] for row in csv.DictReader(stream) if row["test/acc"]]
    correct = sum(row["class"] == row["predicted"] for row in rows)
    assert len(rows) == 9 and correct / 9 == pytest.approx(float(accuracy[-1]))
    assert all(row["path"].startswith(row["class"]) for row in rows)
    assert all((row["probability"] == row["class_probability"]) == (row["class"] == row["predicted"]) for row in rows)
    shown = text_of(RUN / "report.html")
    for text in (
        f"{correct} of 9 test images classified correctly",
        "of 2, val accuracy",
        "train 42 images",
        "precision 32-true",
    ):
        assert text in shown
    assert 'class="missing"' not in (RUN / "report.html").read_text()

    main(["test", "--ckpt_path", "best", *QUICK])
    again = Path("logs/test/version_0/report.html")
    assert table(again.parent) == rows
    assert "of 2, val accuracy" in text_of(again) and "Training time" in text_of(again), "the training run is found"


@pytest.mark.slow
def test_options_are_listed_with_their_source(tree: Path, here: Path) -> None:
    Path("mine.yaml").write_text("model: {optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.002}}}\n")
    for args in (
        [*fit(tree), "--config", "mine.yaml", "--model.optimizer.lr", "0.0005"],
        ["test", "--ckpt_path", "best", *QUICK[:4]],
    ):
        finish(args, here)
    for run in (RUN, Path("logs/test/version_0")):
        shown = text_of(run / "report.html")
        assert "model.optimizer.lr 0.0005 command line , overrides 0.002" in shown
        assert "model.optimizer Adam mine.yaml" in shown and "--config mine.yaml" in shown
    assert "test \\ --ckpt_path best" in shown
    Path("mine.yaml").unlink()
    main(["report", str(RUN)])
    assert "Config file mine.yaml not found" in text_of(RUN / "report.html")


def test_fast_dev_run_and_runs_without_a_logger_write_no_report(tree: Path, here: Path) -> None:
    main(fit(tree, "--trainer.fast_dev_run", "true"))
    main(fit(tree, "--trainer.logger", "false", "--trainer.max_epochs", "1"))
    left = [item.name for item in here.rglob("*") if item.name.startswith("test") or item.suffix == ".html"]
    assert not left


def test_a_report_on_val_has_a_note(here: Path, tmp_path: Path) -> None:
    root = tmp_path / "two"
    for split, count in {"train": 8, "val": 4}.items():
        for name, color in COLORS.items():
            write_images(root / split / name, count, color)
    main(fit(root, "--trainer.max_epochs", "1"))
    assert "of 12 val images classified correctly" in text_of(RUN / "report.html")
    assert "No test split: evaluated on the val images" in text_of(RUN / "report.html")


def test_selected_samples(tree: Path, here: Path) -> None:
    main(fit(tree, "--trainer.max_epochs", "1", "--data.test_fraction", "0.7", "--model.optimizer.lr", "1e-9"))
    rows = {row["path"]: row for row in table(RUN)}
    samples = json.loads((RUN / "test.json").read_text())["samples"]
    wrong = {path: float(row["probability"]) for path, row in rows.items() if row["class"] != row["predicted"]}
    kept = [wrong[each["path"]] for each in samples["mistakes"]]
    assert all("attribution" in each for kind in ("mistakes", "uncertain") for each in samples[kind])
    assert len(wrong) > len(kept) == 12 and kept == sorted(wrong.values(), reverse=True)[:12]
    least = [float(rows[each["path"]]["probability"]) for each in samples["uncertain"]]
    assert least == sorted(float(row["probability"]) for row in rows.values())[:12]
    assert [each["path"].split("/")[0] for each in samples["sample"]] == sorted(COLORS)


class BlockReport(L.Callback):
    """Callback that makes writing the report fail."""

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        (Path(trainer.log_dir or "") / "report.html").mkdir()


def test_a_failing_report_does_not_fail_the_run(tree: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="report.html was not written"):
        main(fit(tree, "--trainer.max_epochs", "1", "--trainer.callbacks", "tests.report.test_page.BlockReport"))
    assert "predict   " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_test_each_image_once(tree: Path, here: Path) -> None:
    options = ["--trainer.max_epochs", "1", "--data.test_fraction", "0.5"]
    shown = finish([*fit(tree, *options), "--trainer.devices", "2", "--trainer.strategy", "ddp"], here)
    assert shown.count("report    ") == 1
    main(["test", "--ckpt_path", "best", *QUICK[:4]])
    alone = Path("logs/test/version_0")
    assert [row["path"] for row in table(RUN)] == [row["path"] for row in table(alone)]
    two, one = (json.loads((run / "test.json").read_text())["samples"] for run in (RUN, alone))
    assert [each["path"] for each in two["sample"]] == [each["path"] for each in one["sample"]]
    assert not list(RUN.glob("*part*"))


def test_missing_files_are_reported(tree: Path, here: Path) -> None:
    main(fit(tree, "--trainer.max_epochs", "1"))
    (RUN / "metrics.csv").unlink()
    (RUN / "environment.yaml").unlink()
    (RUN / "test.json").write_text('{"cut of')
    main(["report", str(RUN)])
    shown = text_of(RUN / "report.html")
    for text in (
        "No test.json",
        "No training curves",
        "no samples",
        "of 9 test images classified correctly",
        "is unknown",
    ):
        assert text in shown


def test_untested_and_repeated_runs_are_rejected(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder: logs" in error(["report", "logs"], capsys)
    (here / "logs").mkdir()
    assert "has no test_predictions.csv" in error(["report", "logs"], capsys)
    run = str(made_run(here / "one", 3, 30))
    assert "given twice" in error(["report", run, f"{run}/"], capsys)


def test_last_selects_the_most_recently_tested_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no tested run found in logs" in error(["report", "last"], capsys)
    for name in ("old", "new"):
        made_run(here / "logs" / name / "version_0", 3, 30)
    main(["report", "last"])
    assert Path("logs/new/version_0/report.html").is_file() and not Path("logs/old/version_0/report.html").exists()


def test_names_are_escaped(here: Path) -> None:
    run = made_run(here / "<i>odd", 3, 60)
    for file in ("test_predictions.csv", "test.json"):
        (run / file).write_text((run / file).read_text().replace("class 000", "<b>&amp; cat</b>"))
    main(["report", str(run), "--output", "page.html"])
    page = Path("page.html").read_text()
    assert "<b>&amp; cat" not in page and "&lt;b&gt;&amp;amp; cat&lt;/b&gt;" in page and "<i>odd" not in page


def test_report_of_a_custom_target(here: Path) -> None:
    run = here / "logs" / "run" / "version_0"
    run.mkdir(parents=True)
    (run / "test_predictions.csv").write_text("path,target,predicted\n0,3.500000,1.250000\n1,2.000000,2.100000\n")
    facts = {"scalars": {"loss": 0.5, "r2": 0.8125}, "loss": 0.5, "kind": "text", "input": "", "split": "test"}
    facts |= {"split_sizes": {"train": 8, "test": 2}, "folder": "texts", "net": "Bytes", "parameters": 1000}
    samples = {"mistakes": [{"path": "0", "text": "a <b>bold</b> claim"}], "sample": [{"path": "1", "text": "calm"}]}
    (run / "test.json").write_text(json.dumps({**facts, "samples": samples}))
    (run / "environment.yaml").write_text("command: train.py fit --model.optimizer.lr 0.01\n")
    (run / "config.yaml").write_text("checkpoint: {monitor: val/loss, mode: min}\nmodel: {optimizer: {lr: 0.01}}\n")
    (run / "metrics.csv").write_text("step,epoch,train/loss,val/loss\n9,0,2.0,1.5\n19,1,1.0,0.75\n")
    main(["report", str(run)])
    shown = text_of(run / "report.html")
    for text in (
        "Evaluated on 2 test texts",
        "R² 0.8125 test",
        "Best epoch 2 of 2",
        "model.optimizer.lr 0.01 command line",
    ):
        assert text in shown
    assert "a <b>bold</b> claim target 3.500000 predicted 1.250000 0" in shown and "Example texts calm" in shown
    page = (run / "report.html").read_text()
    assert page.count('<svg viewBox="0 0 360') == 1 and "Loss: train from 2 to 1; val from 1.5 to 0.75" in page
    assert "<img" not in page and "image" not in shown and "Confusion" not in shown and 'class="missing"' not in page


ODD = ["predicted", "path", "<b>odd</b>", "rare"]
"""Labels with the names of other columns, and with markup."""


def test_report_of_labels(here: Path) -> None:
    run = made_labels(here / "run", ODD, 400)
    facts = json.loads((run / "test.json").read_text())
    facts["samples"] = {"mistakes": [{"path": "0003.png", "image": "data:,"}]}
    (run / "test.json").write_text(json.dumps(facts))
    main(["report", str(run)])
    page, shown = (run / "report.html").read_text(), text_of(run / "report.html")
    with (run / "test_predictions.csv").open(newline="") as stream:
        cells = np.array(list(csv.reader(stream))[1:])
    for name, truth, score in zip(ODD, cells[:, 3:7].T, cells[:, 7:].T, strict=True):
        known = truth != ""
        label, score = truth[known].astype(float), score[known].astype(float)
        rates = precision_recall_fscore_support(label, score >= 0.4, average="binary")[:3]
        scores = [*rates[:2], average_precision_score(label, score), roc_auc_score(label, score), rates[2]]
        row = f"{name} 100 {label.sum():.0f} {known.sum()} 0.4 {' '.join(f'{100 * x:.1f} %' for x in scores)}"
        assert row in shown.replace("\u00a0", " "), row
        assert f"{html.escape(name)}: {100 * scores[3]:.1f}\u00a0%" in page, "legend of the ROC curves"
    assert f"{(cells[:, 3:7] == '').sum()} unknown labels are left out" in shown
    assert page.count('class="curve macro" points') == 2 and "Reliability diagram" in shown and "7 labels" in shown
    assert "F1 80.00" in shown and "mAP 90.00" in shown and "Confusion" not in shown and "<b>odd" not in page
    predicted, truth = cells[3, 2].replace("|", ", ") or "no label", cells[3, 1].replace("|", ", ") or "no label"
    assert f"predicted {predicted} true {truth}" in shown or f"predicted {predicted} correct" in shown
    (run / "test.json").unlink()
    main(["report", str(run)])
    assert "Per-label metrics" in text_of(run / "report.html"), "labels are found in the header of the table"


def test_report_of_values(here: Path) -> None:
    run = made_values(here / "run", ["angle", "class"], 400)
    main(["report", str(run)])
    page, shown = (run / "report.html").read_text(), text_of(run / "report.html")
    with (run / "test_predictions.csv").open(newline="") as stream:
        cells = np.array(list(csv.reader(stream))[1:])
    for column, name in enumerate(["angle", "class"]):
        known = cells[:, 1 + column] != ""
        truth, predicted = cells[known, 1 + column].astype(float), cells[known, 3 + column].astype(float)
        errors = mean_absolute_error(truth, predicted), root_mean_squared_error(truth, predicted)
        scores = [*errors, r2_score(truth, predicted), spearmanr(truth, predicted).statistic]
        assert f"{name} {known.sum()} {' '.join(f'{x:.4g}' for x in scores)}" in shown
        assert f"{name}: predicted against true values of {known.sum()} samples" in page
        assert f"Residuals of {name}" in shown
    assert "MAE 1.25" in shown and "unknown values are left out" in shown and "mean 20, standard deviation 5" in shown


@pytest.mark.parametrize(
    ("made", "metric"), [(made_labels, "Per-label average precision"), (made_values, "Per-value MAE")]
)
def test_comparison_of_labels_and_values(
    here: Path, capsys: pytest.CaptureFixture[str], made: Callable[..., Path], metric: str
) -> None:
    runs = [made(here / name, ["a", "b"], 200, noise) for name, noise in {"one": 0.5, "two": 1.5}.items()]
    main(["report", *map(str, runs)])
    shown = text_of(Path("comparison.html"))
    assert metric in shown and "Significance tests are available for classes only" in shown and "McNemar" not in shown
    other = made_run(here / "classes", 3, 30)
    message = error(["report", str(runs[0]), str(other)], capsys)
    assert "here/classes with classes: they cannot be compared" in message


def test_fit_reports_the_metric_of_the_task(here: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 40, COLORS["red"])
    rows = [f"{i:03d}.png,{i % 2},{i % 3 % 2 if i % 5 else ''},{i / 10}" for i in range(40)]
    (tmp_path / "images" / "t.csv").write_text("\n".join(["path,odd,third,size", *rows]))
    for columns, metric, title in (("[odd,third]", "f1", "F1"), ("size", "mae", "MAE")):
        options = ["--data.table", str(tmp_path / "images" / "t.csv"), "--data.columns.label", columns]
        main([*fit(tmp_path / "images", *options), "--data.batch_transforms", "[]"])
        run = max(Path("logs/run").iterdir())
        facts = json.loads((run / "test.json").read_text())
        assert facts["headline"][0] == metric and facts["target"]["kind"] in ("labels", "values")
        page = (run / "report.html").read_text()
        assert f"<h3>{title}</h3>" in page and f'<dl class="tiles">\n<div><dt>{title}</dt>' in page
        assert "<h3>Accuracy</h3>" not in page and "classified correctly" not in page


def test_report_of_text_classification(here: Path) -> None:
    run = made_run(here / "run", 3, 30, images_in="texts")
    facts = json.loads((run / "test.json").read_text()) | {"kind": "text"}
    facts["samples"] = {"uncertain": [{"path": "class 000/000000.jpg", "text": "a claim"}]}
    (run / "test.json").write_text(json.dumps(facts))
    main(["report", str(run)])
    shown = text_of(run / "report.html")
    assert (
        "of 30 test texts classified correctly" in shown
        and "a claim predicted class 000" in shown
        and "images" not in shown
    )


def test_comparison_of_runs_on_the_same_images(here: Path) -> None:
    runs = [made_run(here / name, 5, 1000, accuracy) for name, accuracy in {"a": 0.6, "b": 0.7, "c": 0.605}.items()]
    main(["report", *map(str, runs[:2])])
    shown = text_of(Path("comparison.html"))
    assert (
        "b is significantly more accurate than" in shown
        and "on the same 1,000 images" in shown
        and "McNemar's test: statistically significant (p < 0.001)" in shown
    )
    main(["report", *map(str, (runs[0], runs[2])), "--output", "deep/near.html"])
    assert "No statistically significant difference between" in text_of(Path("deep/near.html"))
    main(["report", *map(str, runs)])
    assert "Holm-corrected for 2 comparisons" in text_of(Path("comparison.html"))


def test_comparison_of_runs_on_different_images(here: Path) -> None:
    one = made_run(here / "one", 4, 400)
    other = made_run(here / "other", 4, 300, images_in="elsewhere")
    main(["report", str(one), str(other)])
    shown = text_of(Path("comparison.html"))
    assert "tested on different images" in shown and "McNemar" not in shown
    part = made_run(here / "part", 4, 300)
    main(["report", str(one), str(part)])
    shown = text_of(Path("comparison.html"))
    assert "The test sets differ: 400 images" in shown and "300 images that both runs were tested on" in shown


def test_common_classes_are_checked_for_each_pair_of_runs(here: Path) -> None:
    runs = [made_run(here / name, 3, 300, accuracy) for name, accuracy in {"a": 0.5, "b": 0.8, "c": 0.5}.items()]
    for file in ("test_predictions.csv", "test.json"):
        (runs[2] / file).write_text((runs[2] / file).read_text().replace("class 0", "kind 0"))
    main(["report", *map(str, runs)])
    shown = text_of(Path("comparison.html"))
    assert (
        "b is significantly more accurate than here/a" in shown
        and "here/c and here/a have no classes in common" in shown
    )
    assert "The runs have no classes in common" in shown


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (",class 001,", ",nobody,", "'nobody'"),
        (",0.", ",zero.", "zero."),
        ("class_probability", "other", "no column 'class_probability'"),
        ("path,class,", "", "no column 'class'"),
    ],
)
def test_a_corrupt_table_is_reported(
    here: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, why: str
) -> None:
    file = made_run(here / "run", 3, 30) / "test_predictions.csv"
    file.write_text(file.read_text().replace(before, after, 1))
    message = error(["report", "run"], capsys)
    assert "test_predictions.csv" in message and why in message


def test_a_report_of_a_thousand_classes_is_small(here: Path) -> None:
    run = made_run(here / "many", 1000, 20_000)
    main(["report", str(run)])
    page = run / "report.html"
    assert page.stat().st_size < 400_000
    assert page.read_text().count('<tr><th scope="row"') == 1000 + 12, "all classes, and the most confused pairs"


@pytest.mark.slow
def test_large_sample_images_are_downscaled(here: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for name, color in COLORS.items():
        write_images(root / name, 10, color, size=300)
    main(fit(root, "--trainer.max_epochs", "1", "--data.image_size", "256", "--model.net", "project.modules.ResNet"))
    images = json.loads((RUN / "test.json").read_text())["samples"]["sample"]
    assert all(each["image"].startswith("data:image/jpeg;base64,") for each in images)
    image = Image.open(io.BytesIO(base64.b64decode(images[0]["image"].partition(",")[2])))
    assert image.size == (224, 224)
