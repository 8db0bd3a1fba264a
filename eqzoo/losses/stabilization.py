"""Stabilisation of discriminators: R1 and LeCam penalties, and differentiable augmentation."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqzoo.distributed import mean_over_processes
from eqzoo.randomness import SampleStreams
from eqzoo.registry import LOSSES
from eqzoo.registry.ranges import Decay, Filled, NonNegativeFloat, PositiveInt, Probability, Range

Logits = Sequence[Tensor]  # of each of a discriminator's maps, (B, ...)


class DiscriminatorStep(NamedTuple):
    """The inputs of a penalty on a discriminator.

    Args:
        logits_of: Maps images (B, C, H, W) to logits, one tensor for each of the discriminator's maps.
        target: The real images, detached.
        real: Logits of the real images, augmented if the loss augments.
        fake: Logits of the reconstructions.
        step: The training step, from 0.
    """

    logits_of: Callable[[Tensor], Logits]
    target: Tensor
    real: Logits
    fake: Logits
    step: int


@LOSSES.register_module()
class R1:
    """Gradient penalty on real images: γ/2 · E‖∇D(x)‖² (arXiv 1801.04406, Eq. 9).

    D(x) is the mean of an image's logits; of several maps, the mean of their means. Lazily: in every k-th step,
    multiplied by k (StyleGAN2, arXiv 1912.04958).

    The images are not augmented for it. A discriminator with batch norms (PatchGAN) mixes the gradients of a batch;
    FeatureDiscriminator and ConvNeXtDiscriminator do not.

    Args:
        weight: γ; 10 in the paper.
        every: k; 16 in StyleGAN2.
    """

    name = 'r1'

    def __init__(self, weight: NonNegativeFloat = 10.0, *, every: PositiveInt = 1) -> None:
        self.weight = weight
        self.every = every

    def __call__(self, state: DiscriminatorStep) -> Tensor | None:
        """Return the penalty, a scalar; None in the steps between."""
        if state.step % self.every:
            return None
        images = state.target.detach().float().requires_grad_()
        # The penalty is differentiated again: half precision would round it away, fused attention cannot do it.
        with torch.autocast(images.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            of_images = mean_of_maps(state.logits_of(images), lambda logits: logits.flatten(1).mean(1)).sum()
            (gradient,) = torch.autograd.grad(of_images, images, create_graph=True)
        return self.every * self.weight / 2 * gradient.square().flatten(1).sum(1).mean()


@LOSSES.register_module()
class LeCam(nn.Module):
    """Keep logits near moving averages of those of the other kind (LeCam-GAN, arXiv 2104.03310).

    With α_R and α_F, the averages of the logits of real images and of reconstructions, up to the step before: E[(D(x) -
    α_F)²] + E[(D(x̂) - α_R)²]. In the released code, and in VQ autoencoders that use it (MAGVIT-2), each difference is
    clipped at zero, so that the penalty acts only where the discriminator is right: E[max(0, D(x) - α_F)²] + E[max(0,
    α_R - D(x̂))²].

    The averages start without bias from the first step's values, in which there is no penalty. They are of all
    processes, and in checkpoints.

    Args:
        weight: Factor; 0.3 in the paper for BigGAN, 0.001 in autoencoders.
        decay: The share of the old average that a step keeps; 0.99 in the release.
        form: 'released' or 'paper'.
    """

    name = 'lecam'

    def __init__(
        self,
        weight: NonNegativeFloat = 0.001,
        *,
        decay: Decay = 0.99,
        form: Literal['released', 'paper'] = 'released',
    ) -> None:
        super().__init__()
        self.weight, self.decay, self.form = weight, decay, form
        # sums with decaying weights, and the sum of these weights
        for name in ('real', 'fake', 'total'):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, state: DiscriminatorStep) -> Tensor:
        """Return the penalty, a scalar."""
        total = self.total.clamp_min(torch.finfo(self.total.dtype).tiny)
        of_real, of_fake = self.real / total, self.fake / total

        def excess(difference: Tensor) -> Tensor:
            return (F.relu(difference) if self.form == 'released' else difference).square().mean()

        penalty = mean_of_maps(state.real, lambda logits: excess(logits - of_fake))
        penalty = penalty + mean_of_maps(state.fake, lambda logits: excess(of_real - logits))
        return self.weight * torch.where(self.total > 0, penalty, torch.zeros_like(penalty))

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Move the averages by a step's mean logits, scalars, which are first averaged over processes.

        Values that are not finite are left out.
        """
        new = torch.stack([*mean_over_processes([real.float(), fake.float()]), torch.ones_like(real.float())])
        old = torch.stack([self.real, self.fake, self.total])
        moved = torch.where(new.isfinite().all(), self.decay * old + (1 - self.decay) * new, old)
        for buffer, value in zip((self.real, self.fake, self.total), moved, strict=True):
            buffer.copy_(value)


