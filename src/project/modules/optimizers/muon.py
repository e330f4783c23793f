"""Muon: gradient descent with orthogonalized steps."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration: they raise small singular values fastest, at the price of not quite reaching 1."""


class Muon(Optimizer):
    """Muon for the weights of hidden layers, SGD with Nesterov momentum for the head, biases and norms.

    The step of a hidden layer is its gradient, averaged over time, with all singular values brought to about 1: no
    direction is too weak to be learnt. Convolutions count as matrices (outputs, inputs x height x width), which
    `torch.optim.Muon` does not take. Jordan et al., Muon: An Optimizer for Hidden Layers in Neural Networks, 2024.

    Args:
        params: Groups with a key `role`: `hidden`, `head` or `vector`, as `Classifier` makes them.
        lr: Step of a hidden layer: the spectral norm of its change.
        momentum: Of the hidden layers, in [0, 1).
        weight_decay: Share by which the head, biases and norms shrink in a step at the full learning rate.
        head_lr: Learning rate of the head.
        vector_lr: Learning rate of biases and norms.
        sgd_momentum: Of the head, biases and norms, in [0, 1).
        steps: Newton-Schulz iterations.
        fixed_norm: Rescale the weights of each hidden layer to a mean square of 1 per output before each step; right
            for layers that are followed by a norm, whose scale means nothing.
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
        """Take a step; returns what the closure returns."""
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
    """The orthogonal matrix nearest to one of (rows, columns), roughly: singular values in about [0.7, 1.2].

    On a GPU in bfloat16, which is exact enough for the purpose.
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
