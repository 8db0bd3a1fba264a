"""Checks that a GPU computes what the CPU does, and each fast way what the plain one does.

A check returns the measured difference and the largest that rounding explains; the reasons for the bounds stand beside
them. Differences are ‖a − b‖ / ‖b‖ unless the check says otherwise. All run on a CPU as well, where most compare a
thing with itself.
"""

import copy
import io
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqzoo.config import configs_folder, load_config
from eqzoo.distributed import use_device
from eqzoo.engine import build_runner, latest_checkpoint, shrink
from eqzoo.engine.checkpoints import read_checkpoint
from eqzoo.engine.optimizers import MuonAdamW
from eqzoo.engine.sharding import shard_network
from eqzoo.engine.training import compile_blocks
from eqzoo.evaluators.gaussian import FeatureMoments
from eqzoo.precision import tf32, use_backends
from eqzoo.randomness import SampleStreams
from eqzoo.registry import build
from eqzoo.transforms.scale import interpolated_by_products

# Unit roundoff is 2^-9 for bfloat16, 2^-11 for TF32, 2^-24 for float32. Errors of the layers of a network are
# independent and add up like a random walk: of about 100 roundings on the longest path ten times the unit is left, and
# norms and attention amplify it a few times more.
_BF16 = 5e-2
_TF32 = 1e-2
_FP32 = 1e-4


class Finding(NamedTuple):
    """The result of a check.

    Args:
        difference: As measured.
        bound: The largest that is right.
        note: What was compared, or left out.
    """

    difference: float
    bound: float
    note: str = ''

    @property
    def passed(self) -> bool:
        """Whether the difference is within the bound; a NaN is not."""
        return self.difference <= self.bound


class Setting(NamedTuple):
    """Where checks run.

    Args:
        device: The device.
        is_small: Whether networks are tiny, as on a CPU; otherwise those of SD-VAE and DiT-B.
    """

    device: torch.device
    is_small: bool = False


def run_checks(
    setting: Setting, names: Iterable[str] | None = None, *, say: Callable[[str], object] = print
) -> list[str]:
    """Run checks, print a line for each, and return the names of those that failed.

    Args:
        setting: Where they run.
        names: Names of `CHECKS`; by default all.
        say: Prints a line.
    """
    failed = []
    for name in CHECKS if names is None else names:
        try:
            finding = CHECKS[name](setting)
        except NotImplementedError as error:  # this machine cannot do it: no failure of what it does
            say(f'skipped  {name}: {error}')
            continue
        except Exception as error:  # every kind: one failure must not hide what the other checks find
            failed.append(name)
            say(f'FAILED   {name}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ""}')
            continue
        verdict = 'ok      ' if finding.passed else 'FAILED  '
        note = f'  {finding.note}' if finding.note else ''
        say(f'{verdict} {name}: {finding.difference:.2e} (at most {finding.bound:.0e}){note}')
        if not finding.passed:
            failed.append(name)
    return failed


def relative(a: Tensor, b: Tensor) -> float:
    """Return ‖a − b‖ / ‖b‖ in float64; NaN if either has one."""
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


def _autoencoder(setting: Setting) -> nn.Module:
    torch.manual_seed(0)
    small = dict(block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4)
    return build(dict(type='KLAutoencoder', **(small if setting.is_small else {}))).to(setting.device)


def _generator(setting: Setting, kind: str = 'SiT') -> nn.Module:
    """Return a generator whose weights are all random: as initialised, its output would be 0."""
    torch.manual_seed(0)
    size, side = ((2, 64, 4), 8) if setting.is_small else ('B', 32)
    process = dict(type='Interpolant' if kind == 'SiT' else 'GaussianDiffusion')
    network = dict(type='DiffusionTransformer', size=size, patch_size=2, latent_size=side, learn_sigma=kind == 'DiT')
    generator = build(dict(type=kind, network=network, process=process))
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.05 if setting.is_small else 0.02)
    return generator.to(setting.device)


