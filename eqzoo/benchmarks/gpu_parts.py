"""The parts of the GPU benchmark: matrix products, coding, training steps, sampling, caching, FID.

Weights are random, of the released networks' shapes: speed does not depend on their values. Each part builds what it
measures and drops it again.
"""

import io
import os
import shutil
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from eqzoo.autoencoders import Autoencoder
from eqzoo.benchmarks.autoencoders import released_step
from eqzoo.benchmarks.gpu import Part
from eqzoo.benchmarks.measure import peak_memory
from eqzoo.benchmarks.measurements import Row
from eqzoo.config import Config
from eqzoo.data import ImageFolder, Shapes, build_eval_loader
from eqzoo.data.latents.write import write_store
from eqzoo.data.loaders import collate, split_key
from eqzoo.engine import GeneratorTraining
from eqzoo.engine.evaluation import evaluate, sample_view
from eqzoo.engine.references import make_reference
from eqzoo.engine.runner import build_optimizers
from eqzoo.engine.training import compile_blocks
from eqzoo.evaluators.generation import GenerationMetric
from eqzoo.images import to_float
from eqzoo.precision import tf32
from eqzoo.randomness import SampleStreams, StepRandomness
from eqzoo.registry import build

_DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16, 'tf32': torch.float32, 'fp32': torch.float32}
_SIZE_OF_PUBLISHED = 50_000  # samples of published FIDs
_HALF = (0.5, 0.5)  # the scale of the EQ step that is measured


@dataclass(frozen=True)
class Sizes:
    """Sizes of the networks and batches that are measured; the defaults are for a GPU.

    Args:
        matrices: Sides of square matrices; the fastest product is the peak.
        autoencoder: Arguments of the `KLAutoencoder`, SD-VAE's and SDXL-VAE's by default, which differ by their scale.
        images: Sides of the images that are encoded and decoded, each with its batch.
        eq: Side and batch of the EQ step; 10 is the batch of the released recipe on each GPU.
        perceptual: Config of the perceptual loss of the EQ step; None for none.
        generator: Size of the transformers, and the side of their latents.
        step_batch: Latents in a training step.
        sample_batch: Samples at once.
        sampling_steps: Of the SDE, and of Euler's method.
        files: Distinct JPEG files, copies of each, and their side in pixels; they are cropped to 256 or `eq`'s side.
        caching: Batch, and images that are encoded one by one.
        extractor: Config of the network of the FID.
        fid_batch: Images at once in it.
        workers: Processes of loaders.
        rounds: Timed runs of each; their median counts.
        warm_up: Runs before them.
    """

    matrices: Sequence[int] = (4096, 8192, 16384)
    autoencoder: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[int, int] = field(default_factory=lambda: {256: 32, 512: 8})
    eq: tuple[int, int] = (256, 10)
    perceptual: Mapping[str, Any] | None = field(default_factory=lambda: dict(type='LPIPS', weights='random'))
    generator: tuple[Any, int] = ('XL', 32)
    step_batch: int = 64
    sample_batch: int = 16
    sampling_steps: tuple[int, int] = (250, 50)
    files: tuple[int, int, int] = (128, 32, 384)
    caching: tuple[int, int] = (64, 128)
    extractor: Mapping[str, Any] = field(default_factory=lambda: dict(type='FIDInception', weights='random'))
    fid_batch: int = 128
    workers: int = field(default_factory=lambda: min(16, len(os.sched_getaffinity(0))))
    rounds: int = 7
    warm_up: int = 3


TINY = Sizes(
    matrices=(128, 256),
    autoencoder=dict(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4),
    images={32: 2, 64: 1},
    eq=(32, 2),
    perceptual=None,  # minutes in bf16 on a CPU
    generator=((2, 32, 2), 4),
    step_batch=4,
    sample_batch=2,
    sampling_steps=(3, 2),
    files=(4, 2, 48),
    caching=(4, 2),
    extractor=dict(type='EfficientNetLite0', weights='random'),
    fid_batch=4,
    workers=0,
    rounds=2,
    warm_up=1,
)


