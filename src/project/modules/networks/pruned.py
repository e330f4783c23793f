"""A pruned network."""

from typing import get_type_hints

from torch import Size, Tensor, nn

from project.errors import UserError
from project.interface import ImageInput
from project.runs.spec import Spec, builder, init_args


class Pruned(nn.Module):
    """Network with channels removed by `train.py prune`.

    Its arguments are plain values, so that it can be rebuilt from a checkpoint.

    Args:
        num_classes: Number of classes.
        inputs: Image size and channels.
        net: The network before pruning: {class_path, init_args}, or the path of a function.
        shapes: Shapes of the pruned parameters and buffers by name; -1 for dimensions that are not pruned, as they may
            depend on the number of classes and the image size.
    """

    def __init__(self, num_classes: int, inputs: ImageInput, net: Spec, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        build = builder(net)
        kind = build if isinstance(build, type) else get_type_hints(build).get("return")
        # Untrusted checkpoints may name any callable.
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise UserError(f"Pruned.net: {build!r} is not an nn.Module or a function annotated to return one")
        self.net = build(num_classes, inputs, **init_args(net))
        for name, shape in shapes.items():
            owner, _, leaf = name.rpartition(".")
            module = self.net.get_submodule(owner)
            values = getattr(module, leaf).detach()[tuple(slice(n if n > 0 else None) for n in shape)].clone()
            setattr(module, leaf, nn.Parameter(values) if leaf in module._parameters else values)
            if leaf == "weight":
                _update_sizes(module, values.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, channels, height, width) to logits (N, num_classes)."""
        logits: Tensor = self.net(x)
        return logits


def _update_sizes(module: nn.Module, shape: Size) -> None:
    """Set the size attributes of a layer to the shape of its pruned weight."""
    if isinstance(module, nn.Conv2d):
        if module.groups > 1:  # depthwise: one group per channel; else the groups have fewer channels
            module.groups = shape[0] if module.groups == module.out_channels else module.groups
        module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(shape)
