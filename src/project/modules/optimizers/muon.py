"""The Muon optimizer: momentum with orthogonalized updates."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Newton-Schulz coefficients, chosen to increase small singular values fast; they converge only roughly to 1."""


class Muon(Optimizer):
    """Muon for the weights of hidden layers, SGD with Nesterov momentum for the head, biases and norms.

    The update of a hidden layer is its momentum with all singular values set to about 1. Unlike `torch.optim.Muon`, it
    supports convolutions, as matrices (outputs, inputs x height x width). Jordan et al., Muon: An Optimizer for Hidden
    Layers in Neural Networks, 2024.

    Args:
        params: Parameter groups with a key `role`: `hidden`, `head` or `vector`, as created by `Classifier`.
        lr: Learning rate of hidden layers: the spectral norm of an update.
        momentum: Momentum of hidden layers, in [0, 1).
        weight_decay: Weight decay of the head, biases and norms, as a fraction per step at the full learning rate.
        head_lr: Learning rate of the head.
        vector_lr: Learning rate of biases and norms.
        sgd_momentum: Momentum of the head, biases and norms, in [0, 1).
        steps: Number of Newton-Schulz iterations.
        fixed_norm: Whether to rescale the weights of each hidden layer before each step to a norm of sqrt(outputs); for
            layers followed by a normalization layer, which makes their scale irrelevant.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        head_lr: float = 0.01,
        vector_lr: float = 0.01,
        sgd_momentum: float = 0.9,
        steps: int = 5,
        fixed_norm: bool = False,
    ) -> None:
        rates = {"hidden": lr, "head": head_lr, "vector": vector_lr}
        groups = [
            {**group, "lr": (rate := rates[group["role"]]), "full_lr": rate, "weight_decay": weight_decay}
            for group in params
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self.momentum, self.sgd_momentum, self.steps, self.fixed_norm = momentum, sgd_momentum, steps, fixed_norm

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step and return the loss of the closure, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            hidden = group["role"] == "hidden"
            momentum = self.momentum if hidden else self.sgd_momentum
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if not hidden:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"] / group["full_lr"])
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].mul_(momentum).add_(gradient)
                update = gradient.add(average, alpha=momentum)
                if hidden:
                    update = orthogonalize(update.flatten(1), self.steps).view_as(parameter)
                    if self.fixed_norm:
                        parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
                parameter.add_(update, alpha=-group["lr"])
        return loss


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """Return approximately the nearest orthogonal matrix, (rows, columns): singular values in about [0.7, 1.2].

    Computed in bfloat16 on a GPU.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    x = x / (x.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