@LOSSES.register_module()
class DiffAug:
    """Differentiable augmentation of a discriminator's inputs, real and reconstructed (arXiv 2006.10738).

    Every image has its own random parameters, and gradients pass through:

    - 'color': brightness + U(-0.5, 0.5); saturation times U(0, 2), about the mean of an image's channels; contrast
      times U(0.5, 1.5), about the image's mean.
    - 'translation': by up to `translation` of a side, filled with zeros.
    - 'cutout': a rectangle of `cutout` of each side, with its centre anywhere, is set to zero.

    Args:
        policy: Which of these, in this order; all in the paper's best.
        translation: Largest shift as a share of the side; 1/8 in the paper.
        cutout: Side of the rectangle as a share of the image's; 1/2 in the paper.

    Example:
        >>> augment, streams = DiffAug(['translation']), SampleStreams(0, torch.tensor([7]))
        >>> augment(torch.ones(1, 3, 16, 16), augment.sample(streams)).shape
        torch.Size([1, 3, 16, 16])
    """

    num_draws = 7  # for an image

    def __init__(
        self,
        policy: Filled[Literal['color', 'translation', 'cutout']] = ('color', 'translation', 'cutout'),
        *,
        translation: Probability = 0.125,
        cutout: Annotated[float, Range(above=0, at_most=1)] = 0.5,
    ) -> None:
        self.policy = tuple(policy)
        self.translation = translation
        self.cutout = cutout

    def sample(self, streams: SampleStreams) -> Tensor:
        """Draw for each of B images; returns numbers (B, 7), uniform in [0, 1)."""
        return streams.uniform(self.num_draws)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment `images` (B, C, H, W) in [-1, 1] by `draws` (B, 7); colours may leave the range."""
        draws = draws.to(images, non_blocking=True)
        for name in self.policy:
            images = getattr(self, f'_{name}')(images, draws)
        return images

    def _color(self, x: Tensor, draws: Tensor) -> Tensor:
        brightness, saturation, contrast = (draws[:, index, None, None, None] for index in range(3))
        x = x + brightness - 0.5
        mean = x.mean(dim=1, keepdim=True)
        x = (x - mean) * (2 * saturation) + mean
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return (x - mean) * (contrast + 0.5) + mean

    def _translation(self, x: Tensor, draws: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        moved = []
        for side, draw in ((height, draws[:, 3]), (width, draws[:, 4])):
            largest = round(side * self.translation)
            shift = (draw * (2 * largest + 1)).floor().clamp_max(2 * largest).long() - largest
            # from a frame of zeros, one wide, all that lies outside is taken
            place = torch.arange(side, device=x.device) + 1 - shift[:, None]
            moved.append(place.clamp(0, side + 1))
        rows, columns = moved
        image = torch.arange(batch, device=x.device)[:, None, None]
        padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1)
        return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _cutout(self, x: Tensor, draws: Tensor) -> Tensor:
        inside = []
        for side, draw in ((x.shape[2], draws[:, 5]), (x.shape[3], draws[:, 6])):
            length = round(side * self.cutout)
            # the centre is anywhere; what lies outside the image is lost
            first = (draw * (side + 1 - length % 2)).floor().long() - length // 2
            place = torch.arange(side, device=x.device)
            inside.append((place >= first[:, None]) & (place < first[:, None] + length))
        rows, columns = inside
        return x * ~(rows[:, None, :, None] & columns[:, None, None, :])


def mean_of_maps(logits: Logits, value: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean over a discriminator's maps of a value of each map's logits."""
    values = [value(each) for each in logits]
    return sum(values[1:], values[0]) / len(values) if len(values) > 1 else values[0]
