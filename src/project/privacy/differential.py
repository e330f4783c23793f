"""Callback for differentially private training."""

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
from project.privacy.budget import MIN_EPSILON, History, add_steps, epsilon_of, noise_for, steps_within
from project.privacy.poisson import PoissonBatchSampler
from project.privacy.validation import validate


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Make the input contiguous: Opacus 1.6.0 computes wrong per-sample gradients for channels-last inputs."""
    return (inputs[0].contiguous(), *inputs[1:])


class DifferentialPrivacy(L.Callback):
    """Callback that trains with DP-SGD: per-sample gradient clipping, Gaussian noise, and a privacy budget.

    Abadi et al., Deep Learning with Differential Privacy, 2016. Per-sample gradients, clipping, noise and accounting
    are those of Opacus (the extra `private`). Training stops when the budget is spent. The privacy spent is saved in
    the checkpoint's notes as `privacy`, and a resumed run continues from it. Configurations that would void the
    guarantee are rejected; docs/privacy.md describes what the guarantee covers.

    Args:
        epsilon: Privacy budget: adding or removing one image of the train split increases the probability of any
            outcome by at most a factor of e^epsilon, up to an additive delta.
        delta: Failure probability; must be below 1 / number of images.
        max_grad_norm: Maximum norm to which the gradient of each image is clipped; the noise is proportional to it.
        noise_multiplier: Standard deviation of the noise, in units of `max_grad_norm`. By default the value that spends
            the budget over the length of the run; in a resumed run, the previous value.
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
        if epsilon < MIN_EPSILON:
            raise UserError(f"DifferentialPrivacy.epsilon must be at least {MIN_EPSILON}, got {epsilon}")
        if noise_multiplier is not None and noise_multiplier < 0.2:
            raise UserError(f"DifferentialPrivacy.noise_multiplier must be at least 0.2, got {noise_multiplier}")
        self.epsilon, self.delta, self.max_grad_norm = epsilon, delta, max_grad_norm
        self.noise_multiplier = noise_multiplier
        self.history: History = []
        self._noise, self._rate, self._accumulate, self._remaining, self._truncated = 0.0, 0.0, 1, 0, False
        self._handles: list[RemovableHandle] = []

    @property
    def spent(self) -> float:
        """Epsilon spent so far."""
        return epsilon_of(self.history, self.delta)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the history of a resumed run."""
        if trainer.state.fn != "fit":
            return
        if (saved := checkpoint.get("notes", {}).get("privacy")) is None:
            raise UserError(
                "the checkpoint was trained without differential privacy, which cannot be added afterwards: start a new"
                " run"
            )
        self.history = [list(entry) for entry in saved["history"]]
        self._noise = saved["noise_multiplier"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Validate the configuration and convert the network to contiguous memory format, as required by Opacus."""
        if sum(isinstance(each, DifferentialPrivacy) for each in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise UserError(
                "DifferentialPrivacy is configured twice: to change the one in a config, pass only its options, e.g."
                " --trainer.callbacks.epsilon 3"
            )
        validate(trainer, self.delta)
        pl_module.memory_format = torch.contiguous_format
        pl_module.net.to(memory_format=torch.contiguous_format)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Determine noise and number of steps, and register the hooks that compute per-sample gradients."""
        from opacus.grad_sample import GradSampleHooks
        from opacus.optimizers import DPOptimizer

        net, sampler = pl_module.net, cast(Any, trainer.train_dataloader).batch_sampler
        assert isinstance(sampler, PoissonBatchSampler)
        self._rate, self._accumulate = sampler.rate, sampler.accumulate
        planned = trainer.estimated_stepping_batches - trainer.global_step
        if self.noise_multiplier is not None:
            self._noise = self.noise_multiplier
        elif not self._noise:
            if planned == math.inf:
                reason = "DifferentialPrivacy derives the noise from the length of the run"
                raise UserError(f"{reason}: set trainer.max_epochs, or noise_multiplier")
            self._noise = noise_for(self.epsilon, self.delta, self._rate, int(planned))
        self._remaining = steps_within(self.epsilon, self.delta, self.history, self._noise, self._rate, planned)
        self._truncated = self._remaining < planned
        if not self._remaining:
            raise UserError(
                f"the privacy budget is spent: epsilon {self.spent:.2f} of {self.epsilon:g} at delta {self.delta:g};"
                " further steps require a larger DifferentialPrivacy.epsilon"
            )
        for module in net.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # per-sample gradients need the activations it would overwrite
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                self._handles.append(module.register_forward_pre_hook(_contiguous))
        warnings.filterwarnings("ignore", "Full backward hook is firing")  # the input requires no gradient
        self._hooks = GradSampleHooks(net, loss_reduction="sum")
        # The seed must stay secret, as it determines the noise.
        generator = torch.Generator(pl_module.device).manual_seed(secrets.randbits(63))
        # The loss is the sum over the images divided by their expected number, so the clipping norm is divided, too.
        noise = {"noise_multiplier": self._noise, "max_grad_norm": self.max_grad_norm / sampler.expected}
        reduction: dict[str, Any] = {"expected_batch_size": None, "loss_reduction": "sum"}
        self._optimizer = DPOptimizer(trainer.optimizers[0], **noise, **reduction, generator=generator)
        trainer.print(
            f"private   epsilon up to {self.epsilon:g} at delta {self.delta:g}: noise multiplier {self._noise:g},"
            f" sampling rate {self._rate:.4f}, {pluralize(self._remaining, 'step')}\n"
        )

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Check that gradient accumulation has not changed, as the accounting depends on it."""
        assert trainer.accumulate_grad_batches == self._accumulate, "the sampling rate of a step has changed"

    def on_after_backward(self, *_: Any) -> None:
        """Clip the per-sample gradients of the batch and accumulate their sum."""
        self._optimizer.clip_and_accumulate()
        for parameter in self._optimizer.params:
            parameter.grad_sample = None

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Replace the gradient by the noisy sum of clipped gradients, and record the step."""
        if not self._remaining:
            raise UserError(
                "the privacy budget is spent, but the run continues: remove trainer.min_epochs and trainer.min_steps"
            )
        self.history = add_steps(self.history, self._noise, self._rate, 1)
        self._remaining -= 1
        self._optimizer.add_noise()
        for parameter in self._optimizer.params:
            parameter.summed_grad = None

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop training when the budget does not allow another step."""
        if not self._remaining:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log `privacy/epsilon`."""
        pl_module.log("privacy/epsilon", self.spent)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Remove the hooks, and print the privacy spent."""
        self._hooks.cleanup()
        for handle in self._handles:
            handle.remove()
        for parameter in self._optimizer.params:
            del parameter.summed_grad
        trainer.print(
            f"private   epsilon {self.spent:.2f} of {self.epsilon:g} at delta {self.delta:g}, per image of the train"
            f" split{'; the budget does not allow another step' if self._truncated and not self._remaining else ''}"
        )

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the privacy spent in the checkpoint's notes."""
        settings = {"delta": self.delta, "max_grad_norm": self.max_grad_norm, "noise_multiplier": self._noise}
        checkpoint.setdefault("notes", {})["privacy"] = {"epsilon": self.spent, **settings, "history": self.history}
