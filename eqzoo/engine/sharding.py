"""Sharding for generators too large for one GPU: weights, gradients and optimizer states (torch's FSDP2).

mmengine's own strategy cannot resume; here sharded and unsharded runs write the same checkpoints, and
either can resume from the other's.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from eqzoo.distributed import rank_and_world_size
from eqzoo.engine.training import Training
from eqzoo.registry import HOOKS, build


def shard(training: Training, device: torch.device) -> None:
    """Cut the generator of `training` into shards, one per process, block by block, in place.

    Call it when all processes have the same weights, before optimizers are built. FSDP then averages
    the gradients, in the backward pass.

    Raises:
        ValueError: If there is only one process, or if an autoencoder is trained, alone or with the generator.
    """
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        raise ValueError('sharding: there is only one process; start several with torchrun, or leave sharding out.')
    if training.subjects != ('generator',):
        raise ValueError(
            f'sharding: {type(training).__name__} trains the {" and the ".join(training.subjects)}; only generators '
            'are sharded, and on their own; leave sharding out.'
        )
    shard_network(training.generator.to(device).network, device)


def shard_network(network: nn.Module, device: torch.device) -> None:
    """Cut a generator's network into shards over all processes, block by block, in place."""
    mesh = init_device_mesh(device.type, (rank_and_world_size()[1],))
    for block in network.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    if hasattr(network, 'forward_with_features'):  # REPA calls it in place of `forward`
        register_fsdp_forward_method(network, 'forward_with_features')


def is_sharded(module: nn.Module) -> bool:
    """Return whether a module's weights are in shards."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def reshard(module: nn.Module) -> None:
    """Let go of weights that a forward pass has gathered; does nothing where there are no shards.

    FSDP2 keeps those of the outermost module until its backward pass. A moving average has none: once it had been used,
    it would go on with these weights while its shards are moved.
    """
    for each in module.modules():
        if isinstance(each, FSDPModule):
            each.reshard()


def copy_sharded(training: Training, config: Mapping[str, Any]) -> nn.Module:
    """Return a sharded copy of a sharded generator, which `copy.deepcopy` cannot copy.

    Args:
        training: The training of the generator.
        config: The config that the training was built from.
    """
    arguments = {name: value for name, value in config['generator'].items() if name != 'encoder'}
    network = {name: value for name, value in arguments['network'].items() if name != 'adapt'}
    with torch.device('meta'):
        copy = build({**arguments, 'network': {**network, 'weights': None}})
    device = training.device
    shard_network(copy.network, device)
    copy.to_empty(device=device)
    with torch.no_grad():
        values = training.generator.state_dict()
        for name, tensor in copy.state_dict().items():
            tensor.copy_(values[name])
    return copy


@HOOKS.register_module()
class ShardingHook(Hook):
    """Gather shards into checkpoints, and cut loaded checkpoints into shards.

    Checkpoints have the contents of an unsharded run's.
    """

    priority = 'VERY_HIGH'  # cuts a checkpoint before other hooks read it

    def __init__(self) -> None:
        self._gathered: dict[str, Any] = {}

    def before_checkpoint(self, runner: Runner) -> None:
        """Gather weights, the average and optimizer states on the first process's CPU; all processes take part."""
        model, options = runner.model, StateDictOptions(full_state_dict=True, cpu_offload=True)
        self._gathered = {
            'state_dict': get_model_state_dict(model, options=options),
            'optimizer': {
                name: _by_number(get_optimizer_state_dict(model, wrapper.optimizer, options=options))
                for name, wrapper in runner.optim_wrapper.items()
            },
        }
        average = next((hook.average for hook in runner.hooks if hasattr(hook, 'average')), None)
        if average is not None:
            self._gathered['ema_state_dict'] = get_model_state_dict(average, options=options)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace shards by the gathered tensors."""
        checkpoint.update(self._gathered)
        self._gathered = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace whole tensors by shards with the layout of the model's; mmengine and other hooks then load them.

        torch's `set_model_state_dict` and `set_optimizer_state_dict` are not used: the first stops at unknown names
        before `PlainCheckpointHook` can list them, the second refuses optimizers without state, such as plain SGD.
        """
        model = runner.model
        for key, module in (('state_dict', model), ('ema_state_dict', model.generator)):
            if key in checkpoint:
                shards = module.state_dict()
                checkpoint[key] = {name: _like(value, shards.get(name)) for name, value in checkpoint[key].items()}
        for name, wrapper in runner.optim_wrapper.items():
            parameters = [each for group in wrapper.optimizer.param_groups for each in group['params']]
            states = checkpoint['optimizer'][name]['state']
            for number, state in states.items():
                states[number] = {key: _like(value, parameters[number]) for key, value in state.items()}


def _like(value: Any, shards: Tensor | None) -> Any:
    """Return `value` in shards like those of `shards`, or as it is where these are not shards of the same shape."""
    if not isinstance(shards, DTensor) or not isinstance(value, Tensor) or value.shape != shards.shape:
        return value
    return distribute_tensor(value.to(shards.device), shards.device_mesh, shards.placements)


def _by_number(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state by the numbers of its parameters, as `Optimizer.state_dict` has it, not by names."""
    if not state:  # not the first process
        return state
    numbers = itertools.count()
    groups = [{**group, 'params': [next(numbers) for _ in group['params']]} for group in state['param_groups']]
    names = [name for group in state['param_groups'] for name in group['params']]
    states = {number: state['state'][name] for number, name in enumerate(names) if name in state['state']}
    return {'state': states, 'param_groups': groups}
