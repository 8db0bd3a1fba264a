"""Benchmarks of autoencoders: coding, and a step of EQ fine-tuning against the released way."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from eqzoo.autoencoders import Autoencoder
from eqzoo.benchmarks.measure import Cost, alternate, peak_memory, timed
from eqzoo.distributed import get_device
from eqzoo.engine.autoencoder_training import AutoencoderTraining
from eqzoo.images import to_float
from eqzoo.loading import autoencoder_config
from eqzoo.randomness import StepRandomness
from eqzoo.registry import build


@torch.no_grad()
def coding_costs(
    autoencoder: Autoencoder, reference: Autoencoder, images: Tensor, *, rounds: int
) -> dict[str, tuple[Cost, float]]:
    """Return the cost of `encode` and of `decode`, and the speed of each relative to the reference.

    Passes of the two autoencoders alternate, and the fastest of each counts.

    Args:
        autoencoder: In evaluation mode.
        reference: In evaluation mode.
        images: (B, 3, H, W), float in [-1, 1], on the autoencoders' device.
        rounds: Timed passes of each, after one that is not timed.
    """
    costs = {}
    for name in ('encode', 'decode'):
        work, other = (_coding(each, name, images) for each in (autoencoder, reference))
        memory = peak_memory(work, images.device)
        other()
        seconds = alternate({'ours': work, 'theirs': other}, rounds, images.device)
        ours, theirs = min(seconds['ours']), min(seconds['theirs'])
        costs[name] = Cost(len(images) / ours, memory), theirs / ours
    return costs


def _coding(autoencoder: Autoencoder, name: str, images: Tensor) -> Callable[[], Tensor]:
    if name == 'encode':
        return lambda: autoencoder.encode(images).mean
    latents = autoencoder.encode(images).mean
    return lambda: autoencoder.decode(latents)


def compare_eq_steps(
    model: AutoencoderTraining, optimizers: Mapping[str, Any], batch: dict[str, Any], *, rounds: int = 5
) -> dict[str, Cost]:
    """Time eqzoo's step and the released one on the same batch, alternating, after one warm-up each.

    Both see the same draws: where eqzoo's step i draws d(i), the released one draws d(i) for
    the autoencoder and d(i + 1) for the discriminator, cyclically.

    Args:
        model: In training mode.
        optimizers: As `build_optimizers` returns them.
        batch: Images and draws, as a loader gives them.
        rounds: Steps of each kind.
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
            elapsed, peak = timed(partial(peak_memory, partial(kinds[name], i), device), device)
            seconds[name] += elapsed
            memory[name] = max(memory[name], peak)
    images = rounds * len(batch['images'])
    return {name: Cost(images / seconds[name], memory[name]) for name in kinds}


def released_step(
    model: AutoencoderTraining,
    batch: dict[str, Any],
    optimizers: Mapping[str, Any],
    first: StepRandomness,
    second: StepRandomness,
) -> None:
    """Train as the released code does: each optimizer has its own forward pass and its own draw.

    The other network is frozen in each pass, as Lightning does, and the discriminator's pass
    computes the reconstruction loss too, as the released loss module does.
    """
    images, draws = to_float(batch['images'].to(model.autoencoder.last_layer.device)), batch['draws']
    size, adversarial = tuple(images.shape[-2:]), model.adversarial_loss
    adversarial.requires_grad_(False)
    step, drawn = model.latent_step(draws, first), model.draw(first, size)
    model.loss(step, model.objective(step, images, drawn.objective), drawn.penalties, adversarial)[0].backward()
    optimizers['autoencoder'].step()
    optimizers['autoencoder'].zero_grad()
    adversarial.requires_grad_(True)

    model.autoencoder.requires_grad_(False)
    (pair,) = model.objective(model.latent_step(draws, second), images, model.draw(second, size).objective)
    model.reconstruction_loss(pair.reconstruction, pair.target)
    adversarial.discriminator_loss(pair.reconstruction.detach(), pair.target)[0].backward()
    optimizers['discriminator'].step()
    optimizers['discriminator'].zero_grad()
    model.autoencoder.requires_grad_(True)


def random_autoencoder(file: str) -> Autoencoder:
    """Return the autoencoder of a config file with random weights, on the device of this process, in eval mode."""
    return build({**autoencoder_config(file), 'weights': None}).to(get_device()).eval()
