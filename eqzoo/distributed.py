"""Devices and process groups: device selection, joining the group, sums and means over it."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eqzoo.text import counted, printable

# Long enough for a first validation or a slow disk, which are no failures.
_TIMEOUT = timedelta(minutes=30)

# Parts of the messages of gloo and NCCL when a peer is lost.
_LOST = re.compile(r'Connection (closed|reset)|NCCL|[Tt]imed out|gloo|Broken pipe|peer', re.ASCII)

# The device that `use_device` chose for this process.
_CHOSEN = {'device': 'auto'}

# The remarks that `say_once` has made.
_SAID: set[str] = set()


def total_memory() -> int:
    """Return the bytes of memory of the device that `get_device` names; the machine's, if it is no GPU."""
    device = torch.device(get_device())
    if device.type == 'cuda':
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def get_device() -> str:
    """Return the type of device that this process computes on: 'cuda', 'mps' or 'cpu'."""
    if _CHOSEN['device'] != 'auto':
        return _CHOSEN['device']
    if torch.cuda.is_available():
        return 'cuda'
    return 'mps' if torch.backends.mps.is_available() else 'cpu'


def init_distributed() -> None:
    """Join the process group that torchrun set up, if there is one: nccl with GPUs, gloo without.

    Raises:
        ValueError: If this process has no GPU of its own.
    """
    if 'RANK' not in os.environ or dist.is_initialized():
        return
    if get_device().startswith('cuda'):
        local, count = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
        if local >= count:
            raise ValueError(
                f'torchrun: process {local} of this machine has no GPU of its own, {counted(count, "GPU")} can be '
                f'seen; set --nproc_per_node={count}, look at CUDA_VISIBLE_DEVICES, or set device=cpu.'
            )
        device = torch.device('cuda', local)
        torch.cuda.set_device(device)
        dist.init_process_group('nccl', timeout=_TIMEOUT, device_id=device)  # barriers then know it, too
    else:
        dist.init_process_group('gloo', timeout=_TIMEOUT)


@contextmanager
def failures_of_others() -> Iterator[None]:
    """Turn the communication library's error about a lost process into one message.

    Raises:
        ConnectionError: In place of a collective's `RuntimeError`.
    """
    try:
        yield
    except RuntimeError as error:
        if rank_and_world_size()[1] == 1 or not _LOST.search(str(error)):
            raise
        rank = rank_and_world_size()[0]
        raise ConnectionError(
            f'process {rank}: another process is gone or does not answer ({str(error).splitlines()[0][:200]}); its own '
            'message, above or in its log, says why. Continue with --resume.'
        ) from None


def close_distributed() -> None:
    """Leave the process group, if there is one; gloo may abort a process that ends inside it."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Wait until every process has reached this call."""
    if dist.is_initialized():
        dist.barrier()


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes, (0, 1) outside a group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def say_once(message: str) -> None:
    """Print a remark on stderr, in the first process and once, however often it is made."""
    first = os.environ.get('RANK', '0') == '0'  # data sets are opened before a group is joined
    if first and message not in _SAID:
        _SAID.add(message)
        print(printable(message), file=sys.stderr, flush=True)


def all_reduce(tensor: Tensor) -> None:
    """Replace `tensor`, on any device, by its sum over all processes."""
    if rank_and_world_size()[1] > 1:
        total = tensor.to(_communication_device())
        dist.all_reduce(total)
        tensor.copy_(total)


def all_gather_object(value: Any) -> list[Any]:
    """Return the `value` of every process, in the order of their ranks."""
    values = [value] * rank_and_world_size()[1]
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def max_over_processes(number: int) -> int:
    """Return the maximum of a number over all processes; all of them have to call it."""
    if rank_and_world_size()[1] == 1:
        return number
    tensor = torch.tensor(number, device=_communication_device())
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def mean_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean of each tensor over all processes; the tensors share dtype and device."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    pieces = (flat / world_size).split([tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]


def is_shard(tensor: Any) -> bool:
    """Return whether a tensor is a process's shard of a larger one, a `DTensor`.

    Its module, which takes half a second, is not imported for the answer: without it, there are none.
    """
    module = sys.modules.get('torch.distributed.tensor')
    return module is not None and isinstance(tensor, module.DTensor)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor, gathered from its shards if it has any: then all processes have to call it."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or the whole tensor if it has no shards."""
    return tensor.to_local() if is_shard(tensor) else tensor


def broadcast_weights(model: nn.Module) -> None:
    """Copy the weights and buffers of the first process to all others."""
    if rank_and_world_size()[1] > 1:
        place = _communication_device()  # NCCL knows no tensors of the CPU, where a new model's weights are
        for tensor in model.state_dict().values():
            sent = tensor.to(place)
            dist.broadcast(sent, 0)
            tensor.copy_(sent)


def _communication_device() -> str:
    return 'cuda' if dist.get_backend() == 'nccl' else 'cpu'


def use_device(device: str) -> None:
    """Choose the device of this process: 'auto' (a GPU if there is one), 'cpu' or 'cuda'.

    Raises:
        ValueError: If it is none of these, or there is no GPU.
    """
    if device not in ('auto', 'cpu', 'cuda'):
        raise ValueError(f"device: got {device!r}; expected 'auto', 'cpu' or 'cuda'.")
    if device == 'cuda' and not torch.cuda.is_available():
        built = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'built without CUDA'
        raise ValueError(
            f"device: got 'cuda', but torch {torch.__version__}, {built}, sees no GPU here; look at nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, install a torch with CUDA, or set device='cpu'."
        )
    _CHOSEN['device'] = device
