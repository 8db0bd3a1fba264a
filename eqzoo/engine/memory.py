"""Memory of a training step: the bytes of all tensors at its peak, by purpose, without computing anything.

The step runs on torch's fake tensors, which have shapes and storages but no elements, and every storage is counted from
its allocation to its release. Tensors of a real step on a CPU are counted by the same code, and are as many bytes.
"""

import copy
import inspect
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from eqzoo.engine.autoencoder_training import AutoencoderTraining
from eqzoo.engine.training import Training
from eqzoo.randomness import StepRandomness
from eqzoo.registry import OPTIMIZERS, component_of
from eqzoo.regularizers import LatentStep

_NUM_DRAWS = 64  # of an objective, for one that decodes images of full size

# Operations that torch's autocast computes in float32 on a GPU ("CUDA Ops that can autocast to float32" in torch's
# documentation), as far as a training may call them: with inputs in float32, or with the output alone. On a CPU it
# leaves most of them in bfloat16.
_FLOAT32_INPUTS = (
    *('group_norm', 'layer_norm', 'rms_norm', 'cosine_similarity', 'softplus'),
    *('cross_entropy_loss', 'nll_loss', 'mse_loss', 'l1_loss', 'smooth_l1_loss', 'binary_cross_entropy_with_logits'),
    *('pow.Tensor_Scalar', 'pow.Tensor_Tensor', 'pow.Scalar', 'reciprocal', 'rsqrt'),
    *('exp', 'expm1', 'log', 'log1p', 'log2'),
)
_FLOAT32_OUTPUT = (
    *('softmax.int', 'log_softmax.int', 'sum', 'sum.dim_IntList', 'prod', 'cumsum', 'cumprod', 'linalg_vector_norm'),
)


class StepMemory(NamedTuple):
    """The bytes of a training step.

    Args:
        peak: Of all tensors, when there are most.
        parts: Bytes at that moment: 'weights', 'frozen networks', 'average', 'optimizer', 'gradients'; 'encoder',
            'decoder', 'perceptual', 'discriminator' and 'generator' for what their forward passes have made;
            'backward pass' for what it makes, recomputed activations included; and 'other'.
    """

    peak: int
    parts: dict[str, int]


class LiveTensors(TorchDispatchMode):
    """Count the bytes of all tensors that operations make in this context, as long as they live.

    Example:
        >>> with LiveTensors() as live:
        ...     x = torch.zeros(1024)
        ...     y = (x + 1).sum()
        >>> live.now, live.peak
        (4100, 8196)
    """

    def __init__(self) -> None:
        super().__init__()
        self.part = 'other'
        self.parts: Counter[str] = Counter()
        self.peak = 0
        self.parts_at_peak: dict[str, int] = {}
        self._known: dict[int, str] = {}

    @property
    def now(self) -> int:
        """Bytes that are alive."""
        return self.parts.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, Tensor):
                self.add(each)
        return out

    def add(self, tensor: Tensor, part: str | None = None) -> None:
        """Count a tensor, or move one that is counted to another part."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known[key] = part or self.part
            weakref.finalize(storage, self._free, key, size).atexit = False
            self._change(self._known[key], size)
        elif part is not None:
            self.parts[self._known[key]] -= size
            self._known[key] = part
            self.parts[part] += size

    def reserve(self, part: str, size: int) -> None:
        """Count `size` bytes of tensors that are not made here."""
        self._change(part, size)

    @contextmanager
    def making(self, part: str) -> Iterator[None]:
        """Count what is made in this context as of `part`."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def _change(self, part: str, size: int) -> None:
        self.parts[part] += size
        if self.now > self.peak:
            self.peak, self.parts_at_peak = self.now, dict(self.parts)

    def _free(self, key: int, size: int) -> None:
        self.parts[self._known.pop(key)] -= size