def gpu_parts(sizes: Sizes, device: torch.device) -> list[Part]:
    """Return all parts, the most important first.

    Args:
        sizes: Sizes of the networks and batches.
        device: Where; on a CPU everything runs as well.
    """
    bench = GPUBench(sizes, device)
    first, second = sizes.images
    coding = [bench.coding(size, how, name) for size in (first, second) for how in _PLAIN for name in _CODING]
    compiled = [bench.coding(size, how, name) for size in (first, second) for how in _COMPILED for name in _CODING]
    return [
        *(Part(f'matmul {precision}', 6, partial(bench.matmul, precision)) for precision in _DTYPES),
        *coding,
        *(bench.eq_step('sd', how) for how in ('released', 'torch', 'fp32', 'bf16', 'bf16 channels-last')),
        *(bench.eq_step('sd', how) for how in ('bf16 compile', 'bf16 compile channels-last')),
        *(bench.generator_step('DiT', how) for how in ('bf16', 'bf16 compile')),
        *bench.sampling('SDE', sizes.sampling_steps[0], None),
        *bench.sampling('Euler', sizes.sampling_steps[1], dict(type='ClassifierFree', scale=1.5)),
        *(bench.caching(what) for what in ('files, batch 1', 'files', 'memory')),
        *(bench.fid(what) for what in ('network', 'files')),
        *(bench.generator_step(name, how) for name in ('SiT', 'REPA') for how in ('bf16 compile', 'bf16')),
        bench.generator_step('REPA with DINOv2-B', 'bf16'),
        *(bench.eq_step('sdxl', how) for how in ('released', 'bf16', 'bf16 compile channels-last')),
        *compiled,
    ]


_CODING = ('encode', 'decode')
_PLAIN = ('fp32', 'tf32', 'bf16', 'bf16 channels-last')
_COMPILED = ('bf16 compile', 'bf16 compile channels-last')


