"""Synthetic images with a known discriminative patch, and networks trained on them."""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from project.interface import ClassTarget, DataDescription, ImageInput, Target
from project.modules import Classifier, ConvNet, ResNet, SpeedrunNet, Timm

SIZE, PATCH = 32, 8
NAMES = ["blue", "green", "red"]
CLASSES = ClassTarget(NAMES, [1] * 3)
COLORS = torch.tensor([[30, 40, 210], [30, 190, 40], [210, 30, 40]])


def vit(num_classes: int, inputs: ImageInput, pool: str = "token") -> nn.Module:
    """Return a small timm vision transformer with class token or mean pooling."""
    from timm.models import VisionTransformer

    return VisionTransformer(
        inputs.height,
        4,
        num_classes=num_classes,
        embed_dim=64,
        depth=3,
        num_heads=2,
        global_pool=pool,  # type: ignore[arg-type]
    )


def flat(num_classes: int, inputs: ImageInput) -> nn.Module:
    """Return a network without spatial feature maps."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * inputs.height**2, num_classes))


NETS: dict[str, Callable[[int, ImageInput], nn.Module]] = {
    "ConvNet": ConvNet,
    "ResNet": partial(ResNet, depth=8),
    "SpeedrunNet": partial(SpeedrunNet, widths=(16, 32, 32)),
    "resnet of timm": partial(Timm, name="resnet10t", weights=None),
    "vit": vit,
    "vit, mean": partial(vit, pool="avg"),
}


def planted(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return gray noise images with a patch in the color of the class, uint8 (N, 3, 32, 32), their labels and masks."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(60, 190, (count, 1, SIZE, SIZE), generator=generator).expand(-1, 3, -1, -1).clone()
    label = torch.randint(3, (count,), generator=generator)
    mask = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    for number, (top, left) in enumerate(torch.randint(SIZE - PATCH + 1, (count, 2), generator=generator).tolist()):
        mask[number, top : top + PATCH, left : left + PATCH] = True
    image = torch.where(mask[:, None], COLORS[label][:, :, None, None], image)
    return image.to(torch.uint8), label, mask


def classifier(net: Callable[[int, ImageInput], nn.Module], size: int = SIZE, target: Target = CLASSES) -> Classifier:
    """Return a model with random weights."""
    torch.manual_seed(0)
    model = Classifier(net)
    model.set_data_description(DataDescription(ImageInput(size, size, [0.49] * 3, [0.15] * 3), target))
    model.configure_model()
    return model.eval()


@cache
def trained(name: str, steps: int = 60) -> Classifier:
    """Return a network of NETS trained to classify the patches."""
    model = classifier(NETS[name]).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(steps):
        image, label, _ = planted(32, seed=step + 1)
        optimizer.zero_grad()
        F.cross_entropy(model(image), label).backward()
        optimizer.step()
    model.eval()
    image, label, _ = planted(64)
    with torch.no_grad():
        assert (model(image).argmax(1) == label).float().mean() > 0.95, "it did not learn the patches"
    return model
