"""Base class of trainings, their optimizer wrapper, and compilation of blocks."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch._functorch.config
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from eqzoo.distributed import full_tensor, get_device, rank_and_world_size, total_memory
from eqzoo.engine.averaging import GradientMean
from eqzoo.engine.optimizers import OptimWrapper
from eqzoo.randomness import StepRandomness
from eqzoo.registry import OPTIM_WRAPPERS
from eqzoo.registry.ranges import PositiveInt, checks_arguments

_SIZES = 32  # image sizes for which blocks are compiled: the released scales have 25


class MicroBatch(NamedTuple):
    """Samples of a batch that go through the network at once.

    Args:
        part: Their places in the batch.
        share: Their share of the batch; 0 for a repetition, see `Training.micro_batches`.
        is_last: Whether they are the batch's last.
    """

    part: slice
    share: float
    is_last: bool


class Training(nn.Module):
    """Base class of trainings: a model with the losses that train it, as `StepLoop` and the hooks use it.

    Args:
        micro_batch_size: Samples per process that go through the network at once; gradients
            of micro-batches are summed. None: the whole batch. With a discriminator the training is another one: the
            adaptive weight and the statistics of batch norms are those of each micro-batch.
        precision: 'fp32', or 'bf16' for autocast without gradient scaling.
        on_nonfinite: Response to a loss or gradient that is not finite: 'stop' ends the run before such weights are
            saved; 'skip' leaves the update out; the host then waits for the device in every step.
    """

    subjects: ClassVar[tuple[str, ...]]
    """Names of the attributes that are averaged, compiled and described in checkpoints: 'autoencoder', 'generator'."""

    @checks_arguments
    def __init__(
        self,
        micro_batch_size: PositiveInt | None,
        precision: Literal['fp32', 'bf16'],
        on_nonfinite: Literal['stop', 'skip'],
    ) -> None:
        super().__init__()
        self.micro_batch_size = micro_batch_size
        self.precision = precision
        self.on_nonfinite = on_nonfinite
        self.is_repeating = False  # whether the micro-batch in the network is a repetition
        self._means: dict[OptimWrapper, GradientMean] = {}

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trained parameters, by the name of their optimizer."""

    def rate_factors(self) -> dict[nn.Parameter, float]:
        """Return the trained parameters whose learning rate is not their optimizer's, with the factor on it."""
        return {}

    @abstractmethod
    def train_step(
        self, batch: Mapping[str, Any], optimizers: Mapping[str, OptimWrapper], randomness: StepRandomness
    ) -> dict[str, Tensor]:
        """Update the parameters once and return scalars for the log.

        Args:
            batch: A batch of the data set's loader, with `draws` (B,).
            optimizers: One for each of `parameter_groups`.
            randomness: The step's streams.
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the modules that may be compiled, each separately."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return a few lines about the model, by title."""

    @abstractmethod
    def stored_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return plain data about the model for checkpoints, by name: enough to build it again.

        Args:
            config: The config that this training was built from.
        """

    def check_data(self, dataset: Dataset) -> None:
        """Check that the training data fit the model.

        Raises:
            ValueError: Naming the difference.
        """

    def kept_bytes(self, dataset: Dataset) -> int:
        """Return the bytes of memory that the network keeps of one sample in a step; 0 if that is not known."""
        return 0

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Return a context in which the network computes in `precision`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == 'bf16')

    def gradient_mean(self, optimizer: OptimWrapper) -> GradientMean:
        """Return what averages the gradients of an optimizer over processes."""
        if optimizer not in self._means:
            # the optimizer's own list: walking the model's modules again takes milliseconds
            self._means[optimizer] = GradientMean(optimized_parameters(optimizer))
        return self._means[optimizer]

    def backward(self, loss: Tensor, optimizer: OptimWrapper, *, is_last: bool) -> None:
        """Add the gradients of `loss`, a scalar, to those of the optimizer's parameters.

        Args:
            loss: A micro-batch's, times its share of the batch.
            optimizer: The optimizer that `update` comes for.
            is_last: Whether it is the last one before this update: its gradients are then sent to other processes
                while it goes on.
        """
        with self.gradient_mean(optimizer).during_backward() if is_last else nullcontext():
            loss.backward()

    def update(self, optimizer: OptimWrapper) -> dict[str, Tensor]:
        """Step along the mean gradients of all processes, and return scalars for the log.

        The scalars are 'grad_norm', the norm of all gradients before clipping, if they are clipped or
        may be skipped; and 'skipped', 1 or 0, if updates may be skipped.
        """
        parameters = optimized_parameters(optimizer)
        self.gradient_mean(optimizer).finish()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        log: dict[str, Tensor] = {}
        skips, limit = self.on_nonfinite == 'skip', clip_limit(optimizer)
        if gradients and (skips or limit is not None):
            log['grad_norm'] = norm = full_tensor(nn.utils.get_total_norm(gradients))
            if skips:
                log['skipped'] = (~norm.isfinite()).float()
                if log['skipped']:
                    optimizer.zero_grad()
                    return log
            if limit is not None:
                nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        optimizer.step()
        optimizer.zero_grad()
        return log

    def micro_batches(self, batch: Mapping[str, Any]) -> list[MicroBatch]:
        """Return the micro-batches of a batch.

        Several processes have the same number of them, whatever each one can read: some losses take a mean over
        processes in every micro-batch. A process with fewer images than that repeats its first one, with a share of 0.
        """
        size = len(batch['draws'])
        planned = size + (len(batch.get('unreadable', ())) if rank_and_world_size()[1] > 1 else 0)
        step = self.micro_batch_size or planned
        count = -(-planned // step)
        # repetitions come first: the gradients of the last micro-batch are sent while they are computed
        micro_batches = [MicroBatch(slice(0, 1), 0.0, is_last=False)] * (count - size)
        start = 0
        for later in reversed(range(min(count, size))):
            stop = min(start + step, size - later)
            micro_batches.append(MicroBatch(slice(start, stop), (stop - start) / size, is_last=not later))
            start = stop
        return micro_batches


def optimized_parameters(optimizer: OptimWrapper) -> list[nn.Parameter]:
    """Return the parameters of all groups of an optimizer."""
    return [parameter for group in optimizer.optimizer.param_groups for parameter in group['params']]


def check_memory(model: Training, dataset: Dataset, batch_size: int) -> None:
    """Refuse a batch that the memory of the device cannot hold.

    Counted is what the network alone keeps for its backward pass: losses, discriminator and optimizer need more.

    Args:
        model: The training.
        dataset: Its data.
        batch_size: Samples of a step on this process.

    Raises:
        ValueError: With the memory that is needed, and the largest batch that could fit.
    """
    at_once = min(model.micro_batch_size or batch_size, batch_size)
    with torch.random.fork_rng(devices=[]):
        each = model.kept_bytes(dataset) // (2 if model.precision == 'bf16' else 1)
    memory = total_memory()
    if each and at_once * each > memory:
        raise ValueError(
            f'train_dataloader.batch_size: {at_once:,} samples at once need more than {at_once * each / 2**30:,.1f} '
            f'GiB, {get_device()} has {memory / 2**30:,.1f} GiB; expected at most {memory // each:,} at once; set '
            'model.micro_batch_size, a smaller batch_size, or smaller images.'
        )


def bytes_kept(network: nn.Module, *inputs: Tensor) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, weights not counted; nothing is computed.

    Args:
        network: A module on any device, in training mode.
        inputs: On the device 'meta'.
    """
    weights = {
        name: torch.empty_like(value, device='meta').requires_grad_(value.requires_grad)
        for name, value in (*network.named_parameters(), *network.named_buffers())
    }
    own = {each.untyped_storage()._cdata for each in weights.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with _FusedAttention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        functional_call(network, weights, inputs)
    return sum(each.untyped_storage().nbytes() for place, each in kept.items() if place not in own)


class _FusedAttention(TorchFunctionMode):
    """Attention that keeps queries and keys, as fused kernels do; torch's for 'meta' keeps the matrix of all pairs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            named = dict(zip(('query', 'key', 'value'), args, strict=False)) | (kwargs or {})
            return named['query'] * named['key'] + named['value']
        return func(*args, **(kwargs or {}))


def compile_blocks(blocks: Iterable[nn.Module], **options: Any) -> None:
    """Compile each module separately, in place; the names of weights stay.

    Image sizes may change from step to step with a transform's scale. Each size is compiled when it comes for the
    first time; further sizes after the first 32 run uncompiled. (Sizes that torch keeps dynamic, its default, fail
    in the inductor of torch 2.14: "cannot determine truth value of Relational".)

    Args:
        blocks: The modules.
        **options: Those of `torch.compile`, such as `backend`; `dynamic` is False by default.
    """
    from torch._dynamo import config as dynamo  # seconds, which other runs do not need

    blocks = list(blocks)
    # torch counts all blocks and sizes together, since one function calls all modules
    # torch 2.6 has only these names of recompile_limit and accumulated_recompile_limit, and later ones have both
    dynamo.cache_size_limit = dynamo.accumulated_cache_size_limit = _SIZES * len(blocks)
    # The adaptive weight of an adversarial loss differentiates a graph twice, which torch < 2.12 otherwise refuses.
    torch._functorch.config.donated_buffer = False
    for block in blocks:
        block.compile(**{'dynamic': False, **options})


# Blocks of diffusers and eqzoo whose activations are many times their input: residual blocks, attention, resampling.
_RECOMPUTED = (
    *('ResnetBlock2D', 'Attention', 'Upsample2D', 'Downsample2D', 'ReflectDownsample'),  # KL and VQ
    *('AutoencoderTinyBlock', 'PooledBlock'),  # tiny
    *('ResBlock', 'EfficientViTBlock', 'DCDownBlock2d', 'DCUpBlock2d'),  # deep compression (AutoencoderDC)
)


def recompute_blocks(network: nn.Module) -> None:
    """Let the backward pass compute the activations of each residual and attention block again, in place.

    A step then keeps the blocks' inputs and the activations of one block at a time; gradients have the same bits. The
    names of weights stay.

    Raises:
        ValueError: If the network has none of these blocks.
    """

    def visit(module: nn.Module) -> int:
        if type(module).__name__ in _RECOMPUTED:
            module.forward = _Recomputed(module.forward)
            return 1
        return sum(visit(child) for child in module.children())

    if not visit(network):
        raise ValueError(
            f'AutoencoderTraining.checkpointing: {type(network).__name__} has no block of the kinds '
            f'{", ".join(_RECOMPUTED)}; expected false.'
        )


class _Recomputed:
    """A module's forward pass under activation checkpointing; a class of its own, so that modules can be copied."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **options)
        return checkpoint(self.forward, *inputs, use_reentrant=False, **options)


def add_to_means(log: dict[str, Tensor], parts: Mapping[str, Tensor], share: float) -> None:
    """Add a micro-batch's values to the batch's means."""
    for name, value in parts.items():
        log[name] = log[name] + share * value.detach()


@OPTIM_WRAPPERS.register_module()
class StepOptimWrapper(OptimWrapper):
    """mmengine's wrapper without its clipping, which reads the norm from the device in every step.

    `Training.update` clips instead.
    """

    def _clip_grad(self) -> None:
        """Do nothing."""


def clip_limit(optimizer: OptimWrapper) -> float | None:
    """Return the maximum gradient norm of an optimizer's `clip_grad=dict(max_norm=…)`; None for no clipping.

    Raises:
        ValueError: If `clip_grad` has any other form.
    """
    options = optimizer.clip_grad_kwargs
    if options is None:
        return None
    if set(options) != {'max_norm'} or not options['max_norm'] > 0:
        raise ValueError(f'optim_wrapper.clip_grad: got {options}; expected dict(max_norm=NUMBER) above 0, or None.')
    return options['max_norm']
