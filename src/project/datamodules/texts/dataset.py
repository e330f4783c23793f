"""Dataset of texts, read from the index one batch at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from project.datamodules.dataset import IndexedDataset
from project.datamodules.index import Index
from project.datamodules.sampler import Request
from project.datamodules.texts.augment import TextTransform
from project.interface import Batch
from project.texts import TextInput


class Texts(IndexedDataset):
    """Texts of some rows of an index; batches of a shuffled order have texts of similar lengths.

    Args:
        index: The index, whose keys are the texts.
        rows: int64 (N,), rows of the index.
        inputs: How a text becomes an array.
        transforms: Augmentations, whose draws are seeded by (seed, epoch, row).
        seed: Seed of the transforms.
    """

    def __init__(
        self,
        index: Index,
        rows: NDArray[np.int64],
        inputs: TextInput,
        transforms: Sequence[TextTransform] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(index, rows)
        self.inputs, self.transforms, self.seed = inputs, transforms, seed
        self.lengths = np.minimum(index.keys.lengths[rows], inputs.max_bytes)

    def __getitem__(self, request: Request) -> Batch:
        rows = self.rows[request.positions]
        texts = [self.inputs.read(self._text(row, request.epoch)) for row in rows.tolist()]
        inputs = torch.from_numpy(self.inputs.stack(texts))
        return Batch(inputs, torch.from_numpy(self.index.labels[rows]), torch.from_numpy(rows))

    @override
    def raw(self, row: int, fitted: bool = True) -> NDArray[Any]:
        return self.inputs.read(self.index.keys.encoded(row).tobytes())

    def _text(self, row: int, epoch: int) -> str | bytes:
        if not self.transforms:
            return self.index.keys.encoded(row).tobytes()
        text, rng = self.index.keys[row], np.random.default_rng((self.seed, epoch, row))
        for transform in self.transforms:
            text = transform.change(text, rng)
        return text