def _images(setting: Setting, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    side = 32 if setting.is_small else 256
    return (torch.rand(count, 3, side, side, generator=generator) * 2 - 1).to(setting.device)


def _latents(generator: nn.Module, setting: Setting, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents, times in [0, 1] and labels."""
    random = torch.Generator().manual_seed(2)
    x = torch.randn(count, *generator.latent_shape, generator=random)
    inputs = x, torch.rand(count, generator=random), torch.arange(count)
    return tuple(each.to(setting.device) for each in inputs)


@contextmanager
def _autocast(setting: Setting) -> Iterator[None]:
    with torch.autocast(setting.device.type, torch.bfloat16):
        yield


def _coded(autoencoder: nn.Module, images: Tensor) -> Tensor:
    """Return latents and reconstructions as one vector each image, both scaled to a norm of 1."""
    with torch.no_grad():
        latents = autoencoder.encode(images).mean
        decoded = autoencoder.decode(latents)
    return torch.cat([(each / each.norm()).float().flatten() for each in (latents, decoded)])


def autoencoder_against_cpu(setting: Setting) -> Finding:
    """Compare an autoencoder in float32 with the CPU's."""
    autoencoder, images = _autoencoder(setting).eval(), _images(setting, 1)
    with tf32(False):
        ours = _coded(autoencoder, images)
    return Finding(relative(ours, _coded(autoencoder.cpu(), images.cpu())), _FP32, 'float32, encode and decode')


def autoencoder_in_tf32(setting: Setting) -> Finding:
    """Compare an autoencoder in TF32 with float32."""
    autoencoder, images = _autoencoder(setting).eval(), _images(setting)
    with tf32(False):
        exact = _coded(autoencoder, images)
    with tf32(True):
        return Finding(relative(_coded(autoencoder, images), exact), _TF32, 'encode and decode')


def autoencoder_in_bf16(setting: Setting) -> Finding:
    """Compare an autoencoder in bf16 with float32."""
    autoencoder, images = _autoencoder(setting).eval(), _images(setting)
    with tf32(False):
        exact = _coded(autoencoder, images)
    with _autocast(setting):
        return Finding(relative(_coded(autoencoder, images), exact), _BF16, 'encode and decode')


def autoencoder_channels_last(setting: Setting) -> Finding:
    """Compare an autoencoder with weights whose channels are last in memory with the usual order."""
    autoencoder, images = _autoencoder(setting).eval(), _images(setting)
    with tf32(False):
        usual = _coded(autoencoder, images)
        return Finding(relative(_coded(autoencoder.to(memory_format=torch.channels_last), images), usual), _FP32)


def autoencoder_compiled(setting: Setting) -> Finding:
    """Compare a compiled autoencoder's output and gradient with those of the same blocks as they are."""
    eager = _autoencoder(setting)
    compiled = copy.deepcopy(eager)
    compile_blocks(compiled.blocks())
    images, found = _images(setting, 1), []
    with tf32(False), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Dynamo looks at .grad of what is no leaf, and torch warns of it
        for model in (compiled, eager):
            reconstruction = model.decode(model.encode(images).mean)
            reconstruction.square().sum().backward()
            gradient = next(model.parameters()).grad
            found.append(torch.cat([(each / each.norm()).flatten() for each in (reconstruction.detach(), gradient)]))
    # gradients pass twice as many layers as outputs, and fused kernels add up in another order
    return Finding(relative(*found), 10 * _FP32, 'output and gradient of the first layer')


def generator_against_cpu(setting: Setting) -> Finding:
    """Compare a diffusion transformer in float32 with the CPU's."""
    generator = _generator(setting).eval()
    inputs = _latents(generator, setting, 1)
    with tf32(False), torch.no_grad():
        ours = generator.network(*inputs)
        theirs = generator.cpu().network(*(each.cpu() for each in inputs))
    return Finding(relative(ours, theirs), _FP32, 'float32')


def generator_in_bf16(setting: Setting) -> Finding:
    """Compare output and gradients of a diffusion transformer in bf16 with float32."""
    generator = _generator(setting)
    inputs, found = _latents(generator, setting), []
    for is_exact in (False, True):
        with tf32(False), torch.autocast(setting.device.type, torch.bfloat16, enabled=not is_exact):
            output = generator.network(*inputs).float()
        output.square().mean().backward()
        gradient = generator.network.blocks[0].attn.qkv.weight.grad
        found.append(torch.cat([(each / each.norm()).flatten() for each in (output.detach(), gradient)]))
        generator.zero_grad()
    # the gradient passes every layer twice
    return Finding(relative(*found), 2 * _BF16, 'output and gradient of the first block')


def attention_kernels(setting: Setting) -> Finding:
    """Compare each kernel of attention, in bf16, with the plain formula in float64, forward and backward."""
    random = torch.Generator().manual_seed(3)
    shape = (2, 4, 64, 32) if setting.is_small else (4, 16, 256, 72)  # DiT-XL's heads and tokens
    inputs = [torch.randn(shape, generator=random).to(setting.device).bfloat16() for _ in range(3)]
    exact = [each.double().requires_grad_() for each in inputs]
    q, k, v = exact
    plain = (q @ k.transpose(-1, -2) / shape[-1] ** 0.5).softmax(-1) @ v
    plain.square().sum().backward()
    wanted = [plain, *(each.grad for each in exact)]
    worst, tried, missing = 0.0, [], []
    for backend in (
        SDPBackend.MATH,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
    ):
        leaves = [each.clone().requires_grad_() for each in inputs]
        try:
            with sdpa_kernel(backend), warnings.catch_warnings():
                warnings.simplefilter('ignore')  # torch warns of the reasons why it has no kernel
                output = F.scaled_dot_product_attention(*leaves)
                output.float().square().sum().backward()
        except RuntimeError:
            missing.append(backend.name.lower())
            continue
        tried.append(backend.name.lower())
        worst = max(worst, *(relative(a, b) for a, b in zip([output, *(x.grad for x in leaves)], wanted, strict=True)))
    note = ', '.join(tried) + (f'; not here: {", ".join(missing)}' if missing else '')
    # few roundings to bf16: of the weights, of the output and of gradients
    return Finding(worst, 2e-2, note)


def fused_optimizers(setting: Setting) -> Finding:
    """Compare the fused and batched kernels of Adam, AdamW and MuonAdamW with plain ones, after five steps."""
    worst, started = 0.0, [torch.randn(64, 48), torch.randn(16, 16, 3, 3), torch.randn(33)]
    for optimizer, ways in (
        (torch.optim.Adam, (dict(fused=True), dict(foreach=True))),
        (torch.optim.AdamW, (dict(fused=True), dict(foreach=True))),
        (MuonAdamW, (dict(fused=True),)),
    ):
        moved = []
        for options in (*ways, dict(foreach=False, fused=False) if optimizer is not MuonAdamW else {}):
            weights = [nn.Parameter(each.clone().to(setting.device)) for each in started]
            own, random = optimizer(weights, lr=1e-2, **options), torch.Generator().manual_seed(4)
            for _ in range(5):
                for weight in weights:
                    weight.grad = torch.randn(weight.shape, generator=random).to(setting.device)
                own.step()
            shift = torch.cat(
                [(weight.detach().cpu() - was).flatten() for weight, was in zip(weights, started, strict=True)]
            )
            moved.append(shift)
        worst = max(worst, *(relative(each, moved[-1]) for each in moved[:-1]))
    # of the distance that the weights have moved: five steps of about 1e-2 beside weights of 1 lose two digits
    return Finding(worst, 1e-4, 'Adam, AdamW, MuonAdamW')


def sharded_generator(setting: Setting) -> Finding:
    """Compare two steps of a generator that FSDP2 shards, on one process, with the same unsharded."""
    plain = _generator(setting)
    sharded = copy.deepcopy(plain)
    inputs = _latents(plain, setting)
    with _one_process(setting), tf32(False):
        shard_network(sharded.network, setting.device)
        weights = []
        for generator in (sharded, plain):
            trained = [each for each in generator.parameters() if each.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=1e-3)
            for _ in range(2):
                generator.network(*inputs).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            found = (getattr(each, 'full_tensor', lambda each=each: each)() for each in trained)
            weights.append(torch.cat([each.detach().flatten() for each in found]))
    # the same kernels on the same numbers, but for the order in which attention's gradients add up
    return Finding(
        relative(*weights), 1e-5, 'weights after two steps, ' + ('nccl' if setting.device.type == 'cuda' else 'gloo')
    )


@contextmanager
def _one_process(setting: Setting) -> Iterator[None]:
    if dist.is_initialized():
        yield
        return
    backend = 'nccl' if setting.device.type == 'cuda' else 'gloo'
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def repeated_training(setting: Setting) -> Finding:
    """Compare a run with its repetition, and with one that was resumed, to the bit, under `gpu.deterministic`.

    The difference is the number of tensors of the last checkpoints that differ: weights, average, optimizers.
    """
    with _deterministic(), tempfile.TemporaryDirectory() as folder:
        whole = _trained(setting, Path(folder) / 'whole', (4,))
        again = _trained(setting, Path(folder) / 'again', (4,))
        resumed = _trained(setting, Path(folder) / 'resumed', (2, 4))
        others = sum(not torch.equal(*pair) for other in (again, resumed) for pair in zip(whole, other, strict=True))
    return Finding(others, 0, f'{len(whole)} tensors of the last checkpoint')


def checkpoint_on_the_cpu(setting: Setting) -> Finding:
    """Count the tensors of a checkpoint that are not on the CPU when it is read as it was written."""
    with tempfile.TemporaryDirectory() as folder:
        _trained(setting, Path(folder), (1,))
        content = torch.load(latest_checkpoint(folder), weights_only=True)  # no map_location: as written
        tensors = list(_tensors(content))
        averages = len(content['ema_state_dict'])
    outside = sum(each.device.type != 'cpu' for each in tensors)
    return Finding(outside, 0, f'{len(tensors)} tensors, {averages} of the average')


def _trained(setting: Setting, folder: Path, lengths: Sequence[int]) -> list[Tensor]:
    """Train a small autoencoder, resuming at each length, and return the tensors of the last checkpoint."""
    use_device(setting.device.type)
    try:
        for number, length in enumerate(lengths):
            overrides = [f'work_dir={folder}', 'visualizer=none']
            config = shrink(load_config(configs_folder() / 'demo' / 'rot_scale.py', overrides))
            config.work_dir = str(folder)
            config.val_dataloader, config.evaluators = None, []
            config.custom_hooks = dict(EMAHook=dict(type='EMAHook', decay=0.9))
            config.train_cfg = dict(max_iters=length)
            config.default_hooks.checkpoint.update(interval=length, save_best=None)
            config.default_hooks.logger = dict(type='LoggerHook', interval=1000, log_metric_by_epoch=False)
            with redirect_stdout(io.StringIO()):
                build_runner(config, resume=number > 0).train()
    finally:
        use_device('auto')
    content = read_checkpoint(latest_checkpoint(folder))
    return list(_tensors({name: content[name] for name in ('state_dict', 'ema_state_dict', 'optimizer')}))


def _tensors(value: Any) -> Iterator[Tensor]:
    if torch.is_tensor(value):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _tensors(each)


@contextmanager
def _deterministic() -> Iterator[None]:
    was = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    use_backends(dict(deterministic=True))
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0])
        torch.backends.cudnn.deterministic = was[1]