class GPUBench:
    """Makes the parts; it keeps what several need, which is small: counts of operations, a folder of images.

    Ways ('bf16 compile channels-last') are words: a precision ('fp32', without TF32; 'tf32'; 'bf16', autocast; 'torch',
    which is torch's default, TF32 in convolutions alone), and whether blocks are compiled and weights are channels
    last.

    Args:
        sizes: See `Sizes`.
        device: Where it runs.
    """

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.operations: dict[str, int] = {}
        self._folder: str | None = None

    def matmul(self, precision: str, rows: Mapping[str, Row]) -> Row:
        """Measure the fastest square matrix product."""
        found = {}
        with tf32(precision == 'tf32'):
            for side in self.sizes.matrices:
                left, right = (torch.randn(side, side, device=self.device).to(_DTYPES[precision]) for _ in range(2))
                run = partial(torch.matmul, left, right)
                for _ in range(self.sizes.warm_up):
                    run()
                seconds = statistics.median(run_times(run, self.device, 3 * self.sizes.rounds))
                found[2 * side**3 / seconds] = side, seconds
        flops = max(found)
        side, seconds = found[flops]
        return Row(f'matmul {precision}', {}, dict(median_s=seconds, flops=flops, side=side))

    def coding(self, size: int, how: str, name: str) -> Part:
        """Return the part of encoding or decoding images of `size` pixels."""
        batch = self.sizes.images[size]

        def measure(rows: Mapping[str, Row]) -> Row:
            autoencoder = self._autoencoder('sd', how).eval()
            if 'compile' in how:
                compile_blocks(autoencoder.blocks())
            images = torch.rand(batch, 3, size, size, device=self.device) * 2 - 1
            latents = torch.randn(batch, autoencoder.latent_channels, *autoencoder.grid(size, size), device=self.device)
            inputs = images if name == 'encode' else latents

            @torch.no_grad()
            def run(inputs: Tensor = inputs) -> None:
                with self._arithmetic(how):
                    _ = autoencoder.encode(inputs).mean if name == 'encode' else autoencoder.decode(inputs)

            operations = self._count(f'{name} {size}', how, partial(run, inputs[:1]), batch)
            return self._row(f'{name} {size} {how}', run, how, rows, images=batch, operations=operations)

        return Part(f'{name} {size} {how}', 45 if 'compile' in how else 4, measure)

    def eq_step(self, name: str, how: str) -> Part:
        """Return the part of a step of EQ fine-tuning, or with 'released' of the released code's.

        A fixed draw of the equivariance branch that scales by 1/2 and turns. The released step runs the autoencoder
        once for each optimizer, in float32 as torch comes.
        """
        size, batch_size = self.sizes.eq

        def measure(rows: Mapping[str, Row]) -> Row:
            model, optimizers = self._eq_training(name, how)
            items = [dict(Shapes(batch_size, size)[index], draw=index) for index in range(batch_size)]
            batch, one = _pinned(collate(items), self.device), _pinned(collate(items[:1]), self.device)
            draw = half_scale_draw(model, size)
            released = how == 'released'

            def run(batch: Mapping[str, Any] = batch) -> None:
                with self._arithmetic(how, autocast=False):  # the training has its own
                    if released:
                        released_step(model, batch, optimizers, draw, draw)
                    else:
                        model.train_step(batch, optimizers, draw)

            key = 'eq-step released' if released else 'eq-step'
            operations = self._count(key, how, partial(run, one), batch_size)
            if 'compile' in how:
                compile_blocks(model.blocks())
            against = {} if released else {'released': rows.get(f'eq-step {name} released')}
            options = dict(images=batch_size, operations=operations, against=against)
            return self._row(f'eq-step {name} {how}', run, how, rows, **options)

        return Part(f'eq-step {name} {how}', 100 if 'compile' in how else 12, measure)

    def generator_step(self, name: str, how: str) -> Part:
        """Return the part of a training step of DiT, SiT or REPA, patch 2.

        REPA's features come with the batch, or are computed from its images by DINOv2-B, in float32 as features are.
        """
        batch_size = self.sizes.step_batch
        size, _ = self.sizes.generator
        title = f'step {name}-{size}/2 {how}' if isinstance(size, str) else f'step {name}-tiny/2 {how}'

        def measure(rows: Mapping[str, Row]) -> Row:
            model, batch = self._generator_training(name, how, batch_size)
            wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.0, fused=True))
            optimizers = build_optimizers(model, Config(dict(optim_wrapper=dict(generator=wrapper))))
            randomness = StepRandomness(0, 0)
            operations = step_operations(model.generator.network) * batch_size
            encoder = getattr(model.generator, 'encoder', None)
            if encoder is not None:
                encode = partial(encoder, batch['images'][:1].to(self.device))
                operations += self._count('encoder', how, encode, batch_size)
            if 'compile' in how:
                compile_blocks(model.blocks())
            run = partial(model.train_step, batch, optimizers, randomness)
            return self._row(title, run, how, rows, images=batch_size, operations=operations)

        return Part(title, 60 if 'compile' in how else 15, measure)

    def sampling(self, method: str, steps: int, guidance: Mapping[str, Any] | None) -> Iterator[Part]:
        """Yield the part of sampling latents of SiT, in bf16."""
        batch_size, title = self.sizes.sample_batch, f'sample {method} {steps} steps'
        title += ', guided' if guidance else ''
        kinds = {'SDE': dict(type='SDE'), 'Euler': dict(type='ODE', method='euler')}

        def measure(rows: Mapping[str, Row]) -> Row:
            model, batch = self._generator_training('SiT', 'bf16', batch_size)
            generator = model.generator.eval()
            labels = batch['labels'].to(self.device)

            def run(steps: int = steps) -> None:
                sampler = build(dict(kinds[method], steps=steps, guidance=None if guidance is None else dict(guidance)))
                with self._arithmetic('bf16'):
                    sampler(generator, labels, SampleStreams(0, batch['draws']))

            run(2)
            operations = forward_operations(generator.network) * batch_size * steps * (2 if guidance else 1)
            options = dict(images=batch_size, operations=operations, warm_up=0, rounds=min(2, self.sizes.rounds))
            return self._row(title, run, 'bf16', rows, **options)

        yield Part(title, 45, measure)

    def caching(self, what: str) -> Part:
        """Return the part of writing a latent store: of JPEG files in batches or one by one, or of decoded images."""
        title = f'cache, {what}'

        def measure(rows: Mapping[str, Row]) -> Row:
            batch, few = self.sizes.caching
            single = 'batch 1' in what
            folder = ImageFolder(self._files(), self.sizes.eq[0], limit=few if single else None)
            data = _Decoded(folder, limit=self.sizes.files[0]) if what == 'memory' else folder
            # what is compared with is the usual script: float32 as torch comes, one image at a time
            how = 'torch' if single else 'bf16'
            autoencoder = self._autoencoder('sd', how).eval()
            image = to_float(folder[0]['image'][None].to(self.device))
            operations = self._count('cache', how, torch.no_grad()(partial(autoencoder.encode, image)), len(data))
            reading = dict(
                batch_size=1 if single else batch,
                num_workers=0 if what == 'memory' else self.sizes.workers,
                precision='bf16' if how == 'bf16' else 'fp32',
            )

            def run() -> None:
                with tempfile.TemporaryDirectory() as out, self._arithmetic(how, autocast=False):
                    write_store(autoencoder, data, out, **reading)

            against = {} if single else {'batch 1': rows.get('cache, files, batch 1')}
            options = dict(images=len(data), operations=operations, against=against, warm_up=1)
            return self._row(title, run, how, rows, **options, rounds=min(2, self.sizes.rounds))

        return Part(title, 40, measure)

    def fid(self, what: str) -> Part:
        """Return the part of the network of the FID alone, on images on the device, or of a whole FID of JPEG files."""
        title = f'fid, {what}'

        def measure(rows: Mapping[str, Row]) -> Row:
            extractor = build(dict(self.sizes.extractor))
            folder = ImageFolder(self._files(), self.sizes.eq[0])
            images = torch.stack([folder[number]['image'] for number in range(self.sizes.fid_batch)]).to(self.device)
            count = self.sizes.fid_batch
            if what == 'network':
                operations = self._count('fid', 'fp32', partial(extractor, images[:1]), count)
                run = partial(extractor, images)
                return self._row(title, run, 'fp32', rows, images=count, operations=operations)
            with tempfile.TemporaryDirectory() as place:
                reference = Path(place) / 'reference.npz'
                few = ImageFolder(self._files(), self.sizes.eq[0], limit=count)
                with redirect_stdout(io.StringIO()):  # progress bars
                    make_reference(few, extractor, reference, num_stored=0, loading=(count, 0))

                def run() -> None:
                    metric = GenerationMetric(extractor, str(reference), ['fd'], min_images=2)
                    loader = build_eval_loader(folder, batch_size=count, num_workers=self.sizes.workers)
                    with redirect_stdout(io.StringIO()):
                        evaluate([metric], loader, sample_view)

                operations = self._count('fid', 'fp32', partial(extractor, images[:1]), len(folder))
                against = {'network': rows.get('fid, network')}
                options = dict(images=len(folder), operations=operations, against=against, warm_up=1)
                row = self._row(title, run, 'fp32', rows, **options, rounds=min(2, self.sizes.rounds))
            projected = _SIZE_OF_PUBLISHED / row.values['images_per_s']
            return row._replace(values={**row.values, 'seconds_of_50000': projected})

        return Part(title, 30, measure)

    def _row(
        self,
        name: str,
        run: Callable[[], object],
        how: str,
        rows: Mapping[str, Row],
        *,
        images: int,
        operations: int,
        against: Mapping[str, Row | None] | None = None,
        warm_up: int | None = None,
        rounds: int | None = None,
    ) -> Row:
        """Measure `run`: once for the time of its first run, then for memory, then for seconds.

        Args:
            name: Of the row.
            run: The work.
            how: The way, for the peak that it is compared with.
            rows: Earlier rows, with the peaks.
            images: In a run.
            operations: Floating-point operations of a run.
            against: Rows that it is compared with, by the name of the ratio of seconds for an image.
            warm_up: Runs before timed ones; by default the sizes'.
            rounds: Timed runs; by default the sizes'.
        """
        started = time.perf_counter()
        for number in range(self.sizes.warm_up if warm_up is None else warm_up):
            run()
            _finish(self.device)
            if number == 0:
                first = time.perf_counter() - started  # with compilation
        memory = peak_memory(run, self.device)
        seconds = run_times(run, self.device, rounds or self.sizes.rounds)
        median = statistics.median(seconds)
        values = dict(median_s=median, least_s=min(seconds), most_s=max(seconds), runs=len(seconds))
        values |= dict(images=images, images_per_s=images / median, peak_gib=memory, operations=operations)
        values['flops'] = operations / median
        if warm_up != 0:
            values['first_s'] = first
        ratios = {
            key: (median / images) / (row.values['median_s'] / row.values['images'])
            for key, row in (against or {}).items()
            if row is not None and 'median_s' in row.values
        }
        peak = rows.get(f'matmul {_PEAK_OF[how.split()[0]]}')
        if peak is not None and 'flops' in peak.values and operations:
            values['share'] = values['flops'] / peak.values['flops']
            ratios['peak'] = 1 / values['share']  # seconds over those that the same operations take at the peak
        return Row(name, ratios, values)

    def _count(self, key: str, how: str, run: Callable[[], object], times: int) -> int:
        """Return the operations of `run`, counted once for each key, times a number of images."""
        if key not in self.operations:
            # the plain formula of attention: some kernels are not counted, others compute parts again
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                run()
            self.operations[key] = counter.get_total_flops()
        return self.operations[key] * times

    @contextmanager
    def _arithmetic(self, how: str, *, autocast: bool = True) -> Iterator[None]:
        precision = how.split()[0]
        switch: AbstractContextManager = nullcontext()
        if precision in ('fp32', 'tf32'):
            switch = tf32(precision == 'tf32')
        with switch, torch.autocast(self.device.type, torch.bfloat16, enabled=autocast and precision == 'bf16'):
            yield

    def _autoencoder(self, name: str, how: str) -> Autoencoder:
        torch.manual_seed(0)
        scales = {'sd': 0.18215, 'sdxl': 0.13025}
        autoencoder = build(dict(type='KLAutoencoder', scale=scales[name], **self.sizes.autoencoder)).to(self.device)
        return autoencoder.to(memory_format=torch.channels_last) if 'channels-last' in how else autoencoder

    def _eq_training(self, name: str, how: str) -> tuple[Any, Any]:
        transform = dict(type='Compose', transforms=[dict(type='IsotropicScale'), dict(type='Rotate')])
        model = build(
            dict(
                type='AutoencoderTraining',
                autoencoder=self._autoencoder(name, how),
                objective=dict(type='ImplicitEquivariance', transform=transform),
                reconstruction_loss=dict(
                    type='ReconstructionLoss',
                    pixel=dict(type='L1'),
                    perceptual=None if self.sizes.perceptual is None else dict(self.sizes.perceptual),
                ),
                penalties=[dict(type='KLDivergence', weight=1e-6)],
                adversarial_loss=dict(
                    type='AdversarialLoss',
                    discriminator=dict(type='PatchGAN', num_layers=3 if self.sizes.eq[0] >= 128 else 1),
                    weight=0.5,
                ),
                precision='bf16' if how.startswith('bf16') else 'fp32',
                channels_last='channels-last' in how,
            )
        )
        model = model.to(self.device).train()
        # the released code's Adam is not fused
        fused = {} if how == 'released' else {'fused': True}
        adam = dict(optimizer=dict(type='Adam', lr=1e-5, betas=(0.5, 0.9), **fused))
        return model, build_optimizers(model, Config(dict(optim_wrapper=dict(autoencoder=adam, discriminator=adam))))

    def _generator_training(self, name: str, how: str, batch_size: int) -> tuple[GeneratorTraining, dict[str, Tensor]]:
        torch.manual_seed(0)
        size, side = self.sizes.generator
        network = dict(type='DiffusionTransformer', size=size, patch_size=2, latent_size=side)
        tokens, tap = (side // 2) ** 2, 8 if isinstance(size, str) else 1
        if name == 'DiT':
            config = dict(type='DiT', process=dict(type='GaussianDiffusion'))
        elif name == 'SiT':
            config, network['learn_sigma'] = dict(type='SiT', process=dict(type='Interpolant')), False
        else:
            config = dict(type='REPA', process=dict(type='Interpolant'))
            network.update(type='AlignedTransformer', feature_dims=(768,), tap=tap)
        if name.startswith('REPA with'):
            encoder = dict(type='DINOv2Tokens', size='b' if isinstance(size, str) else 's', grid=side // 2)
            config['encoder'] = build(dict(encoder, weights='random'))
            network['feature_dims'] = (config['encoder'].num_features,)
        generator = build(dict(config, network=network))
        autoencoder = build(dict(type='KLAutoencoder', block_out_channels=(8, 8, 8, 8), norm_num_groups=4))
        model = GeneratorTraining(generator, autoencoder, precision='bf16' if how.startswith('bf16') else 'fp32')
        mean = torch.randn(batch_size, 4, side, side)
        numbers = torch.arange(batch_size)
        batch = dict(mean=mean, std=mean.abs() / 10, labels=numbers % 1000, draws=numbers)
        if name == 'REPA':
            batch['features'] = torch.randn(batch_size, tokens, 768).bfloat16()
        elif name.startswith('REPA with'):
            pixels = 8 * side
            batch['images'] = torch.randint(256, (batch_size, 3, pixels, pixels), dtype=torch.uint8)
        return model.to(self.device).train(), _pinned(batch, self.device)

    def _files(self) -> str:
        """Return a folder of JPEG files, which is written once and removed with the object."""
        if self._folder is None:
            self._folder = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            write_jpegs(Path(self._folder), *self.sizes.files)
        return self._folder


_PEAK_OF = {'fp32': 'fp32', 'tf32': 'tf32', 'bf16': 'bf16', 'torch': 'tf32', 'released': 'tf32'}


def run_times(run: Callable[[], object], device: torch.device, rounds: int) -> list[float]:
    """Return the seconds of `rounds` runs of `run`, one after the other.

    On a GPU these are times between events in its queue: the host prepares a run while the GPU works on the one
    before, as in training, and what the host delays counts.
    """
    if device.type != 'cuda':
        ends = [time.perf_counter()]
        for _ in range(rounds):
            run()
            ends.append(time.perf_counter())
        return [end - start for start, end in pairwise(ends)]
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    torch.cuda.synchronize(device)
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) / 1000 for start, end in pairwise(events)]


