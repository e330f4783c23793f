"""Description of mutually exclusive classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from typing_extensions import override

from project.interface.target import Target
from project.output import SEPARATOR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANY = 100
"""Classes above which the table of test predictions has no column for each of them."""


@dataclass(frozen=True)
class ClassTarget(Target):
    """Mutually exclusive classes; scores are class probabilities.

    Args:
        class_names: Class names, in the order of the class indices.
        train_counts: Number of training samples per class.
        confidence_threshold: Predictions with at least this probability are marked as confident.
        set_threshold: The prediction set contains the classes with at least this probability (conformal prediction).
    """

    kind: ClassVar[str] = "classes"
    scores_name: ClassVar[Literal["probabilities", "values"]] = "probabilities"
    task: ClassVar[str] = "project.modules.tasks.Multiclass"
    class_names: list[str]
    train_counts: list[int] = field(compare=False)
    confidence_threshold: float | None = field(default=None, compare=False)
    set_threshold: float | None = field(default=None, compare=False)

    @property
    @override
    def outputs(self) -> int:
        return len(self.class_names)

    @property
    @override
    def names(self) -> list[str]:
        return self.class_names

    def __str__(self) -> str:
        return f"{self.outputs:,} classes"

    @override
    def predicted(self, scores: "NDArray[np.float32]") -> list[str]:
        return [self.class_names[int(scores.argmax())]]

    @property
    @override
    def columns(self) -> list[str]:
        confident = [] if self.confidence_threshold is None else ["confident"]
        return ["class", *confident, *([] if self.set_threshold is None else ["set"]), *self.class_names]

    @override
    def row(self, scores: "NDArray[np.float32]") -> list[str]:
        sure = self.is_confident(scores)
        confident = [] if sure is None else ["yes" if sure else "no"]
        names = [] if self.set_threshold is None else [SEPARATOR.join(self.prediction_set(scores))]
        return [self.class_names[int(scores.argmax())], *confident, *names, *(f"{p:.6f}" for p in scores.tolist())]

    @override
    def to_json(self, scores: "NDArray[np.float32]") -> dict[str, Any]:
        best, probabilities = int(scores.argmax()), [round(p, 6) for p in scores.tolist()]  # as in predictions.csv
        prediction: dict[str, Any] = {"class": self.class_names[best], "probability": probabilities[best]}
        if self.confidence_threshold is not None:
            prediction["confident"] = self.is_confident(scores)
        if self.set_threshold is not None:
            prediction["set"] = self.prediction_set(scores)
        return prediction | {"probabilities": dict(zip(self.class_names, probabilities, strict=True))}

    @override
    def describe(self, scores: "NDArray[np.float32]") -> str:
        return f"{self.class_names[int(scores.argmax())]} {scores.max():.1%}"

    def is_confident(self, scores: "NDArray[np.float32]") -> bool | None:
        """Return True if the probability of the predicted class reaches the threshold; None if there is none."""
        return None if self.confidence_threshold is None else float(scores.max()) >= self.confidence_threshold

    def prediction_set(self, scores: "NDArray[np.float32]") -> list[str]:
        """Return the names of the classes in the prediction set, the most probable first; it is never empty."""
        low = min(1.0 if self.set_threshold is None else self.set_threshold, float(scores.max()))
        return [self.class_names[label] for label in (-scores).argsort(kind="stable").tolist() if scores[label] >= low]

    @property
    @override
    def test_columns(self) -> Sequence[str]:
        names = self.class_names if len(self.class_names) <= MANY else []
        return ("class", "predicted", "probability", "class_probability", *(f"p({name})" for name in names))

    @override
    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        best, label = int(scores.argmax()), int(target)
        each = [f"{p:.6f}" for p in scores.tolist()] if len(scores) <= MANY else []
        return [self.class_names[label], self.class_names[best], f"{scores[best]:.6f}", f"{scores[label]:.6f}", *each]

    @override
    def without_thresholds(self) -> "ClassTarget":
        return ClassTarget(self.class_names, self.train_counts)
