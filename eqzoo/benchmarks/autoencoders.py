"""Autoencoders: coding, and a step of EQ fine-tuning against the released way."""

import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from eqzoo.autoencoders import Autoencoder
from eqzoo.benchmarks.measure import Cost, peak_memory
from eqzoo.engine.autoencoder_training import AutoencoderTraining
from eqzoo.images import to_float
from eqzoo.randomness import StepRandomness


@torch.no_grad()
def coding_costs(
    autoencoder: Autoencoder, reference: Autoencoder, images: Tensor, *, rounds: int
) -> dict[str, tuple[Cost, float]]:
    """Return the cost of `encode` and of `decode`, and how many times as fast as the reference each is.

    Passes of the two alternate and the fastest of each counts: whatever else the machine does
    holds up both alike.

    Args:
        autoencoder: In evaluation mode.
        reference: Likewise.
        images: (B, 3, H, W), float in [-1, 1], on the autoencoders' device.
        rounds: Timed passes of each, after one that is not.
    """
    costs = {}
    for name in ('encode', 'decode'):
        work, other = (_work(each, name, images) for each in (autoencoder, reference))
        memory = peak_memory(work, images.device)
        other()
        pairs = [(_seconds(work, images.device), _seconds(other, images.device)) for _ in range(rounds)]
        ours, theirs = (min(seconds) for seconds in zip(*pairs, strict=True))
        costs[name] = Cost(len(images) / ours, memory), theirs / ours
    return costs


def _work(autoencoder: Autoencoder, name: str, images: Tensor) -> Callable[[], Tensor]:
    if name == 'encode':
        return lambda: autoencoder.encode(images).mean
    latents = autoencoder.encode(images).mean
    return lambda: autoencoder.decode(latents)


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    _synchronize(device)
    started = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def compare_eq_steps(
    model: AutoencoderTraining, optimizers: OptimWrapperDict, batch: dict[str, Any], *, rounds: int = 5
) -> dict[str, Cost]:
    """Time eqzoo's step and the released one on the same batch, alternating, after one warm-up each.

    Both see the same draws: where eqzoo's step i draws d(i), the released one draws d(i) for
    the autoencoder and d(i + 1) for the discriminator, cyclically.
    """
    draws = [StepRandomness(0, step) for step in range(rounds)]
    kinds: dict[str, Callable[[int], object]] = {
        'eqzoo': lambda i: model.train_step(batch, optimizers, draws[i]),
        'released': lambda i: released_step(model, batch, optimizers, draws[i], draws[(i + 1) % rounds]),
    }
    device = model.autoencoder.last_layer.device
    seconds, memory = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, 0.0)
    for step in kinds.values():
        step(0)
    for i in range(rounds):
        for name in list(kinds) if i % 2 == 0 else reversed(kinds):
            started = time.perf_counter()
            memory[name] = max(memory[name], peak_memory(lambda i=i, name=name: kinds[name](i), device))
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
            seconds[name] += time.perf_counter() - started
    images = rounds * len(batch['images'])
    return {name: Cost(images / seconds[name], memory[name]) for name in kinds}


def released_step(
    model: AutoencoderTraining,
    batch: dict[str, Any],
    optimizers: OptimWrapperDict,
    first: StepRandomness,
    second: StepRandomness,
) -> None:
    """Train as the released code does: each optimizer gets a forward and a draw of its own.

    The other network is frozen in each pass, as Lightning does, and the discriminator's pass
    computes the reconstruction loss too, as the released loss module does.
    """
    images, draws = to_float(batch['images'].to(model.autoencoder.last_layer.device)), batch['draws']
    grid, adversarial = model.autoencoder.grid(*images.shape[-2:]), model.adversarial_loss
    adversarial.requires_grad_(False)
    pair = model.objective(model.autoencoder, images, model.objective.sample(first.shared(), grid), first.noise(draws))
    loss, _ = model.reconstruction_loss(pair.reconstruction, pair.target)
    weighted, _ = adversarial.generator_loss(pair.reconstruction, loss, model.autoencoder.last_layer)
    divergence = model.kl_loss(pair.posterior) if model.kl_loss is not None else 0
    (loss + sum(pair.penalties.values()) + divergence + weighted).backward()
    optimizers['autoencoder'].step()
    optimizers['autoencoder'].zero_grad()
    adversarial.requires_grad_(True)

    model.autoencoder.requires_grad_(False)
    pair = model.objective(
        model.autoencoder, images, model.objective.sample(second.shared(), grid), second.noise(draws)
    )
    model.reconstruction_loss(pair.reconstruction, pair.target)
    adversarial.discriminator_loss(pair.reconstruction.detach(), pair.target)[0].backward()
    optimizers['discriminator'].step()
    optimizers['discriminator'].zero_grad()
    model.autoencoder.requires_grad_(True)