def step_memory(
    model: Training,
    config: Mapping[str, Any],
    image_size: tuple[int, int] | None = None,
    batch_size: int = 1,
    *,
    step: Callable[[Training, dict[str, Any], Mapping[str, Any], StepRandomness], object] | None = None,
    is_real: bool = False,
    as_on_gpu: bool = True,
) -> StepMemory:
    """Return the memory of one training step, without the buffers and kernels of libraries.

    A step of an autoencoder is one in which the objective decodes most pixels. The update itself is left out: fused
    optimizers need nothing but their states. Without a GPU at hand, autocast's rules for one are applied.

    Args:
        model: The training, on any device; it is copied.
        config: Its config, for optimizers and hooks.
        image_size: (H, W) of the images of an autoencoder.
        batch_size: Samples of this process.
        step: (model, batch, optimizers, randomness) → one step; default: the model's own.
        is_real: Whether to compute with real tensors, on the CPU, for comparison.
        as_on_gpu: Whether autocast has a GPU's rules.

    Raises:
        RuntimeError: If a part reads values of tensors, which fake ones do not have.
    """
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

    fake = None if is_real else FakeTensorMode(allow_non_fake_inputs=True)
    drawn = _largest_draw(model, image_size) if isinstance(model, AutoencoderTraining) else None
    live = LiveTensors()
    live.reserve('optimizer', optimizer_bytes(model.parameter_groups(), config))
    live.reserve('average', _average_bytes(model, config))
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        if fake is not None:
            stack.enter_context(fake)
        memo: dict[int, Any] = {}  # after the copy it has all tensors, those outside of modules too
        with FakeCopyMode(fake) if fake is not None else nullcontext():
            model = copy.deepcopy(model, memo).train()
        stack.enter_context(live)
        for each in memo.values():
            if isinstance(each, Tensor):
                live.add(each, 'frozen networks')
        groups = model.parameter_groups()
        for subject in (getattr(model, name) for name in model.subjects):
            for tensor in subject.state_dict(keep_vars=True).values():
                live.add(tensor, 'weights')
        for parameter in (each for group in groups.values() for each in group):
            live.add(parameter, 'weights')
            parameter.register_post_accumulate_grad_hook(lambda each: live.add(each.grad, 'gradients'))
        _label_parts(model, live)
        model.on_nonfinite = 'stop'
        model.update = _forget_gradients
        model.backward = lambda loss, optimizer, is_last: _backward(loss, live)
        if drawn is not None:
            model.draw = lambda randomness, size: drawn
        batch = _batch(model, image_size, batch_size)
        optimizers = {name: _Gradients(group) for name, group in groups.items()}
        if as_on_gpu:
            stack.enter_context(autocast_of_gpu())
        (step or _own_step)(model, batch, optimizers, _Undrawn(0, _step_with_all(model)))
    return StepMemory(live.peak, {name: size for name, size in live.parts_at_peak.items() if size})


def optimizer_bytes(groups: Mapping[str, Iterable[nn.Parameter]], config: Mapping[str, Any]) -> int:
    """Return the bytes of the optimizers' states, after their first step.

    Args:
        groups: The parameters, by optimizer.
        config: A config whose `optim_wrapper` has the optimizers.
    """
    total = 0
    for name, group in groups.items():
        settings = {**config['optim_wrapper'][name]['optimizer'], 'fused': False}
        shapes = [nn.Parameter(torch.empty(each.shape, dtype=each.dtype, device='meta')) for each in group]
        total += _state_bytes(settings, shapes)
    return total


def _state_bytes(settings: dict[str, Any], shapes: list[nn.Parameter]) -> int:
    kind = settings['type']
    optimizer_class = component_of(OPTIMIZERS, kind) if isinstance(kind, str) else kind
    if optimizer_class.__module__.startswith('bitsandbytes'):
        return _state_bytes_of_bitsandbytes(optimizer_class.__name__, shapes)
    if 'fused' not in inspect.signature(optimizer_class).parameters:
        settings.pop('fused')
    optimizer = OPTIMIZERS.build(dict(params=shapes, **settings))
    for each in shapes:
        each.grad = torch.empty_like(each)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return sum(each.nbytes for each in states if isinstance(each, Tensor))


