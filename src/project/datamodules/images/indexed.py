"""Base class of datamodules of images: packed pixels, and augmentation on the device."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from project.datamodules.dataset import IndexedDataset
from project.datamodules.images.augment import augment, is_fixed
from project.datamodules.images.dataset import Images
from project.datamodules.indexed import IndexedDataModule
from project.images import Pixels
from project.interface import Batch, ImageInput, Split


class IndexedImageModule(IndexedDataModule):
    """A datamodule of images with an index.

    Args:
        batch_transforms: Augmentations of training batches on the device.
        arguments: Those of `IndexedDataModule`.

    Attributes:
        item_transforms: Transforms of single images before they are fitted.
    """

    kind = ImageInput.kind
    input: ImageInput
    _packed: Pixels | None = None  # (N, height, width, channels), by row of the index
    _on_device: Tensor | None = None

    def __init__(self, batch_transforms: list[nn.Module], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.item_transforms, self.batch_transforms = nn.ModuleList(), nn.ModuleList(batch_transforms)

    @override
    @abstractmethod
    def dataset(self, split: Split | Literal[""], augmented: bool = False) -> Images: ...

    @override
    @property
    def fixed_transforms(self) -> list[str]:  # type: ignore[override]
        return [type(transform).__name__ for transform in self.item_transforms if is_fixed(transform)]

    @override
    def content(self, rows: Sequence[int]) -> Tensor | None:
        return None if self.input.fit != "pad" else self.dataset("").content(rows)

    @override
    def augment(self, batch: Batch) -> Batch:
        assert self.trainer is not None
        return augment(batch, self.batch_transforms, self.description.target.outputs, self.trainer.current_epoch)

    @override
    def _place(self, dataset: IndexedDataset, device: torch.device) -> None:
        """Put packed pixels on the device if it is a GPU and they take at most a quarter of its memory."""
        assert isinstance(dataset, Images)
        dataset.pixels = self._packed
        if self._packed is None or device.type != "cuda" or self._packed.dtype == np.uint16:
            return  # torch cannot index uint16 on every device
        if self._on_device is None and self._packed.nbytes <= torch.cuda.mem_get_info(device)[1] / 4:
            self._on_device = torch.from_numpy(self._packed).to(device)
        if self._on_device is not None:
            dataset.pixels = self._on_device

    @override
    @property
    def _in_memory(self) -> bool:
        return self._packed is not None
