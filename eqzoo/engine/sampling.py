"""Sampling by number: sample n depends on the seed and on n, not on batches or processes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from mmengine.config import Config
from torch import Tensor

from eqzoo import __version__
from eqzoo.autoencoders import Autoencoder
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.generator import SIZES, load_generator
from eqzoo.checkpoints.read import weights_sha256
from eqzoo.config import trains_autoencoder
from eqzoo.data import ImageFolder
from eqzoo.data.samples import NpzSamples, PngSamples, check_card, open_sample_files, write_card
from eqzoo.distributed import get_device, rank_and_world_size, say_once, wait_for_all
from eqzoo.engine.checkpoints import latest_checkpoint
from eqzoo.engine.generator_training import check_decodable, latents_card
from eqzoo.engine.preflight import check_ready
from eqzoo.generators.base import Generator
from eqzoo.images import to_float, to_uint8
from eqzoo.normalization import normalization_difference
from eqzoo.randomness import SampleStreams, Stream, seeded
from eqzoo.registry import build
from eqzoo.text import shell_word

Labels = Literal['random', 'balanced'] | Sequence[int]

# Arguments of parts of a generator that change its samples, and cannot be seen in weights.
_NOT_IN_WEIGHTS = {
    'process': ('type', 'path', 'prediction', 'network_time', 'num_steps', 'schedule'),
    'network': ('size', 'tap'),
}


class ImageSampler:
    """Image sampler: draws latents or codes from a generator and decodes them.

    Args:
        generator: Trained, in evaluation mode.
        autoencoder: The autoencoder of the latents or codes.
        sampler: Draws from the generator.
        labels: The samples' classes; see `label_of`.
        seed: The samples' seed.
        precision: 'bf16' runs the generator's network under autocast; latents are decoded in float32.
        given: The codes that samples begin with, by their numbers; see `Inpainting`.

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
        given: Callable[[Sequence[int]], Tensor] | None = None,
    ) -> None:
        if precision not in ('fp32', 'bf16'):
            raise ValueError(f"sampling.precision must be 'fp32' or 'bf16', got {precision!r}.")
        check_decodable(generator, autoencoder)
        check_sampled_labels(labels, generator.num_classes)
        sampler.check(generator)
        self.generator, self.autoencoder, self.sampler = generator, autoencoder, sampler
        self.labels, self.seed, self.precision, self.given = labels, seed, precision, given

    @property
    def image_size(self) -> int:
        """Side of the samples, in pixels."""
        return self.generator.latent_shape[-1] * self.autoencoder.downsample_factor

    def labels_of(self, numbers: Sequence[int]) -> Tensor:
        """Return the classes (B,) of the samples `numbers`."""
        found = [label_of(number, self.labels, self.generator.num_classes, self.seed) for number in numbers]
        return torch.tensor(found, dtype=torch.int64)

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """Return the samples `numbers` as images (B, 3, H, W), uint8, on the generator's device.

        Raises:
            ValueError: If a decoded pixel is NaN or infinite.
        """
        return self.decode(self.sample(numbers), numbers)

    @torch.no_grad()
    def sample(self, numbers: Sequence[int]) -> Tensor:
        """Return the samples `numbers` before decoding: latents (B, C, h, w) in generator units, or codes (B, h, w).

        Raises:
            ValueError: If a latent is NaN or infinite.
        """
        device = next(self.generator.parameters()).device
        streams = SampleStreams(self.seed, torch.tensor(numbers))
        given = {} if self.given is None else dict(codes=self.given(numbers).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == 'bf16'):
            drawn = self.sampler(self.generator, self.labels_of(numbers).to(device), streams, **given)
        if self.generator.learns == 'codes':
            return drawn
        _check_finite_samples('latents', drawn, numbers)
        return drawn.float()

    @torch.no_grad()
    def decode(self, drawn: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the images (B, 3, H, W), uint8, of the samples `numbers`, as `sample` returned them.

        Raises:
            ValueError: If a decoded pixel is NaN or infinite.
        """
        if self.generator.learns == 'codes':
            images = self.autoencoder.decode_tokens(drawn)
        else:
            images = self.autoencoder.decode(self.autoencoder.normalization.denormalize(drawn))
        _check_finite_samples('pixels', images, numbers)  # as uint8 they would look like any other image
        return to_uint8(images)


class Inpainting:
    """The codes of images with those of a box masked, for a sampler of codes to draw.

    Sample n has the codes of image n, and of image n - N from number N on. A code is drawn if the box touches its cell.
    Codes beside the box may depend on pixels inside it, as far as the encoder sees, and the decoded image differs from
    the original outside the box, too, as any reconstruction does.

    Args:
        generator: A generator of codes.
        autoencoder: The autoencoder of the codes.
        root: A folder or zip of images; they are cropped to the size of the samples.
        box: (top, left, bottom, right), as shares of the image's sides.

    Raises:
        ValueError: If the generator makes no codes, there are no images, or the box is empty.
    """

    def __init__(
        self, generator: Generator, autoencoder: Autoencoder, root: str, box: tuple[float, float, float, float]
    ) -> None:
        top, left, bottom, right = box
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            raise ValueError(
                f'sampling.inpaint.box: got {tuple(box)}; expected (top, left, bottom, right) as shares of the sides, '
                'from 0 to 1, with top < bottom and left < right.'
            )
        if generator.learns != 'codes':
            raise ValueError(
                f'sampling.inpaint: {type(generator).__name__} makes {generator.learns}; expected a generator of '
                'codes, MaskGIT.'
            )
        self.generator, self.autoencoder = generator, autoencoder
        rows, columns = generator.latent_shape
        self.rows = slice(math.floor(top * rows), math.ceil(bottom * rows))
        self.columns = slice(math.floor(left * columns), math.ceil(right * columns))
        self.images = ImageFolder(root, rows * autoencoder.downsample_factor, on_unreadable='fail')

    @torch.no_grad()
    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """Return the codes (B, h, w) of the samples `numbers`; K, the network's `mask_code`, inside the box.

        Raises:
            ValueError: If an image cannot be read.
        """
        device = self.autoencoder.last_layer.device
        images = torch.stack([self.images[number % len(self.images)]['image'] for number in numbers])
        codes = self.autoencoder.tokens(to_float(images.to(device)))
        codes[:, self.rows, self.columns] = self.generator.network.mask_code
        return codes


def _check_finite_samples(what: str, values: Tensor, numbers: Sequence[int]) -> None:
    finite = values.isfinite().flatten(1).all(dim=1).cpu()
    if not finite.all():
        number = next(number for number, is_finite in zip(numbers, finite.tolist(), strict=True) if not is_finite)
        raise ValueError(
            f'sampling: NaN or infinite values in the {what} of sample {number}; expected finite ones. The weights '
            'are damaged, training diverged, the guidance is too large, or the precision is too low (use '
            "sampling.precision='fp32')."
        )


def label_of(number: int, labels: Labels, num_classes: int, seed: int) -> int:
    """Return the class of sample `number`.

    Args:
        number: The sample's number, from 0.
        labels: 'random': any class, drawn by seed and number. 'balanced': 0 to K - 1, repeated. A list of
            classes: these, repeated.
        num_classes: K.
        seed: The samples' seed.
    """
    if labels == 'random':
        return int(torch.randint(num_classes, (), generator=seeded(seed, Stream.LABELS, number)))
    cycle = range(num_classes) if labels == 'balanced' else labels
    return cycle[number % len(cycle)]


def check_sampled_labels(labels: Labels, num_classes: int) -> None:
    """Check `sampling.labels` for a generator of `num_classes` classes.

    Raises:
        ValueError: Naming the classes that the generator does not have.
    """
    expected = f"expected 'random', 'balanced', or a list of classes, 0 to {num_classes - 1}"
    if isinstance(labels, str):
        if labels not in ('random', 'balanced'):
            raise ValueError(f'sampling.labels: got {labels!r}; {expected}.')
        return
    outside = [label for label in labels if not 0 <= label < num_classes]
    if outside or not labels:
        raise ValueError(f'sampling.labels: got {outside or "none"}; {expected}.')


def batches(numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    """Cut `numbers` into lists of `size`, the last one shorter."""
    for start in range(0, len(numbers), size):
        yield list(numbers[start : start + size])


def check_has_sampling(config: Config) -> None:
    """Check that a config describes a generator and how to sample from it.

    Raises:
        ValueError: If it does not.
    """
    if 'generator' not in config.model or config.get('sampling') is None:
        raise ValueError(
            f'{config.filename}: describes no samples; expected model.generator and '
            'sampling=dict(num_samples=…, batch_size=…, sampler=dict(type=…)); see configs/dit.'
        )


def generator_weights(config: Config, checkpoint: str | None) -> str:
    """Return the file of the generator's weights: `checkpoint`, the work directory's newest, or the config's own.

    Raises:
        ValueError: If there is none.
    """
    latest = latest_checkpoint(config.work_dir)
    network = config.model.generator.network
    # then the config's own weights are those of another network, to begin with
    adapted = bool(network.get('adapt') or network.get('weights_grid'))
    chosen = checkpoint or (str(latest) if latest else None if adapted else network.get('weights'))
    if not chosen:
        reason = 'adapts the weights of another network' if adapted else 'names no weights'
        raise ValueError(
            f'Nothing to sample from: {config.work_dir} has no checkpoint and model.generator.network {reason}. '
            f'Train first (python tools/train.py {shell_word(config.filename)}) or give a CHECKPOINT.'
        )
    return chosen


def check_sampling_ready(config: Config, weights: str, command: str, *, more: Mapping[str, Any] | None = None) -> None:
    """Check that everything is there that sampling needs; training may need more.

    Args:
        config: The config of a generator.
        weights: The file of the generator's weights.
        command: The command that was given, for the message.
        more: Further parts of the config that are needed, by name.

    Raises:
        ValueError: Naming everything that is missing.
    """
    generator = {key: value for key, value in config.model.generator.items() if key != 'encoder'}
    generator['network'] = {**generator['network'], 'weights': weights}
    generator['network'].pop('adapt', None)  # `weights` are the fine-tuned ones
    autoencoder = decoder_config(config, weights)
    parts = dict(generator=generator, autoencoder=autoencoder, sampling=config.sampling, **(more or {}))
    check_ready(Config(parts, filename=config.filename), command, tuple(parts))


def build_image_sampler(config: Config, weights: str) -> ImageSampler:
    """Build the image sampler of a generator's config, with the generator's weights of the file `weights`.

    Raises:
        ValueError: If the parts do not fit, or if the generator learned other latents than the autoencoder's.
    """
    generator_config = config.model.generator.to_dict()
    generator_config.pop('encoder', None)  # only training looks at images
    for key in ('weights', 'adapt'):
        generator_config['network'].pop(key, None)
    generator = build(generator_config).eval()
    stored = load_generator(generator.network, weights)
    _check_generator(stored.config, generator_config, weights)
    autoencoder = build(decoder_config(config, weights)).eval()
    if stored.latents is not None:
        _check_latents(stored.latents, autoencoder, weights)
    elif not autoencoder.has_codebook and not autoencoder.normalization.changes_latents:
        say_once(
            f'{weights}: the generator does not say which latents it learned, and the autoencoder states no mean and '
            'scale: samples are decoded as they are. If they look grey or wild, give model.autoencoder what the '
            'generator was trained with (tools/latent_stats.py, docs/generators.md).'
        )
    sampling = config.sampling
    generator = generator.requires_grad_(False).to(get_device())
    autoencoder = autoencoder.requires_grad_(False).to(get_device())
    return ImageSampler(
        generator,
        autoencoder,
        build(sampling.sampler),
        labels=sampling.get('labels', 'random'),
        seed=sampling.get('seed', 0),
        precision=sampling.get('precision', 'fp32'),
        given=Inpainting(generator, autoencoder, **sampling.inpaint) if sampling.get('inpaint') else None,
    )


def decoder_config(config: Config, weights: str) -> dict[str, Any]:
    """Return the config of the autoencoder that decodes samples; of joint training, it is in the generator's file."""
    autoencoder = config.model.autoencoder
    return {**autoencoder, 'weights': weights} if trains_autoencoder(config.model) else autoencoder


def identity(config: Config) -> dict[str, Any]:
    """Return how samples are drawn, for metric cards: it must be equal for two sets of samples to be compared."""
    sampling = config.sampling
    return dict(
        kind='samples',
        sampler=plain_config(sampling.sampler),
        labels=sampling.get('labels', 'random'),
        seed=sampling.get('seed', 0),
        precision=sampling.get('precision', 'fp32'),
        num_images=sampling.num_samples,
        **(
            {'inpaint': dict(root=sampling.inpaint.root, box=list(sampling.inpaint.box))}
            if sampling.get('inpaint')
            else {}
        ),
    )


def claim_sample_files(out: str, config: Config, weights: str, autoencoder: Autoencoder) -> PngSamples | NpzSamples:
    """Open the files for the samples of `config`, and write the card that says how they are drawn.

    Args:
        out: A folder, or an npz file.
        config: Of the generator.
        weights: The file of the generator's weights.
        autoencoder: It decodes the samples.

    Raises:
        ValueError: If `out` has other samples.
    """
    plan = {**identity(config), 'weights_sha256': weights_sha256(weights), 'decoder': latents_card(autoencoder)}
    if process := config.model.generator.get('process'):
        plan['process'] = plain_config(process)
    del plan['num_images']  # more samples may be added later
    check_card(out, plan)
    wait_for_all()  # the card is written after every process has looked for one
    if rank_and_world_size()[0] == 0:
        write_card(out, {'plan': plan, 'weights': weights, 'eqzoo': __version__, 'torch': torch.__version__})
    return open_sample_files(out)


def _check_generator(stated: Mapping[str, Any] | None, config: Mapping[str, Any], weights: str) -> None:
    """Check what leaves no trace in weights: how the generator's process and attention were trained."""
    for part, keys in _NOT_IN_WEIGHTS.items():
        theirs, ours = (each.get(part) for each in (stated or {}, config))
        if not (isinstance(theirs, Mapping) and isinstance(ours, Mapping)):
            continue
        ours = plain_config(ours)
        for key in keys:
            values = [_value_of(key, each) for each in (theirs, ours)]
            if None not in values and values[0] != values[1]:
                raise ValueError(
                    f'{weights}: the generator was trained with {part}.{key} {theirs[key]!r}, the config has '
                    f'{ours[key]!r}; set model.generator.{part}.{key} to the former.'
                )


def _value_of(key: str, arguments: Mapping[str, Any]) -> Any:
    """Return an argument: a size by its numbers, if they are known, and a type without its module."""
    value = arguments.get(key)
    if not isinstance(value, str):
        return value
    if key == 'size':
        return list(SIZES[value]) if value in SIZES else None  # names of other networks' sizes mean several
    return value.rpartition('.')[2] if key == 'type' else value


def _check_latents(theirs: Mapping[str, Any], autoencoder: Autoencoder, weights: str) -> None:
    """Check that the generator learned the latents of this autoencoder."""
    ours = latents_card(autoencoder)
    if theirs['autoencoder'] != ours['autoencoder']:
        raise ValueError(
            f'{weights}: the generator learned latents of the autoencoder {theirs["autoencoder"][:12]}…, the config '
            f'has {ours["autoencoder"][:12]}…; set model.autoencoder.weights to those it was trained with.'
        )
    name = normalization_difference(theirs, ours)
    if name is not None:
        raise ValueError(
            f'{weights}: its latents were normalised with {name} {theirs[name]}, the autoencoder of the config has '
            f'{ours[name]}; set {name} of model.autoencoder to the former.'
        )