def step_operations(network: nn.Module) -> int:
    """Return the floating-point operations of a training step of a generator's network on one latent.

    Products and sums of matrix products, convolutions and attention, forward and backward, whatever kernel computes
    them: nothing is computed, and what a kernel computes again does not count. For DiT-XL/2 it is about six times the
    118.6 G multiply-accumulates that its paper reports: two operations each, forward, and twice that backward.
    """
    with _on_meta(network) as (run, counter):
        output = run()
        outputs = [output] if torch.is_tensor(output) else [output[0], *output[1]]
        sum(each.float().mean() for each in outputs).backward()
    return counter.get_total_flops()


def forward_operations(network: nn.Module) -> int:
    """Return the floating-point operations of a forward pass of a generator's network on one latent."""
    with _on_meta(network) as (run, counter), torch.no_grad():
        run()
    return counter.get_total_flops()


@contextmanager
def _on_meta(network: nn.Module) -> Iterator[tuple[Callable[[], Any], FlopCounterMode]]:
    """Yield a forward pass on one latent without numbers, and what counts its operations."""
    weights = {
        name: torch.empty_like(value, device='meta').requires_grad_(value.requires_grad)
        for name, value in (*network.named_parameters(), *network.named_buffers())
    }
    inputs = tuple(each.to('meta') for each in network.example_inputs())
    forward = getattr(network, 'forward_with_features', network.forward)
    wrapped = _Forward(network, forward)
    named = {f'network.{name}': value for name, value in weights.items()}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield lambda: torch.func.functional_call(wrapped, named, inputs), counter


