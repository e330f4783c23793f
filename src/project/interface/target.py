"""Base class of the descriptions of what a model predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Target:
    """Description of the target, and formatting of predictions.

    It is the base class of `ClassTarget`, `MultilabelTarget` and `ValueTarget`.
    Subclasses are frozen dataclasses whose fields are plain values, because checkpoints store them. Their methods
    require NumPy only, because exported models run without torch. Of their arguments, `scores` is the prediction for
    one sample, float32 (outputs,), e.g. class probabilities.
    """

    kind: ClassVar[str] = "values"
    """Plural noun used in messages, and by commands to declare the targets that they support."""
    scores_name: ClassVar[Literal["probabilities", "values"]] = "values"
    """What the scores are: probabilities of classes or labels, or values in the units of the data."""
    task: ClassVar[str]
    """Class path of the default task (loss and metrics), which `model.task` overrides."""

    @property
    def outputs(self) -> int:
        """Number of the network's outputs."""
        raise NotImplementedError

    @property
    def names(self) -> list[str]:
        """Names of the outputs: classes, labels or values."""
        return [f"output_{number}" for number in range(self.outputs)]

    def __str__(self) -> str:
        return f"{self.outputs:,} {'output' if self.outputs == 1 else 'outputs'}"

    @property
    def scale(self) -> list[float]:
        """Size of each score, (outputs,), to which differences due to rounding are compared; 1 for probabilities."""
        return [1.0] * self.outputs

    def predicted(self, scores: "NDArray[np.float32]") -> list[str]:
        """Return the names of the predicted class or labels; empty for values."""
        return []

    @property
    def columns(self) -> list[str]:
        """Columns of predictions.csv after the path."""
        return self.names

    def row(self, scores: "NDArray[np.float32]") -> list[str]:
        """Return the cells of one prediction in the order of `columns`."""
        return [f"{score:.6f}" for score in scores.tolist()]

    def to_json(self, scores: "NDArray[np.float32]") -> dict[str, Any]:
        """Return one prediction as a JSON-serializable dictionary."""
        return {"values": dict(zip(self.names, map(float, self.row(scores)), strict=True))}

    def describe(self, scores: "NDArray[np.float32]") -> str:
        """Return one prediction as a short text."""
        return ", ".join(f"{score:.4g}" for score in scores.tolist())

    @property
    def test_columns(self) -> Sequence[str]:
        """Columns of test_predictions.csv after the path."""
        numbers = [""] if self.outputs == 1 else [f"_{number}" for number in range(self.outputs)]
        return [f"{name}{number}" for number in numbers for name in ("target", "predicted")]

    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        """Return the cells of one test sample, whose target is a number or a list, in the order of `test_columns`."""
        values = target if isinstance(target, list) else [target]
        return [f"{value:.6f}" for pair in zip(values, scores.tolist(), strict=True) for value in pair]

    def without_thresholds(self) -> "Target":
        """Return the target without what `calibrate` has set, which is valid for the calibrated weights only."""
        return self
