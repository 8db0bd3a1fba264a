"""Training of generators, on the latents of a fixed autoencoder."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eqzoo.autoencoders import Autoencoder
from eqzoo.checkpoints.autoencoder import autoencoder_digest
from eqzoo.checkpoints.config import plain_config
from eqzoo.data.latents import LatentDataset
from eqzoo.engine.optimizers import OptimWrapper
from eqzoo.engine.training import Training, add_to_means, bytes_kept
from eqzoo.generators.base import Generator, count_macs
from eqzoo.randomness import SampleStreams, StepRandomness
from eqzoo.registry import MODELS
from eqzoo.registry.ranges import PositiveInt
from eqzoo.text import counted


@MODELS.register_module()
class GeneratorTraining(Training):
    """A generator, and the autoencoder whose latents it learns.

    The autoencoder stays out of the parameters, the state dict and the moving average: it only decodes
    samples, and identifies latents as its own.

    Args:
        generator: The generator being trained.
        autoencoder: The autoencoder of the latents.
        micro_batch_size: See `Training`.
        precision: See `Training`.
        on_nonfinite: See `Training`.

    Raises:
        ValueError: If the autoencoder cannot decode what the generator makes.
    """

    subjects = ('generator',)

    def __init__(
        self,
        generator: Generator,
        autoencoder: Autoencoder,
        *,
        micro_batch_size: PositiveInt | None = None,
        precision: Literal['fp32', 'bf16'] = 'fp32',
        on_nonfinite: Literal['stop', 'skip'] = 'stop',
    ) -> None:
        super().__init__(micro_batch_size, precision, on_nonfinite)
        check_decodable(generator, autoencoder)
        self.generator = generator
        self._outside = (autoencoder.requires_grad_(False).eval(),)  # nn.Module does not look inside a tuple

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder, on the generator's device."""
        return self._outside[0].to(self.device)

    @property
    def device(self) -> torch.device:
        """The device of the generator's weights."""
        return next(self.generator.parameters()).device

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the one optimizer, 'generator'."""
        return {'generator': [p for p in self.generator.parameters() if p.requires_grad]}

    def train_step(
        self, batch: Mapping[str, Any], optimizers: Mapping[str, OptimWrapper], randomness: StepRandomness
    ) -> dict[str, Tensor]:
        """Update the generator.

        Latents are drawn from their posteriors in every step, `mean + std * noise`. All randomness
        comes from the streams of the batch's draws.

        Args:
            batch: A batch of a `LatentDataset`.
            optimizers: The optimizer 'generator'.
            randomness: The step's streams.
        """
        log: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for part, share, is_last in self.micro_batches(batch):
            streams = randomness.streams(batch['draws'][part])
            piece = self._draw_latents(
                {name: value[part] for name, value in batch.items() if torch.is_tensor(value)}, streams
            )
            with self.autocast(self.device):
                losses = self.generator.loss(piece, streams)
            self.backward(losses['loss'] * share, optimizers['generator'], is_last=is_last)
            add_to_means(log, losses, share)
        return {**log, **self.update(optimizers['generator'])}

    def blocks(self) -> list[nn.Module]:
        """Return the network's blocks."""
        return list(self.generator.network.blocks)

    def describe(self) -> dict[str, str]:
        """Return a few lines about the model, by title."""
        autoencoder = f'{type(self.autoencoder).__name__}, f{self.autoencoder.downsample_factor}'
        return {**describe_generator(self.generator), 'autoencoder': autoencoder}

    def stored_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the generator's config, and the card of the latents that it makes."""
        return {'generator': plain_generator(config['generator']), 'latents': self._latents}

    def check_data(self, dataset: Dataset) -> None:
        """Check that the latents are of this autoencoder, and of the network's size and number of classes.

        Raises:
            ValueError: Naming the difference.
        """
        if not isinstance(dataset, LatentDataset):
            raise ValueError(
                f'train_dataloader.dataset: {type(dataset).__name__} has no latents; a generator learns from a '
                'LatentStore, which python tools/cache_latents.py CONFIG writes, LightningDiTLatents or NpyLatents.'
            )
        kinds = {'latents': 'moments', 'codes': 'codes'}
        wanted = kinds[self.generator.learns]
        if dataset.kind != wanted:
            raise ValueError(
                f'train_dataloader.dataset has {dataset.kind}; {type(self.generator).__name__} learns {wanted}; '
                'take a generator for these, or the latents of another autoencoder.'
            )
        shape, arguments = self.generator.latent_shape, {'latents': 'latent_channels and latent_size', 'codes': 'grid'}
        if dataset.latent_shape != shape:
            raise ValueError(
                f'train_dataloader.dataset has {self.generator.learns} {_format_shape(dataset.latent_shape)}; the '
                f'network is for {_format_shape(shape)}; set {arguments[self.generator.learns]} of '
                'model.generator.network to the former.'
            )
        if wanted == 'codes' and dataset.num_codes != self.generator.num_codes:
            raise ValueError(
                f'train_dataloader.dataset has codes of a codebook of {dataset.num_codes:,}; the network is for '
                f'{self.generator.num_codes:,}; set model.generator.network.num_codes={dataset.num_codes}.'
            )
        check_classes(dataset.num_classes, self.generator)
        normalization = self.autoencoder.normalization
        dataset.check_autoencoder(self._latents['autoencoder'], normalization.shift, normalization.scale)

    def kept_bytes(self, dataset: Dataset) -> int:
        """Return the bytes that the network keeps of one latent in a step; 0 for a user's own network."""
        return bytes_kept_by(self.generator)

    @cached_property
    def _latents(self) -> dict[str, Any]:
        """The card of the latents, computed once: the autoencoder does not change."""
        return latents_card(self.autoencoder)

    def _draw_latents(self, piece: dict[str, Tensor], streams: SampleStreams) -> dict[str, Tensor]:
        """Return a micro-batch on the generator's device, with latents drawn from their posteriors."""
        piece = {name: value.to(self.device, non_blocking=True) for name, value in piece.items()}
        if 'mean' in piece:
            latents, std = piece.pop('mean'), piece.pop('std', None)
            piece['latents'] = latents if std is None else torch.addcmul(latents, std, streams.normal(latents))
        return piece


