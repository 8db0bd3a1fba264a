"""Joint training of an autoencoder and a generator of its latents: REPA-E (arXiv 2504.10483)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eqzoo.autoencoders import Autoencoder
from eqzoo.data.latents import LatentDataset
from eqzoo.distributed import all_reduce
from eqzoo.engine.autoencoder_training import AutoencoderTraining, gradients_off
from eqzoo.engine.generator_training import (
    bytes_kept_by,
    check_classes,
    check_decodable,
    describe_generator,
    latents_card,
    plain_generator,
)
from eqzoo.engine.optimizers import OptimWrapper
from eqzoo.engine.training import add_to_means
from eqzoo.generators.base import Generator
from eqzoo.losses import AdversarialLoss, ReconstructionLoss
from eqzoo.normalization import LatentNormalization
from eqzoo.precision import to_double
from eqzoo.randomness import StepRandomness
from eqzoo.registry import MODELS, Corruption, Objective, Penalty
from eqzoo.registry.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Range
from eqzoo.regularizers import LatentStep

_EPSILON = 1e-4  # added to the variance of a batch, as in the release's batch norm


@MODELS.register_module()
class JointTraining(AutoencoderTraining):
    """An autoencoder and a REPA generator that are trained together, each by its own optimizer (REPA-E, Sec. 3).

    With the autoencoder's weights φ, the generator's θ and its projectors' ω, the paper's loss is
    L(θ, φ, ω) = L_DIFF(θ) + λ L_REPA(θ, φ, ω) + η L_REG(φ). A step takes it in three updates, on one draw of latents,
    times and noise:

    1. φ, by L_REG, which is the whole loss of `AutoencoderTraining`, plus `alignment_weight` · L_REPA through a fixed
       generator, whose input is normalised by the running statistics. No label is dropped.
    2. The discriminator, on the same reconstructions.
    3. θ and ω, by the generator's own loss, L_DIFF + `generator.weight` · L_REPA, on the same latents as constants,
       normalised by the mean and variance of the whole batch: no gradient of L_DIFF reaches φ.

    Normalisation is a batch norm without weights. Its running statistics are the autoencoder's
    `LatentNormalization`, so that checkpoints, samplers and exports have them as any autoencoder's.

    Differs from the released code: that adds 1e-4 to the running variance in update 1, though not when it samples; and
    it averages the generator's weights only, where `EMAHook` averages both models'.

    Args:
        autoencoder: The autoencoder, whose normalisation is where the running statistics start.
        generator: A `REPA`, whose encoder sees the images.
        objective: See `AutoencoderTraining`, also for the next four. The generator learns the latents of the images
            themselves; in a step whose objective encodes others, such as smaller ones, these are encoded too.
        reconstruction_loss: The loss between target and reconstruction.
        corruptions: What happens to latents before they are decoded; the generator's are not corrupted.
        penalties: Terms of the loss on the latents.
        adversarial_loss: The discriminator and its losses, if any.
        encoder_rate: The encoder's learning rate as a share of the optimizer's.
        alignment_weight: Factor of the alignment loss for the autoencoder, 1.5 in the paper. The generator has its
            own, `generator.weight`.
        momentum: The share of a batch in the running statistics.
        micro_batch_size: See `Training`. Statistics are those of the whole batch, however it is cut.
        precision: See `Training`.
        on_nonfinite: See `Training`.

    Raises:
        ValueError: If the parts do not fit.
    """

    subjects = ('autoencoder', 'generator')

    def __init__(
        self,
        autoencoder: Autoencoder,
        generator: Generator,
        objective: Objective,
        *,
        reconstruction_loss: ReconstructionLoss,
        corruptions: Sequence[Corruption] = (),
        penalties: Sequence[Penalty] = (),
        adversarial_loss: AdversarialLoss | None = None,
        encoder_rate: PositiveFloat = 1.0,
        alignment_weight: NonNegativeFloat = 1.5,
        momentum: Annotated[float, Range(above=0, at_most=1)] = 0.1,
        micro_batch_size: PositiveInt | None = None,
        precision: Literal['fp32', 'bf16'] = 'fp32',
        on_nonfinite: Literal['stop', 'skip'] = 'stop',
    ) -> None:
        super().__init__(
            autoencoder,
            objective,
            reconstruction_loss=reconstruction_loss,
            corruptions=corruptions,
            penalties=penalties,
            adversarial_loss=adversarial_loss,
            encoder_rate=encoder_rate,
            micro_batch_size=micro_batch_size,
            precision=precision,
            on_nonfinite=on_nonfinite,
        )
        if not hasattr(generator, 'alignment'):
            raise ValueError(
                f'JointTraining.generator: got {type(generator).__name__}, which has no alignment loss for the '
                "autoencoder to learn by; expected type='REPA'."
            )
        if generator.encoder is None:
            raise ValueError(
                'JointTraining.generator: REPA has no encoder, and images come without stored features; set '
                "model.generator.encoder, such as dict(type='DINOv2Tokens')."
            )
        if autoencoder.has_codebook:
            raise ValueError(
                f'JointTraining.autoencoder: {type(autoencoder).__name__} has a codebook, through which the generator '
                'would not see its latents; expected an autoencoder without one, such as KLAutoencoder.'
            )
        check_decodable(generator, autoencoder)
        self.generator = generator
        self.alignment_weight = alignment_weight
        self.momentum = momentum
        self._pieces: list[dict[str, Tensor]] = []

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the optimizers 'autoencoder', 'discriminator' if there is one, and 'generator'."""
        return {**super().parameter_groups(), 'generator': [p for p in self.generator.parameters() if p.requires_grad]}

    def check_data(self, dataset: Dataset) -> None:
        """Check that the training data are images, of the generator's latents and classes.

        Raises:
            ValueError: If they are not.
        """
        if isinstance(dataset, LatentDataset):
            raise ValueError(
                f'train_dataloader.dataset: {type(dataset).__name__} has latents of a fixed autoencoder; JointTraining '
                'trains the autoencoder too; expected images, such as an ImageFolder.'
            )
        super().check_data(dataset)
        side, classes = getattr(dataset, 'size', None), getattr(dataset, 'classes', None)
        if side is not None and (grid := self.autoencoder.grid(side, side)) != self.generator.latent_shape[1:]:
            raise ValueError(
                f'train_dataloader.dataset: images of {side} pixels have latents of {grid[0]} x {grid[1]} cells; the '
                f'network is for {self.generator.latent_shape[1]} x {self.generator.latent_shape[2]}; set '
                f'model.generator.network.latent_size={grid[0]}, or another size of the images.'
            )
        if classes is not None:
            check_classes(len(classes), self.generator)

    def kept_bytes(self, dataset: Dataset) -> int:
        """Return the bytes that a step keeps of one image at least: the updates come one after the other."""
        return max(super().kept_bytes(dataset), bytes_kept_by(self.generator))

    def train_step(
        self, batch: Mapping[str, Any], optimizers: Mapping[str, OptimWrapper], randomness: StepRandomness
    ) -> dict[str, Tensor]:
        """Update the autoencoder, the discriminator and the generator.

        Args:
            batch: As of `AutoencoderTraining`, with `labels` (B,).
            optimizers: One for each of `parameter_groups`.
            randomness: The step's streams.

        Returns:
            Scalars for the log. Those of the generator's update begin with 'generator_'; 'alignment' is the weighted
            term of the autoencoder's loss.

        Raises:
            ValueError: If the batch has no labels.
        """
        if batch.get('labels') is None:
            raise ValueError(
                'JointTraining: the images have no labels, by which the generator is conditioned; expected a data set '
                'with classes, such as an ImageFolder with a folder for each.'
            )
        self._pieces = []
        self.generator.eval()
        with gradients_off(self.generator):
            log = super().train_step(batch, optimizers, randomness)
        self.generator.train()
        pieces, self._pieces = self._pieces, []
        mean, variance, count = moments_of_batch([piece['latents'] for piece in pieces])
        follow(self.autoencoder.normalization, mean, variance * count / (count - 1).clamp(min=1), self.momentum)
        shift, scale = (each.to(self._device, torch.float32) for each in (mean, (variance + _EPSILON).rsqrt()))
        means: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self._device))
        micro_batches = [each for each in self.micro_batches(batch) if each.share]
        for piece, (part, share, is_last) in zip(pieces, micro_batches, strict=True):
            latents = (piece['latents'] - shift[:, None, None]) * scale[:, None, None]
            with self.autocast(self._device):
                losses = self.generator.loss({**piece, 'latents': latents}, randomness.streams(batch['draws'][part]))
            self.backward(losses['loss'] * share, optimizers['generator'], is_last=is_last)
            add_to_means(means, losses, share)
        updated = self.update(optimizers['generator'])
        return {**log, **{f'generator_{name}': value for name, value in {**means, **updated}.items()}}

    def add_terms(
        self, step: LatentStep, images: Tensor, batch: Mapping[str, Any], part: slice, randomness: StepRandomness
    ) -> None:
        """Add the alignment loss to `step.penalties`, and keep the latents for the generator's update."""
        draws = batch['draws'][part]
        latents = step.latents
        if step.images is not images:
            latents = LatentStep(self.autoencoder, randomness.noise(draws)).encode(images)
        piece = {name: batch[name][part].to(self._device, non_blocking=True) for name in ('images', 'labels')}
        piece = {'labels': piece['labels'], 'features': self.generator.features(piece)}
        normalized = self.autoencoder.normalization.normalize(latents)
        alignment = self.generator.alignment({**piece, 'latents': normalized}, randomness.streams(draws))
        step.penalties['alignment'] = self.alignment_weight * alignment
        if not self.is_repeating:
            self._pieces.append({**piece, 'latents': latents.detach()})

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of the autoencoder and of the generator's network."""
        return [*super().blocks(), *self.generator.network.blocks]

    def describe(self) -> dict[str, str]:
        """Return a few lines about both models, by title."""
        weights = f'{self.alignment_weight:g} for the autoencoder, {self.generator.weight:g} for the generator'
        return {**super().describe(), **describe_generator(self.generator), 'alignment': weights}

    def stored_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configs of both models, and the card of the latents, those of the autoencoder in the same file."""
        generator = plain_generator(config['generator'])
        return {**super().stored_config(config), 'generator': generator, 'latents': latents_card(self.autoencoder)}


def moments_of_batch(latents: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), variance (C,) about it and number of cells of latents (B, C, h, w) of all processes, float64.

    Args:
        latents: The micro-batches of this process.
    """
    sums = []
    for each in map(to_double, latents):
        cells = each.new_full((1,), each[:, 0].numel())
        sums.append(torch.cat([each.sum((0, 2, 3)), each.square().sum((0, 2, 3)), cells]))
    total = torch.stack(sums).sum(dim=0)
    all_reduce(total)
    channels = latents[0].shape[1]
    value, square, count = total.split([channels, channels, 1])
    mean = value / count
    return mean, (square / count - mean.square()).clamp(min=0), count


@torch.no_grad()
def follow(normalization: LatentNormalization, mean: Tensor, variance: Tensor, momentum: float) -> None:
    """Move a normalisation's mean and variance towards those of a batch, as a batch norm's running statistics.

    Moments that are not finite, or would leave no spread, change nothing.

    Args:
        normalization: Changed in place.
        mean: (C,).
        variance: (C,), unbiased.
        momentum: The batch's share.
    """
    old = [to_double(each) for each in (normalization.shift, normalization.scale)]
    shift = torch.lerp(old[0], mean.to(old[0]), momentum)
    scale = torch.lerp(old[1] ** -2, variance.to(old[1]), momentum).rsqrt()
    is_usable = (shift.isfinite() & scale.isfinite() & (scale > 0)).all()
    for buffer, before, after in zip((normalization.shift, normalization.scale), old, (shift, scale), strict=True):
        buffer.copy_(torch.where(is_usable, after, before))
