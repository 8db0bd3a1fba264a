"""One training step of EQ-VAE: one shared forward against the released two."""

import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict

from eqzoo.benchmarks.cost import Cost
from eqzoo.benchmarks.memory import peak_memory
from eqzoo.engine.autoencoder_training import AutoencoderTraining, to_float
from eqzoo.randomness import StepRandomness


def compare_steps(
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