def deterministic_scaling(setting: Setting) -> Finding:
    """Compare scaling by matrix products, and its gradient, with torch's kernels of each kind."""
    x, worst = torch.randn(2, 4, 32, 24, device=setting.device), 0.0
    for interpolation in ('bilinear', 'bicubic'):
        for antialias in (False, True):
            mode, found = dict(mode=interpolation, antialias=antialias, align_corners=False), []
            for scale in (interpolated_by_products, F.interpolate):
                leaf = x.clone().requires_grad_()
                with tf32(False):
                    scaled = scale(leaf, (12, 10), **mode)
                    scaled.square().sum().backward()
                found.append(torch.cat([scaled.detach().flatten(), leaf.grad.flatten()]))
            worst = max(worst, relative(*found))
    return Finding(worst, 1e-5, 'bilinear and bicubic, with and without antialiasing')


def samplers_against_cpu(setting: Setting) -> Finding:
    """Compare samples of each kind of sampler with those of the CPU, for the same streams, in float32."""
    guidance = dict(type='ClassifierFree', scale=1.5)
    worst, small = 0.0, setting._replace(is_small=True)  # the CPU has to compute them, too
    for kind, sampler in (
        ('SiT', dict(type='SDE', steps=10)),
        ('SiT', dict(type='ODE', method='euler', steps=10, guidance=guidance)),
        ('SiT', dict(type='ODE', method='dopri5')),
        ('DiT', dict(type='DDPM', steps=10, guidance=guidance)),
        ('DiT', dict(type='DDIM', steps=10)),
        ('DiT', dict(type='DPMSolver', steps=10)),
    ):
        found = []
        for device in (setting.device, torch.device('cpu')):
            generator = _generator(small, kind).eval().to(device)
            numbers = torch.arange(2)
            with tf32(False):
                found.append(build(dict(sampler))(generator, numbers.to(device), SampleStreams(0, numbers)))
        worst = max(worst, relative(*found))
    # ten steps pass errors on, and dopri5 may accept a step on one side that it rejects on the other (its tolerance
    # is 1e-3)
    return Finding(worst, 3e-3, 'SDE, Euler, dopri5, DDPM, DDIM, DPM-Solver')