def _state_bytes_of_bitsandbytes(name: str, shapes: Iterable[Tensor]) -> int:
    """Return what its documentation says, since its kernels take no tensors without elements.

    A state has a byte for a weight, and four for each block of 256; tensors below 4,096 elements have states in
    float32.
    """
    states = 1 if any(each in name for each in ('Lion', 'SGD', 'LARS', 'RMSprop', 'Adagrad')) else 2
    is_8bit = name.endswith('8bit')
    return states * sum(
        each.numel() + 4 * math.ceil(each.numel() / 256) if is_8bit and each.numel() >= 4096 else 4 * each.numel()
        for each in shapes
    )


def _average_bytes(model: Training, config: Mapping[str, Any]) -> int:
    hooks = config.get('custom_hooks', {}).values()
    if not any(getattr(each['type'], '__name__', each['type']) == 'EMAHook' for each in hooks):
        return 0
    return sum(value.nbytes for name in model.subjects for value in getattr(model, name).state_dict().values())


def _largest_draw(model: AutoencoderTraining, image_size: tuple[int, int]) -> Any:
    """Return, of the draws of the first steps, the one for which most pixels are encoded and decoded."""

    def pixels(draw: Any) -> int:
        shapes = _Shapes(model.autoencoder)
        step = LatentStep(shapes, torch.zeros_like)
        model.objective(step, torch.empty(1, 3, *image_size, device='meta'), draw.objective)
        return shapes.pixels

    return max((model.draw(StepRandomness(0, number), image_size) for number in range(_NUM_DRAWS)), key=pixels)


class _Shapes:
    """An autoencoder that makes tensors of the right shapes, and counts the pixels that it was to encode and decode."""

    def __init__(self, autoencoder: Any) -> None:
        self._autoencoder, self.pixels = autoencoder, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._autoencoder, name)

    def encode(self, images: Tensor) -> Any:
        self.pixels += images[:, 0].numel()
        grid = self._autoencoder.grid(*images.shape[-2:])
        return SimpleNamespace(mean=images.new_empty(len(images), self._autoencoder.latent_channels, *grid), std=None)

    def bottleneck(self, latents: Tensor) -> Any:
        return SimpleNamespace(latents=latents, penalties={})

    def decode_latents(self, latents: Tensor) -> Tensor:
        factor = self._autoencoder.downsample_factor
        images = latents.new_empty(len(latents), 3, *(factor * side for side in latents.shape[-2:]))
        self.pixels += images[:, 0].numel()
        return images


def _step_with_all(model: Training) -> int:
    """Return a step in which the discriminator is trained, and its lazy penalties are computed."""
    adversarial = getattr(model, 'adversarial_loss', None)
    if adversarial is None:
        return 0
    period = math.lcm(*(getattr(each, 'every', 1) for each in adversarial.penalties))
    return math.ceil(adversarial.start_step / period) * period


def _label_parts(model: Training, live: LiveTensors) -> None:
    """Count what forward passes make by the part of the model that makes it."""
    if hasattr(model, 'reconstruction_loss'):
        autoencoder = model.autoencoder
        autoencoder.encode = _labelled(autoencoder.encode, live, 'encoder')
        autoencoder.decode_latents = _labelled(autoencoder.decode_latents, live, 'decoder')
        _label_module(model.reconstruction_loss, live, 'perceptual')
        if model.adversarial_loss is not None:
            _label_module(model.adversarial_loss.discriminator, live, 'discriminator')
    if hasattr(model, 'generator'):
        _label_module(model.generator.network, live, 'generator')


def _labelled(function: Callable[..., Any], live: LiveTensors, part: str) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        with live.making(part):
            return function(*args, **options)

    return call


def _label_module(module: nn.Module, live: LiveTensors, part: str) -> None:
    before: list[str] = []

    def begin(*_: Any) -> None:
        before.append(live.part)
        live.part = part

    def end(*_: Any) -> None:
        live.part = before.pop()

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end, always_call=True)


