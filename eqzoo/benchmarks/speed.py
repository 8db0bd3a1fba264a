"""Benchmark of every hot path: speed, memory, and the share of the machine's matrix-product peak."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from eqzoo.autoencoders import Autoencoder
from eqzoo.benchmarks.measure import peak_memory, timed
from eqzoo.config import Config
from eqzoo.data import Shapes
from eqzoo.data.latents.write import write_store
from eqzoo.data.loaders import collate
from eqzoo.engine import GeneratorTraining
from eqzoo.engine.runner import build_optimizers
from eqzoo.engine.training import compile_blocks
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance
from eqzoo.images import to_float
from eqzoo.randomness import SampleStreams, StepRandomness
from eqzoo.registry import build

_PEAK_SIDES = (1024, 2048, 4096)  # of square matrices; the fastest product is the peak
_PEAK_ROUNDS = 4  # of each side
_AUTOENCODER = dict(type='KLAutoencoder')  # SD-VAE's
_LOSSES = dict(
    objective=dict(
        type='ImplicitEquivariance',
        transform=dict(type='Compose', transforms=[dict(type='IsotropicScale'), dict(type='Rotate')]),
    ),
    reconstruction_loss=dict(
        type='ReconstructionLoss', pixel=dict(type='L1'), perceptual=dict(type='LPIPS', net='vgg', weights='random')
    ),
    penalties=[dict(type='KLDivergence', weight=1e-6)],
    adversarial_loss=dict(type='AdversarialLoss', discriminator=dict(type='PatchGAN', num_layers=3), weight=0.5),
)
_ADAM = dict(optimizer=dict(type='Adam', lr=1e-5, fused=True))


class Work(NamedTuple):
    """Work to measure.

    Args:
        name: Its name in the table.
        run: Does it once.
        images: Number of images, latents or samples in one run.
        precision: 'fp32' or 'bf16'; its speed is compared with the peak of this precision.
    """

    name: str
    run: Callable[[], object]
    images: int
    precision: str = 'fp32'


class Measurement(NamedTuple):
    """The cost of a piece of work.

    Args:
        name: Of the work.
        images_per_second: Of the fastest round.
        peak_memory: GiB, the device's, or of the whole process on a CPU.
        flops: Floating-point operations in a second: products and sums of matrix products,
            convolutions and attention, forward and backward.
        share: `flops` over the peak.
    """

    name: str
    images_per_second: float
    peak_memory: float
    flops: float
    share: float


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of the fastest square matrix product."""
    best = 0.0
    for side in _PEAK_SIDES if device.type == 'cuda' else _PEAK_SIDES[:2]:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        best = max(best, 2 * side**3 / _fastest(lambda left=left, right=right: left @ right, device, _PEAK_ROUNDS))
    return best


def measure(work: Work, device: torch.device, peak: float, *, rounds: int) -> Measurement:
    """Measure `work`: its memory in a first round, its operations in a second, then the fastest of `rounds`.

    Args:
        work: The work.
        device: The device that it runs on.
        peak: Of its precision, from `matmul_peak`.
        rounds: Number of timed rounds.
    """
    memory = peak_memory(work.run, device)
    with FlopCounterMode(display=False) as counter:
        work.run()
    fastest = _fastest(work.run, device, rounds)
    flops = counter.get_total_flops() / fastest
    return Measurement(work.name, work.images / fastest, memory, flops, flops / peak)


