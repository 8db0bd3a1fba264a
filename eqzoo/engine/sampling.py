"""Samples by number: what sample n is depends on the seed and on n, not on how the work is cut."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from mmengine.config import Config
from torch import Tensor

from eqzoo import __version__
from eqzoo.autoencoders import Autoencoder
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.generator import load_generator
from eqzoo.data.samples import NpzSamples, PngSamples, check_card, open_sample_files, write_card
from eqzoo.distributed import get_device, rank_and_world_size, wait_for_all
from eqzoo.engine.checkpoints import latest_checkpoint
from eqzoo.engine.generator_training import check_fit, latents_card
from eqzoo.engine.preflight import missing, report
from eqzoo.files import sha256_of
from eqzoo.generators.base import Generator
from eqzoo.images import to_uint8
from eqzoo.normalization import normalization_difference
from eqzoo.randomness import SampleStreams, seeded
from eqzoo.registry import build
from eqzoo.zoo import located

_LABEL_STREAM = 3

Labels = Literal['random', 'balanced'] | Sequence[int]


def label_of(number: int, labels: Labels, num_classes: int, seed: int) -> int:
    """Return the class of sample `number`.

    Args:
        number: From 0.
        labels: 'random': any class, drawn by seed and number. 'balanced': class after class,
            0 to K - 1 and again. A list of classes: these, one after the other.
        num_classes: K.
        seed: Of the samples.
    """
    if labels == 'random':
        return int(torch.randint(num_classes, (), generator=seeded(seed, _LABEL_STREAM, number)))
    cycle = range(num_classes) if labels == 'balanced' else labels
    return cycle[number % len(cycle)]


class ImageSampler:
    """Draws images: latents or codes by a sampler from a generator, decoded by the autoencoder.

    Args:
        generator: Trained, in evaluation mode.
        autoencoder: Whose latents or codes the generator makes.
        sampler: How they are drawn.
        labels: Which classes; see `label_of`.
        seed: Of the samples.
        precision: 'bf16' runs the generator's network under autocast; latents are decoded in float32.

    Raises:
        ValueError: If generator, autoencoder, sampler and labels do not fit.
    """

    def __init__(
        self,
        generator: Generator,
        autoencoder: Autoencoder,
        sampler: Callable[..., Tensor],
        *,
        labels: Labels = 'random',
        seed: int = 0,
        precision: Literal['fp32', 'bf16'] = 'fp32',
    ) -> None:
        if precision not in ('fp32', 'bf16'):
            raise ValueError(f"sampling.precision must be 'fp32' or 'bf16', got {precision!r}.")
        check_fit(generator, autoencoder)
        check_labels(labels, generator.num_classes)
        sampler.check(generator)
        self.generator, self.autoencoder, self.sampler = generator, autoencoder, sampler
        self.labels, self.seed, self.precision = labels, seed, precision

    def labels_of(self, numbers: Sequence[int]) -> Tensor:
        """Return the classes (B,) of the samples `numbers`."""
        found = [label_of(number, self.labels, self.generator.num_classes, self.seed) for number in numbers]
        return torch.tensor(found, dtype=torch.int64)

    @torch.no_grad()
    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """Return the samples `numbers` as images (B, 3, H, W), uint8, on the CPU."""
        device = next(self.generator.parameters()).device
        streams = SampleStreams(self.seed, torch.tensor(numbers))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == 'bf16'):
            drawn = self.sampler(self.generator, self.labels_of(numbers).to(device), streams)
        return to_uint8(self._decoded(drawn)).cpu()

    def _decoded(self, drawn: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of codes (B, h, w), or of latents in generator units."""
        if self.generator.learns == 'codes':
            return self.autoencoder.decode_tokens(drawn)
        return self.autoencoder.decode(self.autoencoder.normalization.denormalize(drawn.float()))


def check_labels(labels: Labels, num_classes: int) -> None:
    """Refuse classes that a generator of `num_classes` does not know.

    Raises:
        ValueError: Naming them.
    """
    accepted = f"accepted is 'random', 'balanced', or a list of classes, 0 to {num_classes - 1}"
    if isinstance(labels, str):
        if labels not in ('random', 'balanced'):
            raise ValueError(f'sampling.labels: got {labels!r}; {accepted}.')
        return
    outside = [label for label in labels if not 0 <= label < num_classes]
    if outside or not labels:
        raise ValueError(f'sampling.labels: got {outside or "none"}; {accepted}.')