def _backward(loss: Tensor, live: LiveTensors) -> None:
    with live.making('backward pass'):
        loss.backward()


def _forget_gradients(optimizer: '_Gradients') -> dict[str, Tensor]:
    optimizer.zero_grad()
    return {}


def _own_step(
    model: Training, batch: dict[str, Any], optimizers: Mapping[str, Any], randomness: StepRandomness
) -> object:
    return model.train_step(batch, optimizers, randomness)


class _Gradients:
    """An optimizer that changes no weights."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)

    def step(self) -> None:
        """Do nothing."""

    def zero_grad(self) -> None:
        """Release the gradients."""
        for each in self.parameters:
            each.grad = None


def _batch(model: Training, image_size: tuple[int, int] | None, batch_size: int) -> dict[str, Any]:
    """Return a batch of zeros as the model's data would have it."""
    draws = labels = torch.zeros(batch_size, dtype=torch.long)
    if isinstance(model, AutoencoderTraining):
        images = torch.zeros(batch_size, 3, *image_size, dtype=torch.uint8)
        return dict(images=images, draws=draws, labels=labels, indices=list(range(batch_size)))
    generator, network = model.generator, model.generator.network
    shape = (batch_size, *generator.latent_shape)
    if generator.learns == 'codes':
        return dict(codes=torch.zeros(shape, dtype=torch.long), draws=draws, labels=labels)
    batch = dict(mean=torch.zeros(shape), std=torch.zeros(shape), draws=draws, labels=labels)
    if getattr(generator, 'encoder', None) is not None:
        side = network.latent_shape[-1] * model._outside[0].downsample_factor
        batch['images'] = torch.zeros(batch_size, 3, side, side, dtype=torch.uint8)
    elif hasattr(network, 'feature_dims'):
        batch['features'] = torch.zeros(batch_size, network.grid**2, *network.feature_dims)
    return batch


class _Undrawn(StepRandomness):
    """Streams of zeros, of the shapes that are drawn."""

    def noise(self, draws: Tensor) -> Callable[[Tensor], Tensor]:
        return torch.zeros_like

    def streams(self, draws: Tensor) -> '_Zeros':
        return _Zeros(len(draws))

    corruption = augmentation = streams


class _Zeros:
    def __init__(self, count: int) -> None:
        self.count = count

    def __getitem__(self, part: slice) -> '_Zeros':
        return _Zeros(len(range(self.count)[part]))

    def normal(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

    def uniform(self, *shape: int, device: torch.device | str = 'cpu') -> Tensor:
        return torch.zeros(self.count, *shape, device=device)

    def for_modules(self, device: torch.device) -> AbstractContextManager:
        return nullcontext()


@contextmanager
def autocast_of_gpu() -> Iterator[None]:
    """Give autocast on a CPU the rules of a GPU's: norms, powers, exponentials and sums in float32."""
    library = torch.library.Library('aten', 'IMPL')
    for names, in_float32 in ((_FLOAT32_INPUTS, _with_inputs), (_FLOAT32_OUTPUT, _with_output)):
        for name in names:
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f'aten::{name}', 'AutocastCPU'):
                packet, _, overload = name.partition('.')
                operation = getattr(getattr(torch.ops.aten, packet), overload or 'default')
                library.impl(name, partial(in_float32, operation), 'AutocastCPU')
    try:
        yield
    finally:
        library._destroy()


def _with_inputs(operation: Any, *args: Any, **options: Any) -> Any:
    args, options = tree_map(_to_float32, (args, options))
    with torch.autocast('cpu', enabled=False):
        return operation(*args, **options)


def _with_output(operation: Any, *args: Any, **options: Any) -> Any:
    if args[0].dtype == torch.bfloat16 and options.get('dtype') is None:
        options = {**options, 'dtype': torch.float32}
    with torch.autocast('cpu', enabled=False):
        return operation(*args, **options)


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value