def transferred_numbers(setting: Setting) -> Finding:
    """Count the values that differ after copies that the host does not wait for, while memory is used again."""
    wrong, busy = 0, torch.randn(1024, 1024, device=setting.device)
    pins = setting.device.type == 'cuda'
    copies, originals = [], []
    for number in range(30):
        busy = (busy @ busy).div_(busy.norm())  # the queue is full while the host goes on
        own = SampleStreams(number, torch.arange(8))
        copies.append(
            (own.normal(torch.empty(8, 4, 32, 32, device=setting.device)), own.uniform(device=setting.device))
        )
        same = SampleStreams(number, torch.arange(8))
        originals.append((same.normal(torch.empty(8, 4, 32, 32)), same.uniform()))
        batch = torch.full((8, 3, 64, 64), number, dtype=torch.uint8)
        batch = batch.pin_memory() if pins else batch
        copies[-1] += (batch.to(setting.device, non_blocking=True),)
        originals[-1] += (torch.full((8, 3, 64, 64), number, dtype=torch.uint8),)
    for ours, theirs in zip(copies, originals, strict=True):
        wrong += sum(int((a.cpu() != b).sum()) for a, b in zip(ours, theirs, strict=True))
    return Finding(wrong, 0, 'noise, uniform numbers and batches, 30 times')


