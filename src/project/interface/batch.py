"""Batches and results that the module passes to callbacks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class Batch(NamedTuple):
    """A batch of N samples, as passed from the dataloader to the module and the callbacks.

    Attributes:
        inputs: Inputs before normalization. Images are uint8 (N, C, H, W) in [0, 255]; or float in [0, 1] after batch
            transforms, and if the files have another depth than 8 bits.
        target: Targets. Classes are int64 (N,), -1 if unknown, or class probabilities, float (N, classes), after MixUp
            or CutMix. Labels, 0 or 1, and values are float32 (N, outputs), NaN if unknown.
        index: Row of each sample in the datamodule's index, int64 (N,).
    """

    inputs: "Tensor"
    target: "Tensor"
    index: "Tensor"  # type: ignore[assignment]


class StageResult(NamedTuple):
    """Loss and metrics of one epoch of a stage.

    Attributes:
        scalars: Loss and metrics by name, logged as STAGE/NAME.
        samples: Number of samples.
        details: What the task computed besides: for classes `confusion`, int64 (classes, classes) with labels in rows;
            metrics per class, label or value.
    """

    scalars: "dict[str, Tensor]"
    samples: int
    details: "Mapping[str, Tensor]" = MappingProxyType({})
