"""Tests of ConvNet, metrics, test-time augmentation, and of training against a plain PyTorch loop."""

import functools
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torchmetrics import functional as reference

from project.datamodules import ImageDataModule
from project.interface import Batch, ClassTarget, DataDescription
from project.modules import Classifier, ConvNet
from project.modules.inputs import TestTimeAugmentation, tta_logits
from project.modules.tasks.multiclass import ClassCounts, Confusion
from tests.conftest import square


def test_convnet_shapes() -> None:
    shapes = [tuple(p.shape) for p in ConvNet(10, square(32)).parameters() if p.ndim > 1]
    assert shapes == [(64, 3, 3, 3), (128, 64, 3, 3), (512, 128 * 8 * 8), (10, 512)]


def test_convnet_order_of_relu_and_pooling_does_not_matter() -> None:
    """Logits and gradients are equal with ReLU before pooling."""
    net, image, label = ConvNet(10, square(32)), torch.randn(8, 3, 32, 32), torch.arange(8)
    F.cross_entropy(net(image), label).backward()
    first, second = (layer for layer in net.features if isinstance(layer, torch.nn.Conv2d))
    logits = net.head(F.max_pool2d(F.relu(second(F.max_pool2d(F.relu(first(image)), 2))), 2))
    assert torch.equal(logits, net(image))
    wanted = torch.autograd.grad(F.cross_entropy(logits, label), list(net.parameters()))
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(net.parameters(), wanted, strict=True))


@pytest.mark.parametrize("size", [4, 5, 31, 64])
def test_convnet_supports_any_size_from_four(size: int) -> None:
    assert ConvNet(3, square(size))(torch.rand(2, 3, size, size)).shape == (2, 3)


def test_convnet_raises_for_three_pixels() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        ConvNet(3, square(3))


@pytest.mark.parametrize("kind", [ClassCounts, Confusion])
def test_metrics_match_torchmetrics_over_uneven_batches(kind: type[ClassCounts]) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(50, 5), torch.randint(0, 4, (50,))  # class 4 never occurs as a label
    scores = kind(5)
    for part in (slice(0, 32), slice(32, 50)):
        scores.update(F.cross_entropy(logits[part], label[part]), logits[part], label[part])
    result = scores.compute()
    assert result.scalars["loss"] == pytest.approx(float(F.cross_entropy(logits, label)), rel=1e-5)
    assert result.scalars["acc"] == reference.accuracy(logits, label, "multiclass", num_classes=5, average="micro")
    for name, metric in (("precision", reference.precision), ("recall", reference.recall)):
        expected = metric(logits, label, "multiclass", num_classes=5, average="macro")
        assert result.scalars[name] == pytest.approx(float(expected), rel=1e-5)
    expected = reference.f1_score(logits, label, "multiclass", num_classes=5, average="macro")
    assert result.scalars["f1"] == pytest.approx(float(expected), rel=1e-5)


def test_batches_with_non_finite_loss_are_ignored_in_training() -> None:
    scores, logits, labels = Confusion(2), torch.tensor([[9.0, 0.0]] * 3), torch.tensor([0, 0, 1])
    scores.update(torch.tensor(0.5), logits, labels, only_finite=True)
    scores.update(torch.tensor(torch.nan), logits, labels, only_finite=True)
    result = scores.compute()
    assert result.scalars["loss"] == 0.5
    assert result.details["confusion"].tolist() == [[2, 0], [1, 0]]


class Losses(L.Callback):
    """Records the loss and batch of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.batches: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        self.batches.append((batch.inputs.clone(), batch.target.clone()))


def test_loss_trajectory_matches_a_plain_pytorch_loop(tree: Path, tmp_path: Path) -> None:
    data = ImageDataModule(
        str(tree), image_size=8, batch_size=16, num_workers=0, batch_transforms=[], cache_dir=str(tmp_path)
    )
    model, seen = Classifier(channels_last=False), Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        callbacks=[seen],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    L.seed_everything(7)
    trainer.fit(model, datamodule=data)

    L.seed_everything(7)
    net = ConvNet(3, square(8))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    mean, std = model.preprocess.mean, model.preprocess.std
    losses = []
    for image, label in seen.batches:
        loss = F.cross_entropy(net((image / 255 - mean) / std), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert len(losses) == 9 and losses[-1] < losses[0]
    assert seen.losses == pytest.approx(losses, rel=1e-4)


def test_no_weight_decay_for_biases_and_checkpoints_hold_plain_types(tree: Path, tmp_path: Path) -> None:
    data = ImageDataModule(
        str(tree), image_size=8, batch_size=16, num_workers=0, batch_transforms=[], cache_dir=str(tmp_path)
    )
    model = Classifier(optimizer=functools.partial(torch.optim.AdamW, weight_decay=0.1))
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(model, datamodule=data)
    hidden, head, biases = trainer.optimizers[0].param_groups
    assert all(p.ndim > 1 for p in hidden["params"] + head["params"]) and all(p.ndim == 1 for p in biases["params"])
    assert (hidden["weight_decay"], head["weight_decay"], biases["weight_decay"]) == (0.1, 0.1, 0)
    assert [tuple(p.shape) for p in head["params"]] == [(3, 512)]
    assert trainer.optimizers[0].defaults["fused"]
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert again.data_description == model.data_description
    image = torch.randint(0, 255, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(again.eval()(image), model.eval()(image))
    assert torch.allclose(model(image), model(image.float() / 255), atol=1e-5)


def test_weighted_loss_is_the_mean_over_batches() -> None:
    model = Classifier(class_weights="balanced")
    model.set_data_description(DataDescription(square(8), ClassTarget(["a", "b"], [90, 10])))
    model.eval().configure_model()
    image, label = torch.rand(12, 3, 8, 8), torch.tensor([0] * 9 + [1] * 3)
    parts = [Batch(image[rows], label[rows], label[rows]) for rows in (slice(0, 12), slice(0, 10), slice(10, 12))]
    whole, most, rest = (float(model._step(part, "val")[0].detach()) for part in parts)
    assert whole == pytest.approx((10 * most + 2 * rest) / 12, rel=1e-5)


@pytest.mark.parametrize("tta", ["flip", "flip_translate"])
def test_flip_tta_is_invariant_to_flips(tta: TestTimeAugmentation) -> None:
    net, image = ConvNet(3, square(8)).eval(), torch.rand(4, 3, 8, 8)
    assert torch.allclose(tta_logits(net, image, "none"), net(image))
    assert torch.allclose(tta_logits(net, image, tta), tta_logits(net, image.flip(-1), tta), atol=1e-5) == (
        tta == "flip"
    )


def test_flip_translate_weights_match_the_paper() -> None:
    def column(image: torch.Tensor) -> torch.Tensor:  # a linear network of one pixel
        return image[:, :1, 3, 3]

    image = torch.arange(64.0).view(1, 1, 8, 8).repeat(1, 3, 1, 1)
    a, b = image[0, 0, 3, 3], image[0, 0, 3, 4]
    up, flipped_up = image[0, 0, 2, 2], image[0, 0, 2, 3]
    down, flipped_down = image[0, 0, 4, 4], image[0, 0, 4, 5]
    expected = (a + b) / 4 + (up + flipped_up + down + flipped_down) / 8
    assert float(tta_logits(column, image, "flip_translate")) == pytest.approx(float(expected))