def check_decodable(generator: Generator, autoencoder: Autoencoder) -> None:
    """Check that the autoencoder can decode the generator's latents or codes.

    Raises:
        ValueError: If the numbers of channels or codes differ, or there is no codebook for a generator of codes.
    """
    if generator.learns == 'codes' and not autoencoder.has_codebook:
        raise ValueError(
            f'{type(generator).__name__} makes codes, and {type(autoencoder).__name__} has no codebook; take an '
            'autoencoder with one, or a generator of latents.'
        )
    if generator.learns == 'codes' and generator.num_codes != autoencoder.num_codes:
        raise ValueError(
            f'the generator makes {generator.num_codes:,} codes, {type(autoencoder).__name__} has '
            f'{autoencoder.num_codes:,}; set model.generator.network.num_codes={autoencoder.num_codes}.'
        )
    if generator.learns == 'latents' and generator.latent_shape[0] != autoencoder.latent_channels:
        raise ValueError(
            f'the generator makes latents of {generator.latent_shape[0]} channels, {type(autoencoder).__name__} has '
            f'{autoencoder.latent_channels}; set model.generator.network.latent_channels={autoencoder.latent_channels}.'
        )


def check_classes(num_classes: int, generator: Generator) -> None:
    """Check that the network has all classes of the data.

    Raises:
        ValueError: If it has fewer.
    """
    if num_classes > generator.num_classes:
        raise ValueError(
            f'train_dataloader.dataset has {counted(num_classes, "class")}, labels 0 to {num_classes - 1}; '
            f'the network has {generator.num_classes}; set model.generator.network.num_classes to {num_classes}.'
        )


def bytes_kept_by(generator: Generator) -> int:
    """Return the bytes that the network keeps of one latent in a step; 0 for a user's own network."""
    network = generator.network
    if not type(network).__module__.startswith('eqzoo.'):
        return 0
    inputs = [each.to('meta') for each in network.example_inputs()]
    return bytes_kept(network, *inputs) // len(inputs[0])


def describe_generator(generator: Generator) -> dict[str, str]:
    """Return a line about a generator and one about its network."""
    network = generator.network
    size = sum(parameter.numel() for parameter in network.parameters())
    learns = f'{generator.learns} {_format_shape(network.latent_shape)}'
    adapted = getattr(network, 'adapted', None)  # by `load_adapted`; None where nothing was to be resized
    return {
        'generator': f'{type(generator).__name__} of {learns} and {counted(network.num_classes, "class")}',
        'network': f'{type(network).__name__}, {size:,} parameters, {count_macs(network) / 1e9:.2f} GMACs',
        **({'adapted weights': '; '.join(adapted) or 'none: all fit as they are'} if adapted is not None else {}),
    }


def plain_generator(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a generator's config as plain data, without the encoder, which only training needs."""
    generator = {key: value for key, value in config.items() if key != 'encoder'}
    generator['network'] = plain_config(generator['network'])
    return plain_config(generator)


def latents_card(autoencoder: Autoencoder) -> dict[str, Any]:
    """Return plain data that identifies the latents of an autoencoder: its hash, shift and scale."""
    normalization = autoencoder.normalization
    return {
        'autoencoder': autoencoder_digest(autoencoder),
        'shift': normalization.shift.tolist(),
        'scale': normalization.scale.tolist(),
    }


def _format_shape(shape: tuple[int, ...]) -> str:
    return ' x '.join(map(str, shape))
