"""Objectives: which pairs of target and reconstruction a training step of an autoencoder compares.

An objective has `sample(generator, grid)`, which makes the random draws of a step, and `__call__(step, images, draw)`,
which uses a `LatentStep` to encode and decode images, and returns pairs of reconstruction and target, the main one
first: an adversarial loss uses only that one.
"""

from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from eqzoo.dct import dct, inverse_dct
from eqzoo.registry import REGULARIZERS, EquivarianceTransform, Grid
from eqzoo.registry.ranges import Filled, NonNegativeFloat, PositiveInt, Probability, Range
from eqzoo.regularizers.step import LatentStep, ReconstructionPair
from eqzoo.transforms import IsotropicScale


class Draw(NamedTuple):
    """The branch that a step takes, and the parameters of the branch's transform."""

    branch: str
    params: Any = None


@REGULARIZERS.register_module()
class Plain:
    """Reconstruct the images unchanged: the baseline (EQ-VAE, Eq. 1)."""

    def sample(self, generator: Generator, grid: Grid) -> Draw:
        """Return the only branch; nothing is drawn."""
        return Draw('plain')

    def __call__(self, step: LatentStep, images: Tensor, draw: Draw) -> list[ReconstructionPair]:
        """Pair `images` (B, C, H, W) with D(z), where z is drawn from their posterior."""
        return [ReconstructionPair(images, step.decode(step.quantize(step.encode(images))))]


@REGULARIZERS.register_module()
class ImplicitEquivariance:
    """Compare decoded transformed latents with transformed images (EQ-VAE, Eq. 5 and 7).

    A step takes one of three branches. With probability `p_equivariance` it compares D(τ∘z) with τ∘x. Otherwise, with
    probability `p_low_resolution`, it scales the images down and reconstructs them, which is in the released
    recipe and not in the paper. Otherwise it reconstructs the images. Defaults give 50 %, 12.5 % and 37.5 %.

    Differs from the released code: one draw serves autoencoder and discriminator. The release draws twice
    and runs the autoencoder twice.

    Args:
        transform: τ, drawn once per step for the whole batch.
        p_equivariance: Probability of the equivariance branch. The paper's p_α is
            `1 - p_equivariance`; the release calls this very number `p_prior`.
        p_low_resolution: Probability of the low-resolution branch, given that the
            equivariance branch was not taken.
        low_resolution: The transform of that branch; `IsotropicScale()`, as released.
        act_on: With a codebook, what τ transforms: the 'features' before quantisation (EQ-VAE, Sec. 3), so that
            codebook and commitment terms are of the transformed features; or the 'codes' after it. Without a
            codebook there is no difference.

    Raises:
        ValueError: If a probability is outside [0, 1], or `act_on` is unknown.
    """

    def __init__(
        self,
        transform: EquivarianceTransform,
        p_equivariance: Probability = 0.5,
        *,
        p_low_resolution: Probability = 0.25,
        low_resolution: EquivarianceTransform | None = None,
        act_on: Literal['features', 'codes'] = 'features',
    ) -> None:
        self.transform = transform
        self.p_equivariance = p_equivariance
        self.p_low_resolution = p_low_resolution
        self.low_resolution = low_resolution or IsotropicScale()
        self.act_on = act_on

    def check_grid(self, grid: Grid) -> None:
        """Check that the transforms can be drawn for a latent `grid` (h, w).

        Raises:
            ValueError: If the grid is too coarse.
        """
        self.transform.sample(torch.Generator(), grid)
        if self.p_low_resolution:
            self.low_resolution.sample(torch.Generator(), grid)

    def sample(self, generator: Generator, grid: Grid) -> Draw:
        """Draw the branch and its transform's parameters for a latent `grid` (h, w)."""
        # both numbers are always drawn, so that what follows in the stream does not depend on the branch
        first, second = torch.rand(2, generator=generator).tolist()
        if first < self.p_equivariance:
            return Draw('equivariance', self.transform.sample(generator, grid))
        if second < self.p_low_resolution:
            return Draw('low_resolution', self.low_resolution.sample(generator, grid))
        return Draw('plain')

    def prepare(self, autoencoder: Any) -> None:
        """Check that the objective fits the autoencoder.

        Raises:
            ValueError: If τ should act on codes, and there is no codebook.
        """
        if self.act_on == 'codes' and not autoencoder.has_codebook:
            raise ValueError(
                f"ImplicitEquivariance.act_on: got 'codes', but {type(autoencoder).__name__} has no codebook; "
                "use 'features'."
            )

    def __call__(self, step: LatentStep, images: Tensor, draw: Draw) -> list[ReconstructionPair]:
        """Pair τ∘x with D(τ∘z) for `images` x (B, C, H, W), or the images of the other branches.

        As released, τ acts on the drawn latents, noise included, and the posterior is that of the
        untransformed images.
        """
        if draw.branch == 'low_resolution':
            images = self.low_resolution(images, draw.params)
        is_equivariance = draw.branch == 'equivariance'
        latents = step.encode(images)
        if is_equivariance and self.act_on == 'features':
            latents = self.transform(latents, draw.params)
        latents = step.quantize(latents)
        if is_equivariance and self.act_on == 'codes':
            latents = self.transform(latents, draw.params)
        target = self.transform(images, draw.params) if is_equivariance else images
        return [ReconstructionPair(target, step.decode(latents))]


