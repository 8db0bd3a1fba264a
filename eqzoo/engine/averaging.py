"""Average gradients over processes during the backward pass.

torch's DistributedDataParallel and FSDP2's `replicate` see the forward pass of one wrapped module. A step here calls
parts of a model, differentiates a graph twice for the adaptive weight of an adversarial loss, and has several
optimizers and micro-batches. This module therefore averages each gradient itself, without a wrapper, and names in
checkpoints stay plain.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eqzoo.distributed import is_shard, rank_and_world_size

# Smaller gradients are sent together. A message costs tens of microseconds, in which 256 KiB are sent at 8 GB/s.
SMALL_BYTES = 2**18

# Owners of a gradient's memory where nothing shares it: the tensor, and the Python object through which it is asked.
_OWNERS = 2


@dataclass
class Traffic:
    """What a process has sent and copied so far.

    Args:
        sent: Bytes of gradients that were handed to the communication library.
        early: Those of them that were handed over during a backward pass.
        copied: Bytes that were written only to be sent or to be brought back.
        messages: Number of sums over processes.
    """

    sent: int = 0
    early: int = 0
    copied: int = 0
    messages: int = 0


class GradientMean:
    """The mean over processes of the gradients of one optimizer's parameters.

    A gradient of at least `small` bytes is summed in its own memory, during the backward pass, as soon as it and those
    before it in a fixed order are complete. All others are sent as one message at the end. The order is that in which
    process 0 completed them in the first step; no sum depends on it.

    With one process nothing is done. Gradients of shards are left out, since FSDP has averaged them; beside shards
    nothing is sent during the backward pass, in which FSDP sends its own.

    Args:
        parameters: The optimizer's parameters.
        small: Bytes below which gradients are sent together.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], small: int | None = None) -> None:
        small = SMALL_BYTES if small is None else small
        whole = [each for each in parameters if not is_shard(each)]
        self._has_shards = len(whole) < len(parameters)
        # a backward pass begins with the last layers, until the first step has shown the order
        self._large = [each for each in reversed(whole) if each.nbytes >= small]
        self._small = [each for each in whole if each.nbytes < small]
        self._is_agreed = not self._large
        self._in_backward = False
        self._complete: dict[nn.Parameter, None] = {}  # in the order of their completion
        self._begun: list[tuple[dist.Work, Tensor]] = []
        self._next = 0
        self.traffic = Traffic()

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Send gradients as they are completed: around the last backward pass before `finish`."""
        if rank_and_world_size()[1] == 1 or self._has_shards:
            yield
            return
        hooks = [each.register_post_accumulate_grad_hook(self._receive) for each in self._large if each.requires_grad]
        self._in_backward = True
        try:
            yield
        finally:
            self._in_backward = False
            for hook in hooks:
                hook.remove()

    def finish(self) -> None:
        """Replace all gradients by their means; all processes have to call it.

        A parameter without a gradient here may have one on another process, and counts as zero.
        """
        world_size = rank_and_world_size()[1]
        if world_size == 1:
            return
        while self._next < len(self._large):
            self._begin_next()
        for dtype in dict.fromkeys(each.dtype for each in self._small):
            self._begin_together([each for each in self._small if each.dtype == dtype and each.requires_grad])
        for work, total in self._begun:
            work.wait()
            total.div_(world_size)
        if not self._is_agreed:
            self._agree()
        self._complete, self._begun, self._next = {}, [], 0

    def _receive(self, parameter: nn.Parameter) -> None:
        self._complete[parameter] = None
        while self._next < len(self._large) and self._large[self._next] in self._complete:
            self._begin_next()

    def _begin_next(self) -> None:
        parameter = self._large[self._next]
        self._next += 1
        if not parameter.requires_grad:
            return
        gradient = self._gradient(parameter)
        # Autograd may still need a tensor of which a gradient is a view, such as the gradient of a sum.
        if torch._C._storage_Use_Count(gradient.untyped_storage()._cdata) > _OWNERS:
            gradient = self._copy(parameter)
        self._begin(_as_stored(gradient))

    def _begin_together(self, parameters: Sequence[nn.Parameter]) -> None:
        if not parameters:
            return
        flat = torch.cat([_as_stored(self._gradient(each)) for each in parameters])
        self.traffic.copied += flat.nbytes
        for parameter, piece in zip(parameters, flat.split([each.numel() for each in parameters]), strict=True):
            parameter.grad = piece.as_strided(parameter.size(), parameter.stride())
        self._begin(flat)

    def _begin(self, flat: Tensor) -> None:
        self._begun.append((dist.all_reduce(flat, async_op=True), flat))
        self.traffic.sent += flat.nbytes
        self.traffic.early += flat.nbytes if self._in_backward else 0
        self.traffic.messages += 1

    def _gradient(self, parameter: nn.Parameter) -> Tensor:
        """Return the gradient of a parameter, with its strides, which autograd gives it wherever it can."""
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        return parameter.grad if parameter.grad.stride() == parameter.stride() else self._copy(parameter)

    def _copy(self, parameter: nn.Parameter) -> Tensor:
        parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(parameter.grad)
        self.traffic.copied += parameter.grad.nbytes
        return parameter.grad

    def _agree(self) -> None:
        """Take over process 0's order of completion."""
        numbers = {parameter: number for number, parameter in enumerate(self._large)}
        order = [numbers[each] for each in dict.fromkeys([*self._complete, *self._large])]
        order = torch.tensor(order, device=self._large[0].device)
        dist.broadcast(order, 0)
        self._large = [self._large[number] for number in order.tolist()]
        self._is_agreed = True


def _as_stored(tensor: Tensor) -> Tensor:
    """Return the elements of a dense tensor in the order of its memory, which they share."""
    return tensor.as_strided((tensor.numel(),), (1,))
