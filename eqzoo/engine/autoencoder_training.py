"""Training of autoencoders: one draw and one forward pass serve both optimizers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from eqzoo.checkpoints.config import plain_config
from eqzoo.data.loaders import image_sizes
from eqzoo.engine.evaluation import autoencoder_view
from eqzoo.engine.optimizers import OptimWrapper
from eqzoo.engine.training import Training, add_to_means, bytes_kept, recompute_blocks
from eqzoo.evaluators.base import AutoencoderView
from eqzoo.images import to_float
from eqzoo.losses import AdversarialLoss, ReconstructionLoss
from eqzoo.randomness import SampleStreams, StepRandomness
from eqzoo.registry import MODELS, Corruption, Objective, Penalty
from eqzoo.registry.ranges import NonNegativeFloat, PositiveInt
from eqzoo.regularizers import LatentStep, ReconstructionPair
from eqzoo.transforms.scale import has_scales


class Draws(NamedTuple):
    """The draws of a step, for all its samples: the objective's branch and parameters, and each penalty's."""

    objective: Any
    penalties: list[Any]


@MODELS.register_module()
class AutoencoderTraining(Training):
    """An autoencoder with what regularises its latents, and its losses.

    A step makes one random draw for objective and penalties, and passes the images once through the autoencoder. It
    updates the autoencoder, and then the discriminator on the same reconstructions: x → posterior → z → corruptions →
    decoder → pairs of the objective, plus penalties.

    Differs from the released code: that runs the autoencoder again, with another draw, for the
    discriminator's update.

    Args:
        autoencoder: The network being trained.
        objective: Chooses the pairs of target and reconstruction that are compared.
        reconstruction_loss: The loss between the two of a pair.
        corruptions: What happens to latents before they are decoded, in this order.
        penalties: Terms of the loss on the latents; the KL divergence is one.
        adversarial_loss: The discriminator and its losses, if any.
        encoder_rate: The encoder's learning rate as a share of the optimizer's. 0 freezes it, with the 1x1 convolution
            and the codebook after it: only the decoder is trained, and latents stay the same to the bit.
        checkpointing: Whether the backward pass computes the activations of residual and attention blocks again: a
            third more time, a fraction of the memory (docs/scaling.md), and the same weights to the bit.
        channels_last: Whether the weights and activations of autoencoder and discriminator have their channels last in
            memory: on GPUs with tensor cores convolutions may be faster (docs/performance.md). Values differ by
            rounding. Checkpoints have the usual order.
        micro_batch_size: See `Training`.
        precision: See `Training`.
        on_nonfinite: See `Training`.

    Raises:
        ValueError: If a part does not fit the autoencoder, or could train nothing.
    """

    subjects = ('autoencoder',)

    def __init__(
        self,
        autoencoder: nn.Module,
        objective: Objective,
        *,
        reconstruction_loss: ReconstructionLoss,
        corruptions: Sequence[Corruption] = (),
        penalties: Sequence[Penalty] = (),
        adversarial_loss: AdversarialLoss | None = None,
        encoder_rate: NonNegativeFloat = 1.0,
        checkpointing: bool = False,
        channels_last: bool = False,
        micro_batch_size: PositiveInt | None = None,
        precision: Literal['fp32', 'bf16'] = 'fp32',
        on_nonfinite: Literal['stop', 'skip'] = 'stop',
    ) -> None:
        super().__init__(micro_batch_size, precision, on_nonfinite)
        if encoder_rate == 0 and penalties:
            names = ', '.join(type(each).__name__ for each in penalties)
            raise ValueError(
                f'AutoencoderTraining.encoder_rate: 0 freezes the encoder, and with it the latents that {names} would '
                'change; set model.penalties=[], or a rate above 0.'
            )
        for each in penalties:
            if getattr(objective, 'p_low_resolution', 0) and has_scales(getattr(each, 'transform', None)):
                raise ValueError(
                    f'{type(each).__name__}.transform: its scales are drawn for whole images, which the low-resolution '
                    f'branch of {type(objective).__name__} makes smaller; set model.objective.p_low_resolution=0, or '
                    'leave scales out of this transform.'
                )
        self.autoencoder = autoencoder
        self.objective = objective
        self.reconstruction_loss = reconstruction_loss
        self.corruptions = tuple(corruptions)
        self.penalties = tuple(penalties)
        self.adversarial_loss = adversarial_loss
        self.encoder_rate = encoder_rate
        for name, parts in (('objective', [objective]), ('corruption', corruptions), ('penalty', penalties)):
            for number, part in enumerate(parts):
                if hasattr(part, 'prepare'):
                    part.prepare(autoencoder)
                if isinstance(part, nn.Module) and name != 'objective':  # its weights are found under this name
                    self.add_module(f'{name}_{number}', part)
        if encoder_rate == 0:
            for part in self._encoder_parts():
                part.requires_grad_(False)
        if checkpointing:
            recompute_blocks(autoencoder)
        if channels_last:
            for part in (autoencoder, adversarial_loss):
                if part is not None:
                    put_channels_last(part)

    def train(self, mode: bool = True) -> 'AutoencoderTraining':
        """Set the mode; a frozen encoder stays in evaluation mode, where no statistics of batches move it."""
        super().train(mode)
        if self.encoder_rate == 0:
            for part in self._encoder_parts():
                part.eval()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the optimizer 'autoencoder', and of 'discriminator' if there is one."""
        parts = [self.autoencoder, self.objective, self.reconstruction_loss, *self.corruptions, *self.penalties]
        modules = [part for part in parts if isinstance(part, nn.Module)]
        groups = {'autoencoder': [p for module in modules for p in module.parameters() if p.requires_grad]}
        if self.adversarial_loss is not None:
            groups['discriminator'] = list(self.adversarial_loss.parameters())
        return groups

    def rate_factors(self) -> dict[nn.Parameter, float]:
        """Return `encoder_rate` for each parameter of the encoder, unless it is 1 or 0."""
        if self.encoder_rate in (0, 1):
            return {}
        return {p: self.encoder_rate for part in self._encoder_parts() for p in part.parameters()}

    def check_data(self, dataset: Dataset) -> None:
        """Check that the latents of the training images are large enough for all parts.

        Raises:
            ValueError: If they are not.
        """
        parts = [each for each in (self.objective, *self.corruptions, *self.penalties) if hasattr(each, 'check_grid')]
        multiple, factor = getattr(dataset, 'multiple', None), self.autoencoder.downsample_factor
        if multiple is not None and multiple % factor:
            raise ValueError(
                f'train_dataloader.dataset.multiple: got {multiple}; expected a multiple of {factor}, the pixels a '
                f'side of a latent cell of {type(self.autoencoder).__name__}.'
            )
        for size in image_sizes(dataset):
            grid = self.autoencoder.grid(*size)
            for part in parts:
                part.check_grid(grid)

    def kept_bytes(self, dataset: Dataset) -> int:
        """Return the bytes that encoder and decoder keep of one image in a step; 0 for a user's own autoencoder."""
        sizes = image_sizes(dataset)
        if not sizes or not type(self.autoencoder).__module__.startswith('eqzoo.'):
            return 0
        largest = max(sizes, key=lambda size: size[0] * size[1])
        return bytes_kept(_ThereAndBack(self.autoencoder), torch.empty(1, 3, *largest, device='meta'))

    def train_step(
        self, batch: Mapping[str, Any], optimizers: Mapping[str, OptimWrapper], randomness: StepRandomness
    ) -> dict[str, Tensor]:
        """Update the autoencoder, then the discriminator.

        Args:
            batch: `images` (B, 3, H, W) uint8 and `draws` (B,), as `eqzoo.data.collate` makes them.
            optimizers: One for each of `parameter_groups`.
            randomness: The step's streams.

        Returns:
            Scalars for the log: the total loss, its parts, and the adaptive weight.
        """
        adversarial = self._active_adversarial(randomness.step)
        draws = self.draw(randomness, tuple(batch['images'].shape[-2:]))
        log: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self._device))
        main_pairs = []
        with gradients_off(self.adversarial_loss):
            for part, share, is_last in self.micro_batches(batch):
                self.is_repeating = share == 0
                images = to_float(batch['images'][part].to(self._device, non_blocking=True))
                with self.autocast(self._device):
                    step = self.latent_step(batch['draws'][part], randomness)
                    pairs = self.objective(step, images, draws.objective)
                    streams = self._augmentation(adversarial, batch['draws'][part], randomness)
                    self.add_terms(step, images, batch, part, randomness)
                    loss, parts = self.loss(step, pairs, draws.penalties, adversarial, streams)
                self.backward(loss * share, optimizers['autoencoder'], is_last=is_last)
                if self.is_repeating:  # a codebook's averages forget it too
                    self.autoencoder.finish_step(is_skipped=True)
                    continue
                add_to_means(log, parts, share)
                main_pairs.append((pairs[0].reconstruction.detach(), pairs[0].target.detach(), streams, share))
        log.update(updated := self.update(optimizers['autoencoder']))
        self.autoencoder.finish_step(is_skipped=bool(updated.get('skipped', False)))
        if adversarial is not None:
            for number, (reconstruction, target, streams, share) in enumerate(main_pairs, start=1):
                for part in adversarial.micro_batches(len(target)):
                    of_part = None if streams is None else streams[part]
                    with self.autocast(self._device):
                        loss, parts = adversarial.discriminator_loss(
                            reconstruction[part], target[part], of_part, randomness.step
                        )
                    weight = share * ((part.stop - part.start) / len(target))
                    is_last = number == len(main_pairs) and part.stop == len(target)
                    self.backward(loss * weight, optimizers['discriminator'], is_last=is_last)
                    add_to_means(log, {'discriminator_loss': loss, **parts}, weight)
            updated = self.update(optimizers['discriminator'])
            log.update({f'discriminator_{name}': value for name, value in updated.items()})
            adversarial.end_step(log['logits_real'], log['logits_fake'])
        return dict(log)

    def draw(self, randomness: StepRandomness, size: tuple[int, int]) -> Draws:
        """Make the random draws of a step on images of `size` (H, W), the same for all samples and processes."""
        generator, grid = randomness.shared(), self.autoencoder.grid(*size)
        of_objective = self.objective.sample(generator, grid)
        of_penalties = [each.sample(generator, grid) if hasattr(each, 'sample') else None for each in self.penalties]
        return Draws(of_objective, of_penalties)

    def latent_step(self, draws: Tensor, randomness: StepRandomness) -> LatentStep:
        """Return the way from images to reconstructions for the samples `draws` (B,)."""
        streams = randomness.corruption(draws) if len(self.corruptions) else None
        return LatentStep(self.autoencoder, randomness.noise(draws), self.corruptions, streams)

    def add_terms(
        self, step: LatentStep, images: Tensor, batch: Mapping[str, Any], part: slice, randomness: StepRandomness
    ) -> None:
        """Add terms of the loss that need more of the batch than its images to `step.penalties`; here, none.

        Args:
            step: After the objective has used it.
            images: The micro-batch (B, 3, H, W), float in [-1, 1].
            batch: The whole batch.
            part: The micro-batch's place in it.
            randomness: The step's streams.
        """

    def loss(
        self,
        step: LatentStep,
        pairs: Sequence[ReconstructionPair],
        draws: Sequence[Any],
        adversarial: AdversarialLoss | None,
        streams: SampleStreams | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the autoencoder's loss, a scalar, and its parts for the log.

        Args:
            step: After the objective has used it.
            pairs: The objective's.
            draws: Those of the penalties.
            adversarial: The adversarial loss of the main pair, if it has begun.
            streams: Its draws, if it augments.
        """
        loss, parts = self._reconstruction_loss(pairs)
        step.reconstruction_loss = loss
        terms = dict(step.penalties)
        for penalty, draw in zip(self.penalties, draws, strict=True):
            for name, term in penalty(step, draw).items():
                again = sum(each.split('.')[0] == name for each in terms)  # two penalties of one class
                terms[f'{name}.{again + 1}' if again else name] = term
        if adversarial is not None:
            terms['adversarial'], parts['adaptive_weight'] = adversarial.generator_loss(
                pairs[0].reconstruction, loss, self.autoencoder.last_layer, streams
            )
        total = loss + sum(terms.values())
        return total, {'loss': total, **parts, **step.log, **terms}

    def val_step(self, batch: Mapping[str, Any]) -> AutoencoderView:
        """Return the evaluators' view of a batch as in `train_step`."""
        return autoencoder_view(self.autoencoder, batch)

    def blocks(self) -> list[nn.Module]:
        """Return the autoencoder's blocks.

        The decoder's last convolution is not among them: a compiled module is a single node of autograd,
        so the adaptive weight's gradient at a layer inside it would run the whole backward pass twice a step.
        """
        return self.autoencoder.blocks()

    def describe(self) -> dict[str, str]:
        """Return a few lines about the model, by title."""
        network = self.autoencoder
        return {
            'autoencoder': f'{type(network).__name__}, f{network.downsample_factor}, '
            f'{network.latent_channels} channels',
            'objective': type(self.objective).__name__,
            **(
                {'corruptions': ', '.join(type(each).__name__ for each in self.corruptions)} if self.corruptions else {}
            ),
            **({'penalties': ', '.join(type(each).__name__ for each in self.penalties)} if self.penalties else {}),
            **({'encoder': _rate_in_words(self.encoder_rate)} if self.encoder_rate != 1 else {}),
        }

    def stored_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the autoencoder's config, with its padding, which cannot be inferred from the weights."""
        return {'autoencoder': plain_config(config['autoencoder'])}

    @property
    def _device(self) -> torch.device:
        return self.autoencoder.last_layer.device

    def _active_adversarial(self, step: int) -> AdversarialLoss | None:
        loss = self.adversarial_loss
        return loss if loss is not None and step >= loss.start_step else None

    @staticmethod
    def _augmentation(
        adversarial: AdversarialLoss | None, draws: Tensor, randomness: StepRandomness
    ) -> SampleStreams | None:
        augments = adversarial is not None and adversarial.augmentation is not None
        return randomness.augmentation(draws) if augments else None

    def _encoder_parts(self) -> list[nn.Module]:
        return [getattr(self.autoencoder, name) for name in self.autoencoder.encoder_parts]

    def _reconstruction_loss(self, pairs: Sequence[ReconstructionPair]) -> tuple[Tensor, dict[str, Tensor]]:
        (main, *others) = pairs
        loss, parts = self.reconstruction_loss(main.reconstruction, main.target)
        for pair in others:
            further, more = self.reconstruction_loss(pair.reconstruction, pair.target)
            loss = loss + pair.weight * further
            parts |= {f'{name}/{pair.name}': value for name, value in more.items()}
        return loss, parts


class _ThereAndBack(nn.Module):
    """Encode and decode, as one module."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstruction."""
        return self.autoencoder.decode_latents(self.autoencoder.encode(images).mean)


def _rate_in_words(rate: float) -> str:
    return f'at {rate:g} of the learning rate' if rate else 'frozen: only the decoder is trained'


@contextmanager
def gradients_off(module: nn.Module | None) -> Iterator[None]:
    """Keep gradients out of `module`, so that its own update does not contain those of the autoencoder's loss."""
    trained = [] if module is None else [each for each in module.parameters() if each.requires_grad]
    for each in trained:
        each.requires_grad_(False)
    yield
    for each in trained:
        each.requires_grad_(True)


def put_channels_last(network: nn.Module) -> None:
    """Lay the weights of 2D convolutions out channels last; torch's own way refuses networks that have others."""
    for each in (*network.parameters(), *network.buffers()):
        if each.ndim == 4:
            each.data = each.data.contiguous(memory_format=torch.channels_last)
