"""Matplotlib figures of test results."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from project.machine import font_families
from project.output import printable

SHOWN = 12
"""Curves or panels in one figure; the first labels and values are shown."""
TEXT: dict[str, Any] = {"parse_math": False}


def confusion_figure(counts: Tensor, class_names: list[str]) -> Any:
    """Return a matplotlib figure of a confusion matrix, int64 (classes, classes) with labels in rows.

    Colors are normalized over the true class; up to 30 classes, each cell also shows its count.
    """
    from matplotlib.figure import Figure

    classes = len(class_names)
    side = min(max(5.0, 0.55 * classes + 2), 14.0)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=f"accuracy {counts.diag().sum() / counts.sum().clamp(min=1):.1%}")
    ticks = range(0, classes, -(-classes // 60))
    names = [printable(class_names[i]) for i in ticks]
    style: dict[str, Any] = {"parse_math": False, "fontfamily": font_families()}
    axes.set_xticks(ticks, names, rotation=90, **style)
    axes.set_yticks(ticks, names, **style)
    for row, column in counts.nonzero().tolist() if classes <= 30 else []:
        color = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=color, fontsize=8)
    return figure


def precision_recall_figure(scores: Tensor, truth: Tensor, names: Sequence[str]) -> Any:
    """Return a matplotlib figure of the precision-recall curves of up to `SHOWN` labels.

    Args:
        scores: Probabilities, float (N, labels).
        truth: 0 or 1, NaN if unknown, float (N, labels).
        names: Names of the labels.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve

    figure = Figure(figsize=(6.5, 5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, score, label in list(zip(names, scores.numpy().T, truth.numpy().T, strict=True))[:SHOWN]:
        known = ~np.isnan(label)
        if label[known].any():
            precision, recall, _ = precision_recall_curve(label[known], score[known])
            axes.step(recall, precision, where="post", label=printable(name))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    if axes.lines:
        legend = axes.legend(loc="lower left", fontsize=8)
        for text in legend.get_texts():
            text.set(fontfamily=font_families(), **TEXT)
    return figure


def scatter_figure(predictions: Tensor, truth: Tensor, names: Sequence[str]) -> Any:
    """Return a matplotlib figure of predicted against true values, a panel for each of up to `SHOWN` values.

    Args:
        predictions: float (N, values).
        truth: float (N, values), NaN if unknown.
        names: Names of the values.
    """
    from matplotlib.figure import Figure

    panels = list(zip(names, predictions.numpy().T, truth.numpy().T, strict=True))[:SHOWN]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 4 * rows), dpi=110, layout="constrained")
    for number, (name, predicted, true) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.scatter(true, predicted, s=8, alpha=0.5)
        known = true[~np.isnan(true)]
        if len(known):
            axes.axline((known.min(), known.min()), slope=1, color="gray", linewidth=1)
        axes.set(xlabel="true", ylabel="predicted")
        axes.set_title(printable(name), fontfamily=font_families(), **TEXT)
    return figure
