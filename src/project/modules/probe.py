"""Check before training that the network works with the size of the images and of the batches."""

import re
from collections.abc import Callable
from copy import deepcopy

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from project.errors import UserError
from project.interface import ImageInput, Input, data_of
from project.output import pluralize

ONE_VALUE = r"more than 1 value per channel"
"""Message of torch if batch norm gets a single value, of which it cannot compute a variance."""
WRONG_SIZE = (
    r"output size is too small|can't be greater than actual input size|more than 1 spatial element"
    r"|padding size should be less|pooled size|shapes cannot be multiplied|is invalid for input of size"
    r"|must match the size of tensor|wrong image (height|width)|input (height|width|size)|non-?zero (size|dimension)"
)
"""Messages of torch, torchvision and timm if images are too small for a network, or of another size than it takes."""
LARGER = (64, 96, 128, 160, 224, 299)


def check_network(trainer: L.Trainer, net: nn.Module, normalize: Callable[[Tensor], Tensor], inputs: Input) -> None:
    """Run a copy of the network on two blank images, or on one if a batch has a single image.

    The state of the random number generators does not change. Networks with uninitialized or sharded parameters, those
    that cannot be copied and inputs other than images are not checked. Unknown errors are left to training.

    Args:
        trainer: The trainer, with its strategy set up.
        net: The network, in the mode in which it is trained.
        normalize: Maps images, float (N, C, H, W) in [0, 1], to what the network takes.
        inputs: Description of the input.

    Raises:
        UserError: The network does not work with this image size, or not with a batch of one image.
    """
    tensors = [*net.parameters(), *net.buffers()]
    local = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    initialized = not any(nn.parameter.is_lazy(tensor) or tensor.is_meta for tensor in tensors)
    if not (isinstance(inputs, ImageInput) and local and initialized):
        return
    trainer.fit_loop.setup_data()
    sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
    count, device = min(2, getattr(sampler, "smallest", 2)), trainer.strategy.root_device

    def failure(height: int, width: int) -> str:
        """Return the message of a known error for images of this size, or an empty string."""
        images = torch.zeros(count, inputs.channels, height, width, device=device)
        with isolate_rng(include_cuda=device.type == "cuda"):
            try:
                with torch.no_grad(), trainer.precision_plugin.forward_context():
                    deepcopy(net)(normalize(images))
            except Exception as error:
                message = " ".join(str(error).split())
                return message if re.search(f"{ONE_VALUE}|{WRONG_SIZE}", message, re.IGNORECASE) else ""
        return ""

    if not (reason := failure(*inputs.size)):
        return
    network, reason = type(net).__name__, reason if len(reason) < 160 else f"{reason[:160]}..."
    if re.search(ONE_VALUE, reason):
        per_process = " per process" if trainer.world_size > 1 else ""
        raise UserError(
            f"{network} cannot be trained on a batch of {pluralize(count, 'image')}{per_process} ({reason}): change"
            f" data.batch_size {data_of(trainer).batch_size}, e.g. --data.batch_size {8 * trainer.world_size}"
        )
    sizes = (size for size in LARGER if size > max(inputs.size) and not failure(size, size))
    larger = f", e.g. --data.image_size {size}," if (size := next(sizes, None)) else ""
    raise UserError(
        f"{network} does not work with images of {inputs.height}x{inputs.width} ({reason}): change"
        f" data.image_size{larger} or model.net"
    )