def _fastest(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    return min(timed(run, device)[0] for _ in range(rounds))


def hot_paths(
    *, size: int, batch_size: int, generator: str, precision: str, compiled: bool, device: torch.device
) -> Iterator[Work]:
    """Yield encoding, decoding, caching, an EQ step, a DiT's step, sampling, MaskGIT's sampling and a Fréchet distance.

    Args:
        size: Pixels a side, a multiple of 32.
        batch_size: Images at once.
        generator: Size of the DiT, with patch 2: 'S', 'B', 'L' or 'XL'.
        precision: 'fp32' or 'bf16' autocast of training steps and generators.
        compiled: Whether the blocks of training networks are compiled.
        device: Device to run on.
    """
    torch.manual_seed(0)
    autoencoder = build(_AUTOENCODER).to(device).eval()
    batch = collate([dict(Shapes(batch_size, size)[index], draw=index) for index in range(batch_size)])
    images = to_float(batch['images'].to(device))
    latents = autoencoder.encode(images).mean
    yield Work('encode', torch.no_grad()(lambda: autoencoder.encode(images).mean), batch_size)
    yield Work('decode', torch.no_grad()(lambda: autoencoder.decode(latents)), batch_size)
    yield _cache(autoencoder, batch_size, size)
    yield _eq_step(batch, precision, compiled, device)
    yield from _generator(generator, batch_size, latents.shape[1:], precision, compiled, device)
    yield _codes(batch_size, size // 16, precision, device)
    yield _frechet()


def _cache(autoencoder: Autoencoder, batch_size: int, size: int) -> Work:
    count = 8 * batch_size
    data = Shapes(count, size)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_store(autoencoder, data, folder, batch_size=batch_size)

    return Work('cache', run, count)


def _eq_step(batch: dict[str, Any], precision: str, compiled: bool, device: torch.device) -> Work:
    model = build(dict(type='AutoencoderTraining', autoencoder=_AUTOENCODER, precision=precision, **_LOSSES))
    model = model.to(device).train()
    if compiled:
        compile_blocks(model.blocks())
    config = Config(dict(optim_wrapper=dict(autoencoder=_ADAM, discriminator=_ADAM)))
    optimizers = build_optimizers(model, config)
    # one fixed draw, of an equivariant step
    draws = (StepRandomness(0, step) for step in range(100))
    chosen = next(each for each in draws if model.objective.sample(each.shared(), (32, 32)).branch == 'equivariance')
    return Work('eq-step', lambda: model.train_step(batch, optimizers, chosen), len(batch['images']), precision)


def _generator(
    size: str, batch_size: int, shape: torch.Size, precision: str, compiled: bool, device: torch.device
) -> Iterator[Work]:
    channels, side, _ = shape
    network = dict(type='DiffusionTransformer', size=size, patch_size=2, latent_channels=channels, latent_size=side)
    config = dict(type='DiT', network=network, process=dict(type='GaussianDiffusion'))
    tiny = build(dict(type='KLAutoencoder', block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4))
    model = GeneratorTraining(build(config), tiny, precision=precision).to(device).train()
    if compiled:
        compile_blocks(model.blocks())
    optimizer = dict(optimizer=dict(type='AdamW', lr=1e-4, fused=True))
    optimizers = build_optimizers(model, Config(dict(optim_wrapper=dict(generator=optimizer))))
    mean = torch.randn(batch_size, *shape)
    batch = dict(mean=mean, std=mean.abs() / 10, labels=torch.arange(batch_size) % 1000, draws=torch.arange(batch_size))
    randomness = StepRandomness(0, 0)
    yield Work('generator-step', lambda: model.train_step(batch, optimizers, randomness), batch_size, precision)
    sampler = build(dict(type='DDIM', steps=8, guidance=dict(type='ClassifierFree', scale=1.5)))

    def sample() -> None:
        model.eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16'):
            sampler(model.generator, batch['labels'].to(device), SampleStreams(0, batch['draws']))
        model.train()

    yield Work('sample, 8 steps', sample, batch_size, precision)


def _codes(batch_size: int, grid: int, precision: str, device: torch.device) -> Work:
    network = dict(type='MaskTransformer', size='base' if device.type == 'cuda' else (8, 384, 6), grid=grid)
    maskgit = build(dict(type='MaskGIT', network=network)).eval().to(device)
    sampler = build(dict(type='Confidence', steps=min(8, grid**2)))
    labels = torch.arange(batch_size, device=device) % 1000

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16'):
            sampler(maskgit, labels, SampleStreams(0, torch.arange(batch_size)))

    return Work('sample codes', run, batch_size, precision)


def _frechet() -> Work:
    count, width = 4096, 2048
    features = torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Work('frechet', lambda: frechet_distance(_moments(features), _moments(features + 0.1)), 2 * count)


def _moments(features: torch.Tensor) -> FeatureMoments:
    moments = FeatureMoments(features.shape[1])
    moments.add(features)
    return moments
