"""Distributed training: sharded parameters (FSDP2) and averaged buffers."""

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
    """Shard the parameters of a network across processes with FSDP2.

    Bottom-up, each module with at least a million parameters that are not yet in a unit becomes an FSDP unit; the root
    holds the rest. Modules without children never become units, as `nn.MultiheadAttention` uses the weights of its
    output projection without calling it.

    Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023.
    """
    from torch.distributed.fsdp import fully_shard

    assigned: set[nn.Parameter] = set()
    for module in reversed(list(net.modules())):  # children before their parents
        own = set(module.parameters()) - assigned
        may_be_unit = not isinstance(module, nn.ModuleList | nn.ModuleDict) and any(True for _ in module.children())
        if module is net or (may_be_unit and sum(p.numel() for p in own) >= 1_000_000):
            fully_shard(module, mesh=mesh)
            assigned |= set(module.parameters())


def average_buffers(net: nn.Module) -> None:
    """Average floating-point buffers, such as batch norm statistics, over processes."""
    from torch.distributed import all_reduce, get_world_size, is_initialized

    if is_initialized() and get_world_size() > 1:
        for buffer in net.buffers():
            if buffer.is_floating_point():
                all_reduce(buffer)
                buffer /= get_world_size()


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, with checkpoints that are compatible with the other strategies.

    `ModelParallelStrategy` matches optimizer states to parameters by their order in the network, but optimizers number
    parameters group by group. This strategy matches them as torch does, so that a run with several parameter groups can
    be resumed with another strategy and on other devices.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Initialize the process group, with all processes data-parallel."""
        model = self.lightning_module
        if model is not None and any(isinstance(c, WeightAveraging) for c in model.trainer.callbacks):  # type: ignore[attr-defined]
            raise UserError(
                "weight averaging does not work with sharded parameters: remove the callback or use --trainer.strategy"
                " ddp"
            )
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the full optimizer state on rank 0.

        An empty state is returned as is: to fill it, torch would take a step without gradients, which Adam counts.
        """
        return super().optimizer_state(optimizer) if optimizer.state else optimizer.state_dict()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a checkpoint of any strategy and shard its weights and optimizer states."""
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
    """Shard each tensor of a full optimizer state like its parameter."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def distribute(value: Any, parameter: DTensor) -> Any:
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)

    ids = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {
        number: {name: distribute(value, parameter) for name, value in state["state"].get(number, {}).items()}
        for number, parameter in zip(ids, parameters, strict=True)
    }
    return {**state, "state": states}


StrategyRegistry.register("fsdp2", ShardedStrategy, "FSDP2: sharded parameters")
