"""The callback that makes training differentially private."""

import math
import secrets
import warnings
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from project.errors import UserError
from project.output import pluralize
from project.privacy.budget import LEAST, History, add_steps, epsilon_of, noise_for, steps_within
from project.privacy.poisson import PoissonBatchSampler
from project.privacy.validation import refuse


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Opacus 1.6.0 finds wrong gradients of single images where channels lie last, be it by a net's own permute."""
    return (inputs[0].contiguous(), *inputs[1:])


class DifferentialPrivacy(L.Callback):
    """Trains by DP-SGD: clips the gradient of each image, adds noise to their sum, and stops where the budget ends.

    Abadi et al., Deep Learning with Differential Privacy, 2016; the gradients, clipping, noise and accounting are those
    of Opacus (the extra `private`). What it has cost stands in the checkpoint's notes as `privacy`, and a continued run
    goes on from there. What would void the guarantee is refused; what the guarantee covers stands in docs/privacy.md.

    Args:
        epsilon: The budget: adding one image to the train split, or taking one out, makes no outcome likelier by more
            than a factor of e to the power of it ...
        delta: ... but with this probability; to be below one over the number of images.
        max_grad_norm: The gradient of each image is shortened to this length; the noise is in proportion to it.
        noise_multiplier: Standard deviation of the noise, of this length. By default what spends the budget in the
            length of the run, or in a continued run what it had.
    """

    def __init__(
        self,
        epsilon: float = 8.0,
        delta: float = 1e-5,
        max_grad_norm: float = 1.0,
        noise_multiplier: float | None = None,
    ) -> None:
        given = {"epsilon": epsilon, "max_grad_norm": max_grad_norm, "noise_multiplier": noise_multiplier or 1.0}
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise UserError(f"DifferentialPrivacy.{name} must be above 0, got {value}")
        if epsilon < LEAST:
            raise UserError(f"DifferentialPrivacy.epsilon is counted to {LEAST}: it must not be less, got {epsilon}")
        if noise_multiplier is not None and noise_multiplier < 0.2:
            raise UserError(f"DifferentialPrivacy.noise_multiplier: {noise_multiplier} hides nothing: take 0.2 or more")
        self.epsilon, self.delta, self.max_grad_norm = epsilon, delta, max_grad_norm
        self.noise_multiplier = noise_multiplier
        self.history: History = []
        self._noise, self._rate, self._batches, self._left, self._cut = 0.0, 0.0, 1, 0, False
        self._layouts: list[RemovableHandle] = []

    @property
    def spent(self) -> float:
        """The epsilon spent so far."""
        return epsilon_of(self.history, self.delta)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with what was spent."""
        if trainer.state.fn != "fit":
            return
        if (saved := checkpoint.get("notes", {}).get("privacy")) is None:
            raise UserError(
                "the checkpoint was not trained with differential privacy, and what it has learnt cannot be taken back:"
                " begin a new run"
            )
        self.history = [list(entry) for entry in saved["history"]]
        self._noise = saved["noise_multiplier"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuse what would void the guarantee; lay out the net as Opacus expects it."""
        if sum(isinstance(each, DifferentialPrivacy) for each in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise UserError(
                "DifferentialPrivacy is given twice: to change one that a config has, type its options alone, such as"
                " --trainer.callbacks.epsilon 3"
            )
        refuse(trainer, self.delta)
        pl_module.memory_format = torch.contiguous_format
        pl_module.net.to(memory_format=torch.contiguous_format)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Find noise and number of steps; have the gradient of every image taken by itself."""
        from opacus.grad_sample import GradSampleHooks
        from opacus.optimizers import DPOptimizer

        net, batches = pl_module.net, cast(Any, trainer.train_dataloader).batch_sampler
        assert isinstance(batches, PoissonBatchSampler)
        self._rate, self._batches = batches.rate, batches.accumulate
        to_go = trainer.estimated_stepping_batches - trainer.global_step
        if self.noise_multiplier is not None:
            self._noise = self.noise_multiplier
        elif not self._noise:
            if to_go == math.inf:
                known = "DifferentialPrivacy: the noise is found from the length of the run"
                raise UserError(f"{known}: give trainer.max_epochs, or noise_multiplier")
            self._noise = noise_for(self.epsilon, self.delta, self._rate, int(to_go))
        self._left = steps_within(self.epsilon, self.delta, self.history, self._noise, self._rate, to_go)
        self._cut = self._left < to_go
        if not self._left:
            raise UserError(
                f"the privacy budget is spent: epsilon {self.spent:.2f} of {self.epsilon:g} at delta {self.delta:g};"
                " another step needs a larger DifferentialPrivacy.epsilon"
            )
        for module in net.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # what it would overwrite is needed for the gradients of single images
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                self._layouts.append(module.register_forward_pre_hook(_contiguous))
        warnings.filterwarnings("ignore", "Full backward hook is firing")  # an image needs no gradient of its pixels
        self._hooks = GradSampleHooks(net, loss_reduction="sum")
        generator = torch.Generator(pl_module.device).manual_seed(secrets.randbits(63))  # who knew it knew the noise
        # The loss is the sum over the images, divided by their expected number: so is the length to clip to.
        noise = {"noise_multiplier": self._noise, "max_grad_norm": self.max_grad_norm / batches.expected}
        total: dict[str, Any] = {"expected_batch_size": None, "loss_reduction": "sum"}
        self._optimizer = DPOptimizer(trainer.optimizers[0], **noise, **total, generator=generator)
        trainer.print(
            f"private   epsilon up to {self.epsilon:g} at delta {self.delta:g}: noise multiplier {self._noise:g},"
            f" sampling rate {self._rate:.4f}, {pluralize(self._left, 'step')}\n"
        )

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """See that a step is still made of as many batches as it is counted for."""
        assert trainer.accumulate_grad_batches == self._batches, "a step of more batches would cost more"

    def on_after_backward(self, *_: Any) -> None:
        """Clip the gradients of a batch image by image and add them up."""
        self._optimizer.clip_and_accumulate()
        for parameter in self._optimizer.params:
            parameter.grad_sample = None

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Put the noisy sum in the place of the gradient, and count the step."""
        if not self._left:
            raise UserError(
                "the privacy budget is spent, but the run is told to go on: leave out trainer.min_epochs"
                " and trainer.min_steps"
            )
        self.history = add_steps(self.history, self._noise, self._rate, 1)
        self._left -= 1
        self._optimizer.add_noise()
        for parameter in self._optimizer.params:
            parameter.summed_grad = None

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop where the budget has no room for another step."""
        if not self._left:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log privacy/epsilon."""
        pl_module.log("privacy/epsilon", self.spent)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Leave the net as it was, and say what its training has cost."""
        self._hooks.cleanup()
        for layout in self._layouts:
            layout.remove()
        for parameter in self._optimizer.params:
            del parameter.summed_grad
        trainer.print(
            f"private   epsilon {self.spent:.2f} of {self.epsilon:g} at delta {self.delta:g}, for each image of the"
            f" train split{'; the budget has no room for another step' if self._cut and not self._left else ''}"
        )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what the weights have cost."""
        given = {"delta": self.delta, "max_grad_norm": self.max_grad_norm, "noise_multiplier": self._noise}
        checkpoint.setdefault("notes", {})["privacy"] = {"epsilon": self.spent, **given, "history": self.history}
