"""Tests of metrics and comparisons against manual calculations and published examples."""

import numpy as np
import pytest
from torch import tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from project.modules.tasks.multiclass import Confusion
from project.report.comparison import compare
from project.report.curves import ranking_charts
from project.runs.predictions import Predictions
from project.runs.statistics import BINS, holm_correction, wilson_interval


def predictions(
    label: list[int], predicted: list[int], classes: int = 3, paths: list[str] | None = None
) -> Predictions:
    confidence = np.linspace(0.4, 0.99, len(label))
    names = [f"c{number}" for number in range(classes)]
    paths = paths or [f"{number}.png" for number in range(len(label))]
    return Predictions(names, paths, np.array(label), np.array(predicted), confidence, confidence)


def test_wilson_interval() -> None:
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5), "Newcombe 1998, table I"
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1


def test_per_class_metrics_match_the_classifier() -> None:
    draw = np.random.default_rng(0)
    label, predicted = draw.integers(0, 5, 300), draw.integers(0, 4, 300)
    found = predictions(label.tolist(), predicted.tolist(), classes=7)
    metric = Confusion(7)
    logits = tensor(np.eye(7)[predicted])
    metric.update(tensor(0.0), logits, tensor(label))
    result = metric.compute()
    assert (found.confusion == result.details["confusion"].numpy()).all()
    for name in ("precision", "recall", "f1"):
        assert np.nanmean(found.per_class[name]) == pytest.approx(float(result.scalars[name]))
    assert np.isnan(found.per_class["f1"][6])
    assert found.pairs[0].images == max(found.confusion[i, j] for i in range(7) for j in range(7) if i != j)


def test_calibration_error_matches_torchmetrics() -> None:
    draw = np.random.default_rng(1)
    probability = draw.dirichlet(np.ones(4), 500)
    label = draw.integers(0, 4, 500)
    best = probability.max(1)
    found = Predictions(list("abcd"), [""] * 500, label, probability.argmax(1), best, best)
    expected = multiclass_calibration_error(tensor(probability), tensor(label), 4, n_bins=BINS)
    assert found.calibration_error == pytest.approx(float(expected), abs=1e-6)
    assert sum(b.images for b in found.bins) == 500


def test_runs_on_the_same_images_are_compared_with_mcnemar() -> None:
    label = [0] * 40
    one = predictions(label, [0] * 20 + [1] * 20)
    other = predictions(label, [1] * 2 + [0] * 30 + [1] * 8)
    result = compare(one, other)
    assert (result.images, result.same, result.gained, result.lost) == (40, True, 12, 2)
    assert result.p == pytest.approx(2 * (1 + 14 + 91) / 2**14), "two-sided binomial test of 14 trials"
    low, high = result.interval
    assert 0 < low < result.difference == 0.25 < high
    assert compare(one, one).p == 1 and compare(one, one).interval[0] < 0


def test_only_common_images_are_compared() -> None:
    one = predictions([0, 0, 1], [0, 1, 1], paths=["a", "b", "c"])
    other = predictions([0, 1, 1], [0, 1, 0], paths=["b", "c", "d"])
    result = compare(one, other)
    assert (result.images, result.same, result.gained, result.lost, result.accuracies) == (2, False, 1, 0, (0.5, 1.0))
    apart = compare(one, other, same_folder=False)
    assert apart.images == 0 and apart.p is None, "equal paths in different directories are different images"
    assert compare(one, one, same_folder=False).images == 3, "a copy of the complete test set is the same test set"


def test_runs_on_different_images_are_compared_as_independent_proportions() -> None:
    one = predictions([0] * 70, [0] * 56 + [1] * 14)
    other = predictions([0] * 80, [0] * 48 + [1] * 32, paths=[f"other {number}" for number in range(80)])
    result = compare(one, other)
    assert result.p is None and result.difference == pytest.approx(-0.2)
    assert result.interval == pytest.approx((-0.3339, -0.0524), abs=5e-5), "Newcombe 1998, table II, example (a)"


def test_holm_correction() -> None:
    assert holm_correction([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_correction([0.6, 0.9]) == [1, 1]


def test_roc_and_precision_recall_curves_match_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    draw = np.random.default_rng(2)
    truth = (draw.random((300, 3)) < 0.3).astype(float)
    scores = np.clip(0.3 + 0.2 * truth + draw.normal(0, 0.2, truth.shape), 0, 1).round(2)  # with ties
    truth[:, 2] = 0
    (roc, precision), shown = ranking_charts(["a", "b", "never"], scores, truth)
    assert shown == 2, "a label that never occurs has no curve"
    for charted, metric in ((roc, roc_auc_score), (precision, average_precision_score)):
        values = [metric(truth[:, i], scores[:, i]) for i in (0, 1)]
        values += [float(np.mean(values)), metric(truth.ravel(), scores.ravel())]
        titles = [curve.name for curve in charted[2]]
        names = ("a", "b", "macro average", "micro average")
        assert titles == [f"{name}: {100 * x:.1f}\u00a0%" for name, x in zip(names, values, strict=True)]
    heights, recall, _ = precision_recall_curve(truth[:, 0], scores[:, 0])
    expected, drawn = np.stack([recall[:-1], heights[:-1]], 1), np.array(precision[2][0].points)
    distance = np.abs(expected[:, None] - drawn).max(2).min(1)
    assert distance.max() < 1 / 200, "the resolution of the chart"
