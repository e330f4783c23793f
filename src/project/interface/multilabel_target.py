"""Description of labels that do not exclude each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from project.interface.target import Target
from project.output import SEPARATOR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class MultilabelTarget(Target):
    """Labels of which any number apply to a sample; scores are the probability of each label.

    Args:
        label_names: Label names, in the order of the outputs.
        train_counts: Number of training samples with each label.
        train_known: Number of training samples for which it is known whether they have the label.
        unknown: Number of unknown labels in training.
        thresholds: Probability from which each label is predicted; 0.5 until `calibrate` sets it.
    """

    kind: ClassVar[str] = "labels"
    scores_name: ClassVar[Literal["probabilities", "values"]] = "probabilities"
    task: ClassVar[str] = "project.modules.tasks.Multilabel"
    label_names: list[str]
    train_counts: list[int] = field(compare=False)
    train_known: list[int] = field(compare=False)
    unknown: int = field(default=0, compare=False)
    thresholds: list[float] | None = field(default=None, compare=False)

    @property
    @override
    def outputs(self) -> int:
        return len(self.label_names)

    @property
    @override
    def names(self) -> list[str]:
        return self.label_names

    def __str__(self) -> str:
        return f"{self.outputs:,} {'label' if self.outputs == 1 else 'labels'}"

    @property
    @override
    def columns(self) -> list[str]:
        return ["labels", *self.label_names]

    @override
    def row(self, scores: "NDArray[np.float32]") -> list[str]:
        return [SEPARATOR.join(self.predicted(scores)), *(f"{p:.6f}" for p in scores.tolist())]

    @override
    def to_json(self, scores: "NDArray[np.float32]") -> dict[str, Any]:
        probabilities = [round(p, 6) for p in scores.tolist()]
        return {
            "labels": self.predicted(scores),
            "probabilities": dict(zip(self.label_names, probabilities, strict=True)),
        }

    @override
    def describe(self, scores: "NDArray[np.float32]") -> str:
        score_of = dict(zip(self.label_names, scores.tolist(), strict=True))
        return ", ".join(f"{name} {score_of[name]:.1%}" for name in self.predicted(scores)) or "no label"

    @override
    def predicted(self, scores: "NDArray[np.float32]") -> list[str]:
        """Return the names of the labels whose probability reaches their threshold."""
        limits = self.thresholds or [0.5] * self.outputs
        rows = zip(self.label_names, scores.tolist(), limits, strict=True)
        return [name for name, score, limit in rows if score >= limit]

    @property
    @override
    def test_columns(self) -> Sequence[str]:
        return ("labels", "predicted", *self.label_names, *(f"p({name})" for name in self.label_names))

    @override
    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        """Return the cells of one test sample; labels that are unknown, NaN in `target`, are empty."""
        cells = ["" if math.isnan(value) else f"{value:g}" for value in target]
        labels = SEPARATOR.join(name for name, value in zip(self.label_names, target, strict=True) if value == 1)
        return [labels, SEPARATOR.join(self.predicted(scores)), *cells, *(f"{p:.6f}" for p in scores.tolist())]

    @override
    def without_thresholds(self) -> "MultilabelTarget":
        return MultilabelTarget(self.label_names, self.train_counts, self.train_known, self.unknown)