def features_against_cpu(setting: Setting) -> Finding:
    """Compare the features of FID's network, with random weights, and their moments with the CPU's."""
    kind = dict(type='EfficientNetLite0') if setting.is_small else dict(type='FIDInception', weights='random')
    random = torch.Generator().manual_seed(5)
    images, found = torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8, generator=random), []
    for device in (setting.device, torch.device('cpu')):
        features = build(dict(kind))(images.to(device)).pooled
        moments = FeatureMoments(features.shape[1])
        moments.add(features)
        found.append(torch.cat([moments.mean, moments.covariance.flatten()]))
    return Finding(relative(*found), 10 * _FP32, 'mean and covariance, which squares errors')


CHECKS: dict[str, Callable[[Setting], Finding]] = {
    'autoencoder against the CPU': autoencoder_against_cpu,
    'autoencoder, TF32': autoencoder_in_tf32,
    'autoencoder, bf16': autoencoder_in_bf16,
    'autoencoder, channels last': autoencoder_channels_last,
    'generator against the CPU': generator_against_cpu,
    'generator, bf16': generator_in_bf16,
    'attention kernels': attention_kernels,
    'optimizers, fused and batched': fused_optimizers,
    'transfers': transferred_numbers,
    'samplers against the CPU': samplers_against_cpu,
    'features against the CPU': features_against_cpu,
    'scaling by products': deterministic_scaling,
    'checkpoint is of the CPU': checkpoint_on_the_cpu,
    'training repeats and resumes to the bit': repeated_training,
    'sharding (FSDP2)': sharded_generator,
    'autoencoder, compiled': autoencoder_compiled,
}
