"""First module of the exported graph of a model of texts."""

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from project.texts import TextInput

MIN_BYTES = 16


class Pad(nn.Module):
    """Append zeros, which do not change the predictions, so that the graph is valid for texts of any length.

    Tracing records the branch that a network takes for the length of the example, e.g. that it has as many bytes as an
    n-gram, and an empty or very short text would take another one.
    """

    def __init__(self, inputs: TextInput) -> None:
        super().__init__()

    @override
    def forward(self, raw: Tensor) -> Tensor:
        return F.pad(raw, (0, MIN_BYTES))
