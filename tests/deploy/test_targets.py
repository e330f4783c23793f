"""Export, quantization, pruning and `project.load` of models of labels and of values."""

import csv
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import project
from project.cli import main
from project.deploy.load import load_exported
from project.interface import ClassTarget, MultilabelTarget, Target, ValueTarget, import_object
from project.modules import Classifier
from tests.conftest import COLORS, QUICK, fit

BEST = Path("logs/run/version_0/checkpoints/best.ckpt")
LABELS = {"red": "warm", "green": "", "blue": "cold|dark"}
TARGETS = {
    "labels": ["--data.label_separator", "|"],
    "values": ["--data.columns.label", "[width,depth]", "--data.target", "values"],
}


@pytest.fixture
def table(tree: Path) -> Path:
    """A table of labels, some images having none, and of two values of different size, for `tree`."""
    with (tree / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "width", "depth"])
        for path in sorted(tree.rglob("*.png")):
            red, _, blue = COLORS[path.parent.name]
            writer.writerow([path.relative_to(tree), LABELS[path.parent.name], red / 1000, 5000 + blue])
    return tree / "table.csv"


def cells(file: Path) -> list[list[str]]:
    with file.open(newline="") as stream:
        return list(csv.reader(stream))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_files_predict_the_same_as_the_checkpoint(
    kind: str, tree: Path, table: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*fit(tree, "--data.table", str(table), *TARGETS[kind]), "--trainer.max_epochs", "6"])
    if kind == "labels":
        saved = torch.load(BEST, weights_only=True)
        saved["data_description"]["target"]["init_args"]["thresholds"] = [0.4, 0.2, 0.6]
        torch.save(saved, BEST)
    capsys.readouterr()
    expected = project.load(BEST).predict(tree)
    for format, int8 in (("onnx", "true"), ("safetensors", "false")):
        file = f"m.{format}"
        main(["export", "--ckpt_path", str(BEST), "--format", format, "--int8", int8, "--output", file, *QUICK[:6]])
    shown = capsys.readouterr().out
    words = r"probabilities .* [\d.]+% of predictions agree" if kind == "labels" else r"values .* \(relative\)"
    assert len(re.findall(f"parity .* {words}", shown)) == 2
    score = r"F1 ([\d.]+)% in float32, ([\d.]+)%" if kind == "labels" else r"MAE ([\d.]+) in float32, ([\d.]+)"
    (found,) = re.findall(score + " in int8;", shown)
    assert abs(float(found[0]) - float(found[1])) < 0.05 * float(found[0])

    if kind == "values":
        assert onnx.load("m.onnx").graph.node[-1].op_type == "Add", "values are neither rounded nor clipped"
    scale = np.array([0.1, 100]) if kind == "values" else 1
    for name, tolerance in (("m.onnx", 0.1), ("m.safetensors", 1e-4)):  # the first is quantized
        for one, other in zip(expected, project.load(name).predict(tree), strict=True):
            np.testing.assert_allclose(other.scores / scale, one.scores / scale, atol=tolerance)
    assert load_exported(Path("m.onnx")).metadata["output"].startswith("prob" if kind == "labels" else "values")
    main(["predict_exported", "m.safetensors", str(tree)])
    main(["predict", "--ckpt_path", str(BEST), "--data.root", str(tree), *QUICK])
    ours, theirs = cells(Path("predictions.csv")), cells(Path("logs/predict/version_0/predictions.csv"))
    start = 2 if kind == "labels" else 1  # numbers agree up to rounding
    assert [row[:start] for row in ours] == [row[:start] for row in theirs] and ours[0] == theirs[0]
    for one, row in zip(expected, ours[1:], strict=True):
        if kind == "labels":
            assert row[1] == "|".join(one.labels)
            limits = zip(one.probabilities.items(), (0.4, 0.2, 0.6), strict=True)
            assert one.labels == [name for (name, p), limit in limits if p >= limit]
        np.testing.assert_allclose(np.array(row[start:], float) / scale, one.scores / scale, atol=1e-4)

    main(["prune", "--ckpt_path", str(BEST), *QUICK[:6]])
    pruned = Classifier.load_from_checkpoint(BEST.parents[1] / "pruned.ckpt", map_location="cpu")
    assert pruned.data_description.target.names == project.load(BEST).description.target.names


@pytest.mark.parametrize(
    "target",
    [
        ClassTarget(["a", "b", "c"], [1, 1, 1]),
        MultilabelTarget(["a", "b", "c"], [1, 1, 1], [2, 2, 2], 0, [0.1, 0.5, 0.8]),
        ValueTarget(["a", "b", "c"], [0.0, 5.0, -10.0], [1.0, 0.1, 100.0]),
    ],
)
def test_the_score_of_a_task_is_its_headline(target: Target) -> None:
    task = import_object(target.task)(target)
    generator = torch.Generator().manual_seed(0)
    outputs, truth = torch.randn(50, 3, generator=generator), torch.randint(0, 2, (50, 3), generator=generator).float()
    truth[::7, 1] = torch.nan
    if target.kind == "classes":
        truth = truth.nan_to_num(0)[:, 0].long()
    metric = task.evaluation_metric()
    metric.update(torch.tensor(0.0), outputs, truth)
    expected = metric.compute().scalars[task.headline[0]]
    assert task.score(task.predict(outputs), truth) == pytest.approx(float(expected), rel=1e-5)
