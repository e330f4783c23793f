"""Description of numbers to predict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from project.interface.target import Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ValueTarget(Target):
    """Numbers; scores are the predicted values in the units of the data.

    Args:
        value_names: Names of the values, in the order of the outputs.
        mean: Mean of each value over the training samples; the network predicts standardized values.
        std: Standard deviation of each value, likewise.
        unknown: Number of unknown values in training.
    """

    kind: ClassVar[str] = "values"
    task: ClassVar[str] = "project.modules.tasks.Regression"
    value_names: list[str]
    mean: list[float] = field(compare=False)
    std: list[float] = field(compare=False)
    unknown: int = field(default=0, compare=False)

    @property
    @override
    def outputs(self) -> int:
        return len(self.value_names)

    @property
    @override
    def names(self) -> list[str]:
        return self.value_names

    def __str__(self) -> str:
        return f"{self.outputs:,} {'value' if self.outputs == 1 else 'values'}"

    @override
    def describe(self, scores: "NDArray[np.float32]") -> str:
        return ", ".join(f"{name} {x:.4g}" for name, x in zip(self.value_names, scores.tolist(), strict=True))

    @override
    def row(self, scores: "NDArray[np.float32]") -> list[str]:
        return [f"{value:.7g}" for value in scores.tolist()]

    @override
    def to_json(self, scores: "NDArray[np.float32]") -> dict[str, Any]:
        return {"values": dict(zip(self.value_names, map(float, self.row(scores)), strict=True))}

    @property
    @override
    def test_columns(self) -> Sequence[str]:
        return (*self.value_names, *(f"predicted {name}" for name in self.value_names))

    @override
    def test_row(self, scores: "NDArray[np.float32]", target: Any) -> list[str]:
        """Return the cells of one test sample; values that are unknown, NaN in `target`, are empty."""
        return [*("" if math.isnan(value) else f"{value:.7g}" for value in target), *self.row(scores)]