class _Forward(nn.Module):
    """A network whose `forward` is another of its methods."""

    def __init__(self, network: nn.Module, method: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, *inputs: Tensor) -> Any:
        return self.method(*inputs)


def half_scale_draw(model: Any, size: int) -> StepRandomness:
    """Return the streams of the first step that takes the equivariance branch and scales by 1/2."""
    grid = model.autoencoder.grid(size, size)
    for step in range(100_000):
        draw = model.objective.sample(StepRandomness(0, step).shared(), grid)
        if draw.branch == 'equivariance' and tuple(map(float, draw.params[0])) == _HALF:
            return StepRandomness(0, step)
    raise AssertionError('no step scales by 1/2')


def write_jpegs(folder: Path, distinct: int, copies: int, size: int) -> None:
    """Write pictures of `size` pixels with noise as JPEG files: `distinct` ones, each `copies` times.

    Photographs do not pack as well as drawings do; with noise a picture of 384 pixels takes about as many bytes as one
    of ImageNet.
    """
    pictures, generator = Shapes(distinct, size), np.random.default_rng(0)
    for index in range(distinct):
        noise = generator.integers(-24, 25, (size, size, 3))
        pixels = (pictures[index]['image'].permute(1, 2, 0).numpy() + noise).clip(0, 255).astype(np.uint8)
        first = folder / f'{index:05d}_0.jpg'
        Image.fromarray(pixels).save(first, quality=90)
        for copy in range(1, copies):
            shutil.copyfile(first, folder / f'{index:05d}_{copy}.jpg')


class _Decoded(Dataset):
    """The first images of a data set, decoded, in memory."""

    def __init__(self, data: Dataset, limit: int) -> None:
        self.size, self._data = data.size, data
        self._items = [data[index] for index in range(min(limit, len(data)))]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        index, draw = split_key(key, len(self))
        return dict(self._items[index], draw=draw)

    def identity(self) -> dict[str, Any]:
        """Return that of the data set."""
        return self._data.identity()


def _pinned(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch as a loader gives it: in pinned memory for a GPU."""
    pins = device.type == 'cuda'
    return {name: each.pin_memory() if pins and torch.is_tensor(each) else each for name, each in batch.items()}


def _finish(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