def generator_weights(config: Config, checkpoint: str | None) -> str:
    """Return the file of the generator's weights: `checkpoint`, the work directory's newest, or the config's.

    Raises:
        ValueError: If there is none.
    """
    latest = latest_checkpoint(config.work_dir)
    chosen = checkpoint or (str(latest) if latest else config.model.generator.network.get('weights'))
    if not chosen:
        raise ValueError(
            f'Nothing to sample from: {config.work_dir} has no checkpoint and model.generator.network names no '
            f'weights. Train first (python tools/train.py {config.filename}) or give a CHECKPOINT.'
        )
    return chosen


def build_image_sampler(config: Config, weights: str) -> ImageSampler:
    """Build what `sampling` of a generator's config describes, with the generator of the file `weights`.

    Raises:
        ValueError: If the parts do not fit, or the file is of a generator of other latents.
    """
    generator_config = config.model.generator.to_dict()
    generator_config.pop('encoder', None)  # only training looks at images
    generator_config['network'].pop('weights', None)
    generator = build(generator_config).eval()
    stored = load_generator(generator.network, weights)
    autoencoder = build(config.model.autoencoder).eval()
    if stored.latents is not None:
        _check_latents(stored.latents, autoencoder, weights)
    sampling = config.sampling
    return ImageSampler(
        generator.requires_grad_(False).to(get_device()),
        autoencoder.requires_grad_(False).to(get_device()),
        build(sampling.sampler),
        labels=sampling.get('labels', 'random'),
        seed=sampling.get('seed', 0),
        precision=sampling.get('precision', 'fp32'),
    )


def identity(config: Config) -> dict[str, Any]:
    """Return what has to be alike for two sets of samples to be compared, for metric cards: how they were drawn."""
    sampling = config.sampling
    return dict(
        kind='samples',
        sampler=plain_config(sampling.sampler),
        labels=sampling.get('labels', 'random'),
        seed=sampling.get('seed', 0),
        precision=sampling.get('precision', 'fp32'),
        num_images=sampling.num_samples,
    )


def weights_sha256(weights: str) -> str:
    """Return the digest of a weights file."""
    return sha256_of(located(weights))


def batches(numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    """Cut `numbers` into lists of `size`, the last one shorter."""
    for start in range(0, len(numbers), size):
        yield list(numbers[start : start + size])


def _check_latents(theirs: Mapping[str, Any], autoencoder: Autoencoder, weights: str) -> None:
    """Compare the autoencoder with the one whose latents the generator learned."""
    ours = latents_card(autoencoder)
    if theirs['autoencoder'] != ours['autoencoder']:
        raise ValueError(
            f'{weights}: a generator of latents of the autoencoder {theirs["autoencoder"][:12]}…, the config has '
            f'{ours["autoencoder"][:12]}…; set model.autoencoder.weights to those it was trained with.'
        )
    name = normalization_difference(theirs, ours)
    if name is not None:
        raise ValueError(
            f'{weights}: its latents were normalised with {name} {theirs[name]}, the autoencoder of the config has '
            f'{ours[name]}; set {name} of model.autoencoder to the former.'
        )


def check_samples(config: Config) -> None:
    """Refuse a config that describes no samples.

    Raises:
        ValueError: Saying what it lacks.
    """
    if 'generator' not in config.model or 'sampling' not in config:
        raise ValueError(
            f'{config.filename}: describes no samples: a config with model.generator and '
            'sampling=dict(num_samples=…, batch_size=…, sampler=dict(type=…)) does, as those in configs/dit do.'
        )


def check_parts(config: Config, weights: str, command: str, **more: Any) -> None:
    """Refuse to begin where something is not there that sampling needs: not what training alone does.

    Args:
        config: A generator's.
        weights: The file that is sampled from.
        command: For the message.
        **more: Further parts of the config that are needed, by name.

    Raises:
        ValueError: Naming all that is missing.
    """
    generator = {key: value for key, value in config.model.generator.items() if key != 'encoder'}
    generator['network'] = {**generator['network'], 'weights': weights}
    parts = dict(generator=generator, autoencoder=config.model.autoencoder, sampling=config.sampling, **more)
    lacks = missing(Config(parts, filename=config.filename), tuple(parts))
    if lacks:
        raise ValueError(report(config, lacks, command))


def claim_files(out: str, config: Config, weights: str) -> PngSamples | NpzSamples:
    """Return where the samples of `config` go, with the card that says what they are; refuse a place that has others.

    Raises:
        ValueError: If other samples are there.
    """
    plan = {**identity(config), 'weights_sha256': weights_sha256(weights)}
    del plan['num_images']  # more may be added
    check_card(out, plan)
    wait_for_all()  # before the card is written that others may still look for
    if rank_and_world_size()[0] == 0:
        write_card(out, {'plan': plan, 'weights': weights, 'eqzoo': __version__, 'torch': torch.__version__})
    return open_sample_files(out)
