"""Labels and values from a table to the results: metrics agree with scikit-learn on the written table."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn import metrics

from project.cli import main
from tests.conftest import QUICK
from tests.runs import RUN, load

SHORT = ["--trainer.max_epochs", "3", "--data.batch_size", "16", *QUICK]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def column(table: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) if row[name] else np.nan for row in table])


def results(stage: str = "test") -> dict[str, float]:
    """Return the last logged metrics of a stage."""
    table = [{key: value for key, value in row.items() if value} for row in rows(RUN / "metrics.csv")]
    last = [row for row in table if f"{stage}/loss" in row][-1]
    return {name.partition("/")[2]: float(value) for name, value in last.items() if name.startswith(f"{stage}/")}


@pytest.fixture
def colors(here: Path) -> Path:
    """A table of images: which of red, green and blue they contain, with unknown ones, and how much of each."""
    draw = np.random.default_rng(0)
    amounts = draw.uniform(0, 1, (120, 3)) * (draw.random((120, 3)) < 0.5)
    lines = ["path,red,green,blue,r,g,names"]
    for number, amount in enumerate(amounts):
        noise = draw.uniform(-10, 10, (8, 8, 3))
        Image.fromarray(np.clip(amount * 255 + noise, 0, 255).astype(np.uint8)).save(f"{number:03d}.png")
        flags = [str(int(each > 0.2)) for each in amount]
        if number % 10 == 0:
            flags[number % 3] = "" if number % 20 else "-1"
        names = "|".join(name for name, each in zip("RGB", amount, strict=True) if each > 0.2)
        values = [f"{amount[0] * 50 + 10:.4f}", "" if number % 15 == 0 else f"{amount[1]:.4f}"]
        lines.append(",".join([f"{number:03d}.png", *flags, *values, names]))
    Path("t.csv").write_text("\n".join(lines))
    return here


LABELS = ["--data.table", "t.csv", "--data.columns.label", "[red, green, blue]"]
VALUES = ["--data.table", "t.csv", "--data.columns.label", "[r, g]"]


def test_metrics_of_labels_are_those_of_scikit_learn(colors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = ["--model.metrics+", "MultilabelAUROC", "--model.metrics.average", "weighted"]
    with pytest.warns(UserWarning, match=r"6 of 360 labels are empty|labels are -1"):
        main(["fit", *LABELS, *SHORT, *extra, "--model.class_weights", "balanced"])
    shown = capsys.readouterr().out
    assert "120 images, 3 labels" in shown and "mAP" in shown and "by val/mAP" in shown
    table, found = rows(RUN / "test_predictions.csv"), results()
    truth = np.stack([column(table, name) for name in ("red", "green", "blue")], 1)
    scores = np.stack([column(table, f"p({name})") for name in ("red", "green", "blue")], 1)
    assert np.isnan(truth).any()
    known = ~np.isnan(truth)
    pairs = [(truth[known[:, i], i], scores[known[:, i], i]) for i in range(3)]
    expected = {
        "mAP": np.mean([metrics.average_precision_score(*pair) for pair in pairs]),
        "auroc": np.mean([metrics.roc_auc_score(*pair) for pair in pairs]),
        "f1": np.mean([metrics.f1_score(true, score >= 0.5, zero_division=0) for true, score in pairs]),
        "recall": np.mean([metrics.recall_score(true, score >= 0.5, zero_division=0) for true, score in pairs]),
        "subset_acc": np.mean((((scores >= 0.5) == (truth == 1)) | ~known).all(1)),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-5), name
    weights = [true.sum() for true, _ in pairs]
    weighted = np.average([metrics.roc_auc_score(*pair) for pair in pairs], weights=weights)
    assert found["MultilabelAUROC"] == pytest.approx(weighted, abs=2e-5)
    for row in table:
        assert row["predicted"] == "|".join(
            name for name in ("red", "green", "blue") if float(row[f"p({name})"]) >= 0.5
        )
        assert row["labels"] == "|".join(name for name in ("red", "green", "blue") if row[name] == "1")
    config = (RUN / "config.yaml").read_text()
    assert "monitor: val/mAP" in config and "mode: max" in config, "what auto stands for"
    best = max(float(row["val/mAP"]) for row in rows(RUN / "metrics.csv") if row["val/mAP"])
    state = next(value for key, value in load(RUN)["callbacks"].items() if key.startswith("BestCheckpoint"))
    assert float(state["best_model_score"]) == pytest.approx(best)

    main(["predict", "--ckpt_path", "best", "--data.root", "000.png", *QUICK])
    predicted = rows(Path("logs/predict/version_0/predictions.csv"))[0]
    assert list(predicted) == ["path", "labels", "red", "green", "blue"]
    main(["test", "--ckpt_path", "best", *QUICK])
    assert rows(Path("logs/test/version_0/test_predictions.csv")) == table
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "4"])


def test_metrics_of_values_are_those_of_scikit_learn(colors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *VALUES, *SHORT, "--model.loss", "HuberLoss", "--model.metrics+", "MeanSquaredError"])
    assert "120 images, 2 values" in capsys.readouterr().out
    table, found = rows(RUN / "test_predictions.csv"), results()
    expected: dict[str, list[float]] = {"mae": [], "rmse": [], "r2": [], "spearman": []}
    for name in ("r", "g"):
        true, predicted = column(table, name), column(table, f"predicted {name}")
        true, predicted = true[~np.isnan(true)], predicted[~np.isnan(true)]
        expected["mae"].append(metrics.mean_absolute_error(true, predicted))
        expected["rmse"].append(metrics.root_mean_squared_error(true, predicted))
        expected["r2"].append(metrics.r2_score(true, predicted))
        expected["spearman"].append(spearmanr(true, predicted).statistic)
    for name, values in expected.items():
        assert found[name] == pytest.approx(np.mean(values), rel=1e-4, abs=1e-4), name
    both = [row for row in table if row["g"]]
    squared = [metrics.mean_squared_error(column(both, n), column(both, f"predicted {n}")) for n in ("r", "g")]
    assert found["MeanSquaredError"] == pytest.approx(np.mean(squared), rel=1e-4)
    assert "monitor: val/loss" in (RUN / "config.yaml").read_text()
    assert 5 < float(rows(RUN / "test_predictions.csv")[0]["predicted r"]) < 65, "in the units of the table"


def test_metrics_of_classes_are_those_of_scikit_learn(tree: Path, here: Path) -> None:
    for number, name in enumerate(("red", "green", "blue")):  # grades, more than five
        (tree / name).rename(tree / str(number))
    draw = np.random.default_rng(0)
    for number in range(3, 7):
        (tree / str(number)).mkdir()
        for image in range(20):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(tree / str(number) / f"{image}.png")
    main(["fit", "--data.root", str(tree), *SHORT, "--model.loss", "OrdinalLoss"])
    table, found = rows(RUN / "test_predictions.csv"), results()
    names = [str(number) for number in range(7)]
    scores = np.stack([column(table, f"p({name})") for name in names], 1)
    label, predicted = ([int(row[key]) for row in table] for key in ("class", "predicted"))
    one_hot = np.eye(7)[label]
    exact = scores / scores.sum(1, keepdims=True)  # rounded in the table
    assert found["kappa"] == pytest.approx(metrics.cohen_kappa_score(label, predicted), abs=1e-5)
    quadratic = metrics.cohen_kappa_score(label, predicted, weights="quadratic")
    assert found["quadratic_kappa"] == pytest.approx(quadratic, abs=1e-5)
    assert found["top5_acc"] == pytest.approx(metrics.top_k_accuracy_score(label, exact, k=5), abs=0.02)
    auroc = metrics.roc_auc_score(label, exact, multi_class="ovr", average="macro")
    assert found["auroc"] == pytest.approx(auroc, abs=1e-3)
    precision = metrics.average_precision_score(one_hot, exact, average="macro")
    assert found["average_precision"] == pytest.approx(precision, abs=1e-3)


def test_one_cell_with_several_names_trains_with_mixed_images(colors: Path) -> None:
    mixing = ["--data.batch_transforms", "[project.datamodules.MixUp, project.datamodules.CutMix]"]
    options = ["--data.table", "t.csv", "--data.columns.label", "names", "--data.label_separator", "|"]
    main(["fit", *options, *SHORT, *mixing, "--model.loss", "AsymmetricLoss"])
    assert list(rows(RUN / "test_predictions.csv")[0])[:6] == ["path", "labels", "predicted", "B", "G", "R"]
    main(["fit", *VALUES, *SHORT, *mixing])
    saved = load(Path("logs/run/version_1"))["data_description"]["target"]
    assert saved["class_path"] == "project.interface.ValueTarget" and saved["init_args"]["value_names"] == ["r", "g"]


def test_what_does_not_fit_is_refused(colors: Path, failing: Callable[[list[str]], str]) -> None:
    assert "model.loss AsymmetricLoss is not for values" in failing(
        ["fit", *VALUES, *SHORT, "--model.loss", "AsymmetricLoss"]
    )
    assert "label_smoothing is not supported by Regression" in failing(
        ["fit", *VALUES, *SHORT, "--model.label_smoothing", "0.1"]
    )
    assert "sampling balanced needs classes" in failing(["fit", *LABELS, *SHORT, "--data.sampling", "balanced"])
    assert "must hold 0 and 1, or numbers; names has" in failing(
        ["fit", "--data.table", "t.csv", "--data.columns.label", "[red, names]", *SHORT]
    )
    assert "no column 'yellow'" in failing(["fit", "--data.table", "t.csv", "--data.columns.label", "yellow", *SHORT])


def test_folders_named_by_numbers_are_values(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (0, 100, 200):
        for number in range(12):
            Path(f"images/{value}").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (value, value, number)).save(f"images/{value}/{number}.png")
    main(["fit", "--data.root", "images", "--data.target", "values", *SHORT])
    assert "36 images, 1 value" in capsys.readouterr().out
    assert {float(row["value"]) for row in rows(RUN / "test_predictions.csv")} <= {0, 100, 200}


def test_resumed_training_of_labels_is_exact(colors: Path) -> None:
    main(["fit", *LABELS, *SHORT, "--run_name", "whole"])
    main(["fit", *LABELS, *SHORT, "--trainer.max_epochs", "2", "--test_after_fit", "false"])
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "3"])
    states: list[Any] = [load(Path(f"logs/{name}/version_0"))["state_dict"] for name in ("whole", "run")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
