"""What several processes need of a net: its parameters shared out among them, its statistics brought together."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from project.errors import UserError


def shard(net: nn.Module, mesh: DeviceMesh) -> None:
    """Share the parameters of a net out among processes, which gather them unit by unit while they compute (FSDP2).

    From the inside out, each module with a million parameters that no smaller unit holds becomes a unit; the net holds
    the rest. Layers without children are never units: attention reads the weights of its last layer without calling it.

    Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023.
    """
    from torch.distributed.fsdp import fully_shard

    held: set[nn.Parameter] = set()
    for module in reversed(list(net.modules())):  # children before their parents
        own = set(module.parameters()) - held
        callable_itself = not isinstance(module, nn.ModuleList | nn.ModuleDict) and any(True for _ in module.children())
        if module is net or (callable_itself and sum(p.numel() for p in own) >= 1_000_000):
            fully_shard(module, mesh=mesh)
            held |= set(module.parameters())


def average_buffers(net: nn.Module) -> None:
    """Bring what each process has seen together: the mean, over processes, of what batch norm keeps."""
    from torch.distributed import all_reduce, get_world_size, is_initialized

    if is_initialized() and get_world_size() > 1:
        for buffer in net.buffers():
            if buffer.is_floating_point():
                all_reduce(buffer)
                buffer /= get_world_size()


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for nets that shard themselves, over all processes and with the checkpoints of any other.

    Lightning takes the numbers of parameters in an optimizer's state for their order in the net; but where there are
    several groups, other strategies number them group by group. Read as torch reads them, each state meets its own
    parameter, and a run can be continued under another strategy and on other devices.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Start the processes' group, with every process a data-parallel one."""
        model = self.lightning_module
        if model is not None and any(isinstance(c, WeightAveraging) for c in model.trainer.callbacks):  # type: ignore[attr-defined]
            raise UserError(
                "averaged weights cannot be sharded: leave the callback out, or take --trainer.strategy ddp"
            )
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of the optimizer, on the first process; before its first step there is none.

        Asked for it even so, torch would take a step without gradients, which Adam counts ever after.
        """
        return super().optimizer_state(optimizer) if optimizer.state else optimizer.state_dict()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint of any strategy and take each process's share of weights and optimizer states."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        checkpoint: dict[str, Any] = torch.load(
            Path(checkpoint_path), map_location="cpu", mmap=True, weights_only=weights_only
        )
        assert self.model is not None
        set_model_state_dict(self.model, checkpoint["state_dict"], options=StateDictOptions(full_state_dict=True))
        for optimizer, state in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            optimizer.load_state_dict(_shard_optimizer_state(state, optimizer))
        return checkpoint


def _shard_optimizer_state(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """A plain optimizer state with each tensor laid out as the parameter that it belongs to."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def laid_out(value: Any, parameter: DTensor) -> Any:
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)

    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {
        number: {name: laid_out(value, parameter) for name, value in state["state"].get(number, {}).items()}
        for number, parameter in zip(numbers, parameters, strict=True)
    }
    return {**state, "state": states}


StrategyRegistry.register("fsdp2", ShardedStrategy, "Parameters shared out among processes")
