"""Training of autoencoders: one draw and one forward pass serve both optimizers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from eqzoo.checkpoints.config import plain_config
from eqzoo.engine.training import Training, add_to_means
from eqzoo.evaluators.base import AutoencoderView
from eqzoo.images import to_float
from eqzoo.losses import AdversarialLoss, ReconstructionLoss
from eqzoo.randomness import StepRandomness
from eqzoo.registry import MODELS, Objective
from eqzoo.regularizers import KLDivergence, ReconstructionPair


@MODELS.register_module()
class AutoencoderTraining(Training):
    """An autoencoder with its objective and losses.

    A step draws the objective's parameters once, runs the autoencoder once, updates it, and
    updates the discriminator on the same reconstructions.

    Differs from the released code: that runs the autoencoder again, with another draw, for the
    discriminator's update.

    Args:
        autoencoder: The network being trained.
        objective: Chooses the pair of images, reconstruction and target, that is compared.
        reconstruction_loss: The loss between the two.
        kl_loss: The loss on the posterior.
        adversarial_loss: The discriminator and its losses, if any.
        micro_batch_size: See `Training`.
        precision: See `Training`.
        on_nonfinite: See `Training`.
    """

    subject = 'autoencoder'

    def __init__(
        self,
        autoencoder: nn.Module,
        objective: Objective,
        *,
        reconstruction_loss: ReconstructionLoss,
        kl_loss: KLDivergence | None = None,
        adversarial_loss: AdversarialLoss | None = None,
        micro_batch_size: int | None = None,
        precision: Literal['fp32', 'bf16'] = 'fp32',
        on_nonfinite: Literal['stop', 'skip'] = 'stop',
    ) -> None:
        super().__init__(micro_batch_size, precision, on_nonfinite)
        if kl_loss is not None and not autoencoder.has_posterior:
            raise ValueError(
                f'AutoencoderTraining.kl_loss: {type(autoencoder).__name__} has no posterior; leave it out.'
            )
        if getattr(objective, 'act_on', None) == 'codes' and not autoencoder.has_codebook:
            raise ValueError(
                f"AutoencoderTraining.objective.act_on: got 'codes', but {type(autoencoder).__name__} has no codebook; "
                "use 'features'."
            )
        self.autoencoder = autoencoder
        self.objective = objective
        self.reconstruction_loss = reconstruction_loss
        self.kl_loss = kl_loss
        self.adversarial_loss = adversarial_loss

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the optimizer 'autoencoder', and of 'discriminator' if there is one."""
        modules = [self.autoencoder, self.reconstruction_loss]
        groups = {'autoencoder': [p for module in modules for p in module.parameters() if p.requires_grad]}
        if self.adversarial_loss is not None:
            groups['discriminator'] = list(self.adversarial_loss.parameters())
        return groups

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
        draw = self.objective.sample(randomness.shared(), self.autoencoder.grid(*batch['images'].shape[-2:]))
        log: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self._device))
        pairs = []
        with _gradients_off(self.adversarial_loss):
            for part, share in self.micro_batches(len(batch['images'])):
                images = to_float(batch['images'][part].to(self._device, non_blocking=True))
                with self.autocast(self._device):
                    pair = self.objective(self.autoencoder, images, draw, randomness.noise(batch['draws'][part]))
                    loss, parts = self._autoencoder_loss(pair, adversarial)
                (loss * share).backward()
                add_to_means(log, parts, share)
                pairs.append((pair.reconstruction.detach(), pair.target.detach(), share))
        log.update(self.update(optimizers['autoencoder']))
        if adversarial is not None:
            for reconstruction, target, share in pairs:
                with self.autocast(self._device):
                    loss, parts = adversarial.discriminator_loss(reconstruction, target)
                (loss * share).backward()
                add_to_means(log, {'discriminator_loss': loss, **parts}, share)
            updated = self.update(optimizers['discriminator'])
            log.update({f'discriminator_{name}': value for name, value in updated.items()})
        return dict(log)

    def val_step(self, batch: Mapping[str, Any]) -> AutoencoderView:
        """Return the evaluators' view of a batch as in `train_step`."""
        images = to_float(batch['images'].to(self._device))
        return AutoencoderView(self.autoencoder, images, batch['indices'], batch.get('labels'))

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

    def _autoencoder_loss(
        self, pair: ReconstructionPair, adversarial: AdversarialLoss | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = self.reconstruction_loss(pair.reconstruction, pair.target)
        terms = dict(pair.penalties)
        if self.kl_loss is not None:
            terms['kl'] = self.kl_loss(pair.posterior)
        if adversarial is not None:
            terms['adversarial'], parts['adaptive_weight'] = adversarial.generator_loss(
                pair.reconstruction, loss, self.autoencoder.last_layer
            )
        total = loss + sum(terms.values())
        return total, {'loss': total, **parts, **terms}


@contextmanager
def _gradients_off(module: nn.Module | None) -> Iterator[None]:
    """Keep gradients out of `module`, so that its own update does not contain those of the autoencoder's loss."""
    if module is not None:
        module.requires_grad_(False)
    yield
    if module is not None:
        module.requires_grad_(True)
