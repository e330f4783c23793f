"""Batches from worker processes with reused buffers."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from project.datamodules import ImageDataModule
from project.datamodules.images.dataset import Images
from project.datamodules.loader import Loader
from project.datamodules.sampler import EpochBatchSampler
from project.datamodules.tree import index_tree
from project.interface import Batch, ImageInput


def loader(tree: Path, workers: int) -> Loader:
    index = index_tree(tree)
    return Loader(
        Images(index, np.arange(60), ImageInput(8, 8)),
        EpochBatchSampler(60, 4, "reshuffled each epoch"),
        workers,
        pin_memory=False,
    )


def same(batches: list[Batch], others: list[Batch]) -> bool:
    pairs = [pair for two in zip(batches, others, strict=True) for pair in zip(*two, strict=True)]
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("workers", [1, 2])
def test_buffers_in_use_are_not_overwritten(tree: Path, workers: int) -> None:
    expected = list(loader(tree, 0))
    ours = loader(tree, workers)
    kept = list(ours)
    assert same(kept, expected)
    corners = [batch._replace(inputs=batch.inputs[:2, :, :3]) for batch in ours]  # views of a buffer keep it in use
    assert same(corners, [batch._replace(inputs=batch.inputs[:2, :, :3]) for batch in expected])
    assert same(kept, expected)


def test_an_interrupted_epoch_does_not_change_the_next(tree: Path) -> None:
    expected = list(loader(tree, 0))
    ours = loader(tree, 2)
    for length in (1, 3, 15):
        batches = [batch for batch, _ in zip(ours, range(length), strict=False)]
        assert same(batches, expected[:length])


def test_packed_pixels_in_a_tensor_give_the_same_batches(tree: Path) -> None:
    index, pixels = index_tree(tree), np.random.default_rng(0).integers(0, 255, (60, 8, 8, 3)).astype(np.uint8)
    forms = (pixels, torch.from_numpy(pixels))
    loaders = [
        Loader(
            Images(index, np.arange(60), ImageInput(8, 8), pixels=form),
            EpochBatchSampler(60, 7, "reshuffled each epoch"),
            0,
            pin_memory=False,
        )
        for form in forms
    ]
    assert same(*map(list, loaders))


def test_overfit_batches_are_shuffled_once_and_not_augmented(tree: Path, tmp_path: Path) -> None:
    data = ImageDataModule(str(tree), image_size=12, batch_size=16, num_workers=0, cache_dir=str(tmp_path))
    seen: list[Batch] = []

    class Model(L.LightningModule):
        data_description = None

        def training_step(self, batch: Batch, batch_idx: int) -> None:
            seen.append(batch)

        def configure_optimizers(self) -> None: ...

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    L.Trainer(accelerator="cpu", devices=1, overfit_batches=1, max_epochs=2, **quiet).fit(Model(), datamodule=data)  # type: ignore[arg-type]
    assert len(seen) == 2 and same(seen[:1], seen[1:]), "the same batch each time"
    assert seen[0].inputs.dtype == torch.uint8 and len(seen[0].target.unique()) == 3