@REGULARIZERS.register_module()
class DownsampledReconstruction:
    """Reconstruct the images, and in the same step smaller images from smaller latents (Skorokhodov et al. 2502.14831).

    The loss is L(x, D(z)) + α · mean over s of L(↓ₛx, D(↓ₛz)), where ↓ₛ averages s x s pixels or cells, which filters
    as it shrinks. The paper calls it scale equivariance (SE).

    Averaging is ours: how the paper shrinks could not be read, nor its code. Differs from the paper, which draws one
    factor for a step: here every factor is in every step, so a step decodes 1 + 1/4 + 1/16 times as many pixels. With a
    codebook the averaged features are quantised, as they are in EQ-VAE.

    Args:
        factors: s, whole numbers of 2 and above.
        weight: α. The default is ours.

    Raises:
        ValueError: If a factor is no whole number above 1, or `weight` is negative.
    """

    def __init__(
        self, factors: Filled[Annotated[int, Range(at_least=2)]] = (2, 4), weight: NonNegativeFloat = 0.25
    ) -> None:
        self.factors = tuple(factors)
        self.weight = weight

    def check_grid(self, grid: Grid) -> None:
        """Check that all factors divide a latent `grid` (h, w).

        Raises:
            ValueError: If one does not.
        """
        for factor in self.factors:
            if grid[0] % factor or grid[1] % factor:
                raise ValueError(
                    f'DownsampledReconstruction.factors: {factor} does not divide latents of {grid[0]} x {grid[1]} '
                    'cells; use other factors, or images whose latents it divides.'
                )

    def sample(self, generator: Generator, grid: Grid) -> Draw:
        """Return the only branch; nothing is drawn."""
        self.check_grid(grid)
        return Draw('downsampled')

    def __call__(self, step: LatentStep, images: Tensor, draw: Draw) -> list[ReconstructionPair]:
        """Pair `images` x (B, C, H, W) with D(z), and each ↓x with D(↓z)."""
        latents = step.encode(images)
        pairs = [ReconstructionPair(images, step.decode(step.quantize(latents)))]
        share = self.weight / len(self.factors)
        for factor in self.factors:
            smaller = step.quantize(F.avg_pool2d(latents, factor), share)
            pairs.append(
                ReconstructionPair(F.avg_pool2d(images, factor), step.decode(smaller), share, f'{factor}x_smaller')
            )
        return pairs


@REGULARIZERS.register_module()
class SpectralMask:
    """Compare low-passed images with decoded low-passed latents (decoder spectrum matching, DSM, arXiv 2603.14645).

    The image is divided into blocks of b x b pixels, and the latent into blocks of b x b cells. In the orthonormal DCT
    of each block, only the coefficients (u, v) with u + v < k are kept. k is drawn once per step and is the same for
    both.

    Args:
        block: b, the side of a block in pixels and in cells.
        kept: The values of k, equally likely: 1 keeps a block's mean, 2b - 1 everything. By default those of the
            released code at b = 8, whose masks 0, 8, 10 and 12 remove u + v ≥ 15 - mask.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, block: Annotated[int, Range(at_least=2)] = 8, kept: Filled[PositiveInt] = (15, 7, 5, 3)) -> None:
        if not all(k < 2 * block for k in kept):
            raise ValueError(
                f'SpectralMask.kept must be whole numbers from 1 to {2 * block - 1}, the diagonals of a block of '
                f'{block}, got {kept!r}.'
            )
        self.block = block
        self.kept = tuple(kept)

    def check_grid(self, grid: Grid) -> None:
        """Check that a latent `grid` (h, w) is whole blocks.

        Raises:
            ValueError: If it is not.
        """
        if grid[0] % self.block or grid[1] % self.block:
            raise ValueError(
                f'SpectralMask.block: latents of {grid[0]} x {grid[1]} cells cannot be cut into blocks of '
                f'{self.block}; use a smaller block, or larger images.'
            )

    def sample(self, generator: Generator, grid: Grid) -> Draw:
        """Draw k for a latent `grid` (h, w)."""
        self.check_grid(grid)
        return Draw('masked', self.kept[int(torch.randint(len(self.kept), (), generator=generator))])

    def __call__(self, step: LatentStep, images: Tensor, draw: Draw) -> list[ReconstructionPair]:
        """Pair low-passed `images` (B, C, H, W) with the reconstruction of equally low-passed latents."""
        latents = self.low_pass(step.encode(images), draw.params)
        return [ReconstructionPair(self.low_pass(images, draw.params), step.decode(step.quantize(latents)))]

    def low_pass(self, x: Tensor, kept: int) -> Tensor:
        """Return `x` (B, C, H, W) with the coefficients u + v < `kept` of each block alone."""
        size = self.block
        if kept == 2 * size - 1:
            return x
        batch, channels, height, width = x.shape
        blocks = x.reshape(batch, channels, height // size, size, width // size, size).transpose(3, 4)
        place = torch.arange(size, device=x.device)
        mask = place[:, None] + place < kept
        # float32 also under autocast: rounding of coefficients is rounding of the target
        with torch.autocast(x.device.type, enabled=False):
            blocks = inverse_dct(dct(blocks.float()) * mask)
        return blocks.transpose(3, 4).reshape(x.shape).to(x.dtype)
