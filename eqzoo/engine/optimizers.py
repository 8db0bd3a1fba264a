"""Muon for convolutions and matrices, with AdamW for everything else: one optimizer.

And mmengine's wrappers of optimizers, which the package imports from here.
"""

import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from mmengine.registry import OPTIMIZERS
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from eqzoo.registry import argument_defaults
from eqzoo.registry.ranges import Decay, NonNegativeFloat, PositiveFloat, PositiveInt, Range, checks_arguments


@contextmanager
def _not_installed(*packages: str) -> Iterator[None]:
    """Let imports of packages fail, unless they have been imported before."""
    hidden = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


# mmengine imports whatever may have further optimizers; see `eqzoo.engine.rare_optimizers`
with _not_installed('bitsandbytes', 'transformers'):
    from mmengine.optim import OptimWrapper, OptimWrapperDict  # noqa: F401


def learning_rate(settings: Mapping[str, Any]) -> float | None:
    """Return the learning rate in an optimizer's config, or its class's default; None if there is neither."""
    return settings.get('lr', argument_defaults(settings['type']).get('lr'))


# of a quintic iteration towards singular values of 1 (https://kellerjordan.github.io/posts/muon/)
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
_EPSILON = 1e-7  # under the norm that the iteration starts with
_RMS = 0.2  # of AdamW's updates, which Muon's are scaled to (arXiv 2502.16982, Eq. 4)


@OPTIMIZERS.register_module()
class MuonAdamW(Optimizer):
    """Muon for weights that are matrices or kernels of convolutions, AdamW for the others.

    Muon makes the singular values of a matrix's momentum nearly equal before it steps along it. A kernel
    (out, in, h, w) is the matrix (out, in · h · w), as in Jordan's post. Its updates have AdamW's size, 0.2 a weight
    times the learning rate, so that one rate and weight decay, those of AdamW, suit both parts (Moonlight, arXiv
    2502.16982). On a matrix a step is that of `torch.optim.Muon(adjust_lr_fn='match_rms_adamw')`, which takes nothing
    but matrices.

    As in Jordan's post, AdamW updates biases, scales of norms, embeddings, and the layers at the ends of a network:
    kernels and matrices with fewer than `min_channels` inputs or outputs (images, latents and logits).

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate of both parts.
        momentum: Of Muon; with Nesterov's look ahead.
        ns_steps: Steps of the iteration that equalises singular values.
        betas: Of AdamW.
        eps: Of AdamW.
        weight_decay: Of both parts, decoupled.
        min_channels: Weights with fewer inputs or outputs are AdamW's.
        adamw_only: Matrices that are AdamW's as well; a run names its embeddings and codebooks here.
        fused: Whether AdamW's part is one kernel; see `torch.optim.AdamW`.

    Raises:
        ValueError: If an argument is out of range, or parameters are shared out over processes.
    """

    @checks_arguments
    def __init__(
        self,
        params: Iterable[Any],
        lr: PositiveFloat = 1e-4,
        *,
        momentum: Decay = 0.95,
        ns_steps: Annotated[int, Range(at_least=1, at_most=20)] = 5,
        betas: tuple[Decay, Decay] = (0.9, 0.99),
        eps: NonNegativeFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        min_channels: PositiveInt = 16,
        adamw_only: Collection[Tensor] = (),
        fused: bool | None = None,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, ns_steps=ns_steps, betas=betas, eps=eps)
        params = list(params)
        groups = params if params and isinstance(params[0], Mapping) else [{'params': params}]
        others = set(adamw_only)
        split = []
        for group in groups:
            parameters = list(group['params'])
            if any(hasattr(each, 'full_tensor') for each in parameters):
                raise ValueError('MuonAdamW needs whole matrices; set sharding=None, or take AdamW.')
            by_muon = [each not in others and is_hidden_matrix(each, min_channels) for each in parameters]
            for is_muon in (True, False):
                own = [each for each, flag in zip(parameters, by_muon, strict=True) if flag == is_muon]
                split += [{**group, 'params': own, 'is_muon': is_muon}] if own else []
        super().__init__(split, {**defaults, 'weight_decay': weight_decay, 'fused': fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient, and return the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [each for each in group['params'] if each.grad is not None]
            if not parameters:
                continue
            if group['is_muon']:
                for each in parameters:
                    self._muon(each, group)
            else:
                self._adamw(parameters, group)
        return loss

    def _muon(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if not state:
            state['momentum_buffer'] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        buffer = state['momentum_buffer']
        buffer.lerp_(gradient, 1 - group['momentum'])
        update = gradient.lerp(buffer, group['momentum'])
        update = equalize_singular_values(update.flatten(1), group['ns_steps'])
        rate = group['lr'] * _RMS * math.sqrt(max(update.shape))
        parameter.mul_(1 - group['lr'] * group['weight_decay'])
        parameter.add_(update.view_as(parameter), alpha=-rate)

    def _adamw(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        for each in parameters:
            state = self.state[each]
            if not state:
                place = each.device if group['fused'] else 'cpu'
                state['step'] = torch.zeros((), dtype=torch.float32, device=place)
                for name in ('exp_avg', 'exp_avg_sq'):
                    state[name] = torch.zeros_like(each, memory_format=torch.preserve_format)
        states = [self.state[each] for each in parameters]
        beta1, beta2 = group['betas']
        adamw(
            parameters,
            [each.grad for each in parameters],
            [each['exp_avg'] for each in states],
            [each['exp_avg_sq'] for each in states],
            [],
            [each['step'] for each in states],
            fused=group['fused'],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group['lr'],
            weight_decay=group['weight_decay'],
            eps=group['eps'],
            maximize=False,
        )


def is_hidden_matrix(weight: Tensor, min_channels: int) -> bool:
    """Return whether a weight is a matrix or kernel with at least `min_channels` inputs and outputs.

    Depthwise kernels, with one input channel a filter, are not.
    """
    return weight.ndim >= 2 and min(weight.shape[:2]) >= min_channels


def equalize_singular_values(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return a matrix with the singular vectors of `matrix` (A, B) and singular values of about 0.7 to 1.2.

    A quintic Newton-Schulz iteration in bfloat16, as in Jordan's post. The result is bfloat16.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=_EPSILON)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
