"""A net some of whose channels were taken out."""

from typing import get_type_hints

from torch import Size, Tensor, nn

from project.errors import UserError
from project.interface import ImageInput
from project.runs.spec import Spec, builder, init_args


class Pruned(nn.Module):
    """Any net with the shapes that `train.py prune` left it; in a checkpoint it is told by plain values alone.

    Args:
        num_classes: Number of logits.
        inputs: The images.
        net: What the net was before: {class_path, init_args}, or the path of a function.
        shapes: The shape of each parameter and buffer that was cut, by name; -1 where it is as long as before, which
            may depend on classes and image size.
    """

    def __init__(self, num_classes: int, inputs: ImageInput, net: Spec, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        build = builder(net)
        kind = build if isinstance(build, type) else get_type_hints(build).get("return")
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):  # a file from elsewhere may name anything
            raise UserError(f"Pruned.net: {build!r} is no nn.Module, nor a function that says it returns one")
        self.net = build(num_classes, inputs, **init_args(net))
        for name, shape in shapes.items():
            owner, _, leaf = name.rpartition(".")
            module = self.net.get_submodule(owner)
            values = getattr(module, leaf).detach()[tuple(slice(n if n > 0 else None) for n in shape)].clone()
            setattr(module, leaf, nn.Parameter(values) if leaf in module._parameters else values)
            if leaf == "weight":
                _describe(module, values.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, 3, height, width) to logits (N, num_classes)."""
        logits: Tensor = self.net(x)
        return logits


def _describe(module: nn.Module, shape: Size) -> None:
    """Let a layer say what it is now."""
    if isinstance(module, nn.Conv2d):
        if module.groups > 1:  # depthwise, or as many groups as there were, each with fewer channels
            module.groups = shape[0] if module.groups == module.out_channels else module.groups
        module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(shape)
