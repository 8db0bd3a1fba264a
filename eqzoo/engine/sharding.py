"""Generators too large for one GPU: weights, gradients and optimizer states in shards (torch's FSDP2).

mmengine's own strategy cannot resume; this one writes the checkpoints that an unsharded run
writes, so that either goes on from the other.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from eqzoo.distributed import rank_and_world_size, whole
from eqzoo.engine.training import Training
from eqzoo.registry import HOOKS, build


def shard(training: Training, device: torch.device) -> None:
    """Cut what `training` trains into shards, one a process, block by block, in place.

    Call it when all processes have the same weights, before optimizers are built. Gradients are
    then averaged by FSDP, in the backward pass.

    Raises:
        ValueError: If there is one process only, or the model has a part that cannot be cut.
    """
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        raise ValueError('sharding: there is one process; start several with torchrun, or leave sharding out.')
    if training.subject != 'generator':
        raise ValueError(
            f'sharding: {type(training).__name__} trains the {training.subject}; only generators are sharded.'
        )
    shard_module(training.generator.to(device), training.blocks(), device)


def shard_module(module: nn.Module, blocks: list[nn.Module], device: torch.device) -> None:
    """Shard each of `blocks`, and the rest of `module`."""
    mesh = init_device_mesh(device.type, (rank_and_world_size()[1],))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module.network, mesh=mesh)
    if hasattr(module.network, 'forward_with_features'):  # what REPA calls in place of `forward`
        register_fsdp_forward_method(module.network, 'forward_with_features')


def is_sharded(module: nn.Module) -> bool:
    """Return whether a module's weights are in shards."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def duplicate(training: Training, config: Mapping[str, Any]) -> nn.Module:
    """Return a sharded copy of a sharded generator, which cannot be copied as other modules can.

    Args:
        training: What trains it.
        config: What that was built from.
    """
    arguments = {name: value for name, value in config['generator'].items() if name != 'encoder'}
    with torch.device('meta'):
        copy = build({**arguments, 'network': {**arguments['network'], 'weights': None}})
    device = training.device
    shard_module(copy, list(copy.network.blocks), device)
    copy.to_empty(device=device)
    with torch.no_grad():
        values = training.generator.state_dict()
        for name, tensor in copy.state_dict().items():
            tensor.copy_(values[name])
    return copy


@HOOKS.register_module()
class GatherHook(Hook):
    """Gather shards into checkpoints."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._gathered: dict[str, Any] = {}

    def before_checkpoint(self, runner: Runner) -> None:
        """Gather weights, averages and optimizer states; they stay on the first process's CPU."""
        parts = {'state_dict': runner.model.state_dict(), 'optimizer': runner.optim_wrapper.state_dict()}
        average = next((hook.average for hook in runner.hooks if hasattr(hook, 'average')), None)
        if average is not None:
            parts['ema_state_dict'] = average.state_dict()
        first = rank_and_world_size()[0] == 0

        def gathered(value: Tensor) -> Tensor:
            value = whole(value.detach())
            return value.cpu() if first else value.new_empty(0, device='cpu')

        self._gathered = {name: _map(part, gathered) for name, part in parts.items()}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace shards by what was gathered."""
        checkpoint.update(self._gathered)
        self._gathered = {}


@HOOKS.register_module()
class ScatterHook(Hook):
    """Cut checkpoints into shards, before anything else reads them."""

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace whole tensors by shards like the model's."""
        model = runner.model
        for name, module in (('state_dict', model), ('ema_state_dict', getattr(model, model.subject))):
            if name in checkpoint:
                shards = module.state_dict()
                checkpoint[name] = {key: _like(value, shards.get(key)) for key, value in checkpoint[name].items()}
        for name, optimizer in runner.optim_wrapper.items():
            parameters = [each for group in optimizer.param_groups for each in group['params']]
            states = checkpoint['optimizer'][name]['state']
            for index, state in states.items():
                states[index] = {key: _like(value, parameters[index]) for key, value in state.items()}


def _like(value: Any, shards: Tensor | None) -> Any:
    if not isinstance(shards, DTensor) or not isinstance(value, Tensor) or value.shape != shards.shape:
        return value
    return distribute_tensor(value.to(shards.device), shards.device_mesh, shards.placements)


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return type(value)((key, _map(item, function)) for key, item in value.items())
    if isinstance(value, list):
        return [_map(item, function) for item in value]
    return value
