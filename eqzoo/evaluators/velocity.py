"""Irreducible variance of the velocity that a flow-matching generator predicts on given latents (VIV)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import ROUNDING_SHARE, AutoencoderView
from eqzoo.evaluators.latents import JACKKNIFE_GROUPS, LatentSample, jackknife_error
from eqzoo.precision import to_double
from eqzoo.registry import EVALUATORS
from eqzoo.registry.ranges import PositiveInt

NUM_STEPS = 5  # of the flip-flop iteration, as in the public implementation
MIN_CLASS_IMAGES = 4  # as in the public implementation
_WHOLE_SET = 'none: one Gaussian of all images'


@EVALUATORS.register_module()
class VelocityVariance(LatentSample):
    """`viv`, the velocity's irreducible variance per dimension, with its standard error `viv_std`, and `viv_share`.

    From "Diffusing in the Right Space" (arXiv 2606.03578), where it predicts the FID of generators best of
    all measures (correlation .87 over 43 autoencoders, SiT-B). At a noisy latent between noise and data many
    velocities are possible, and their variance is an error that no generator can avoid. If the latents of a
    class are normal with the eigenvalues λ of their covariance, its mean over times and dimensions is the
    mean of (π / 2) √λ (Eq. 5). **Lower is easier**: white noise has π / 2 = 1.571; compact classes lower it,
    and so do correlated cells and channels.

    Latents are standardised by channel over the images. The covariance of a class is modelled as
    Σ_s ⊗ Σ_c, of cells and of channels (Eq. 3), and scaled to the total variance of the class; `viv` is the
    mean over classes. `viv_share` is that total variance divided by the number of dimensions: without classes
    1 minus the share of what all images have in common at a place, with them less the more they differ.
    A factor or an offset on a channel changes nothing; a channel that does not vary counts as variance 0.

    Compare only latents of one shape, on the same images: **few images per class lower it**
    (docs/metrics.md has values for white noise). A class of n images determines Σ_s of S cells and C channels
    only if (n − 1) C ≥ S; the card has the number of classes with fewer images. `viv_std` agreed with the
    spread of repeated samples from about 10 images per class on; with 5 it was 1.6 times as large.

    Differs from the public implementation: directions in which the images of a class do not vary count as
    variance 0, as in Eq. 5; there they are left out of the mean. Everything is in float64.

    Args:
        by_class: Whether there is one Gaussian for each class. Without it, or if all images have one label,
            there is one Gaussian of all images, and the card has classes 'none: one Gaussian of all images'.
        max_images: How many latents are kept at most, drawn once from all: 800 MB at 50,000 of 4,096 values.

    Raises:
        ValueError: By `check` and `check_labels`, if there are fewer than 4 images of any class.
    """

    def __init__(self, *, by_class: bool = True, max_images: PositiveInt = 50_000) -> None:
        super().__init__(max_images, MIN_CLASS_IMAGES)
        self.by_class = by_class
        self._classes: dict[str, Any] = {}  # of the card; known once evaluated

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same without classes, of which a few images do not have enough."""
        return {**arguments, 'by_class': False}

    def check(self, num_images: int) -> None:
        """Refuse too few images, and draw which are kept.

        Raises:
            ValueError: With the number needed.
        """
        if num_images < MIN_CLASS_IMAGES:
            raise ValueError(f'viv: {num_images} images, but a covariance needs {MIN_CLASS_IMAGES} or more.')
        super().check(num_images)

    def check_labels(self, labels: Sequence[int] | None) -> None:
        """Refuse classes that are all too small.

        Raises:
            ValueError: With the size of the largest class, and what to do.
        """
        if not self.by_class or labels is None:
            return
        kept = torch.tensor(labels)[self.are_kept(torch.arange(len(labels)))]
        _large_classes(kept)

    def update(self, view: AutoencoderView) -> None:
        """Keep a batch's latents, its moments per channel, and its labels."""
        super().update(view)
        chosen, numbers = self.are_kept(view.numbers), view.numbers.cpu()
        latents = to_double(view.latents)
        moments = torch.stack([latents.mean(dim=(2, 3)), latents.square().mean(dim=(2, 3))], dim=1)
        labels = torch.zeros(len(latents), dtype=torch.int64) if view.labels is None else view.labels
        for name, rows in (('moments', moments), ('labels', labels)):
            self.keep(name, rows.cpu()[chosen], numbers[chosen])

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the three numbers.

        Raises:
            ValueError: If no class has 4 images that could be read.
        """
        latents, labels, moments = self.latents(), self.kept['labels'], self.kept['moments']
        labels = labels if self.by_class else torch.zeros_like(labels)
        classes = _large_classes(labels)
        self._describe_classes(labels, classes, latents)
        # one after the other within classes, so that each group has its share of every class
        groups = torch.empty_like(labels)
        groups[labels.argsort(stable=True)] = torch.arange(len(labels)) % min(JACKKNIFE_GROUPS, len(labels))
        samples = [torch.ones_like(groups, dtype=torch.bool), *(groups != group for group in groups.unique())]
        scales = _channel_scales(torch.stack([moments[sample].mean(dim=0) for sample in samples]))
        velocities, shares = [], []
        for label in classes:
            own = labels == label
            values = to_double(latents[own.to(latents.device)]).flatten(2)
            velocity, share = class_velocity(values, scales, [sample[own] for sample in samples])
            velocities.append(velocity)
            shares.append(share)
        mean = torch.stack(velocities).mean(dim=0)
        metrics = {'viv': mean[0].item(), 'viv_std': jackknife_error(mean[1:]), 'viv_share': sum(shares) / len(shares)}
        return metrics if scales.any() else dict.fromkeys(metrics, math.nan)

    def card(self) -> dict[str, Any]:
        """Return the model of the covariance, and the classes."""
        return {
            **super().card(),
            'covariance': f'cells x channels, {NUM_STEPS} flip-flop iterations, scaled to the total variance',
            'standardised': 'each channel over these images',
            **self._classes,
            'std': f'jackknife, {JACKKNIFE_GROUPS} groups of images',
        }

    def _describe_classes(self, labels: Tensor, classes: Sequence[int], latents: Tensor) -> None:
        counts = [int((labels == label).sum()) for label in classes]
        channels, num_cells = latents.shape[1], latents[0, 0].numel()
        needed = 1 + max(-(-num_cells // channels), -(-channels // num_cells))
        too_small = sum(count < needed for count in counts)
        self._classes = {
            'classes': len(classes) if len(labels.unique()) > 1 else _WHOLE_SET,
            'images_per_class': f'{min(counts)} to {max(counts)}',
            'undetermined': f'{too_small} of {len(counts)}, of fewer than {needed} images',
        }


def class_velocity(values: Tensor, scales: Tensor, samples: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Return the irreducible variance per dimension of one class for each sample of it, (K,), and its variance.

    The first is fitted from the start. The others, samples of most of the images, are fitted by one iteration
    from there: the errors of Σ_s and of Σ_c are independent up to a common factor, which the total variance
    fixes, so that more iterations add nothing of first order.

    Args:
        values: Latents (N, C, S) of the class, in float64.
        scales: The factors of the channels in each sample, (K, C).
        samples: Which images are in each sample, K of (N,); the first has all.

    Returns:
        The mean of (π / 2) √λ for each sample, and the mean variance of a dimension in the first, in float64.
    """
    size = values[0].numel()
    values = values - values.mean(dim=0)
    if values.shape[0] * values.shape[1] < values.shape[2]:
        # few images vary in few directions of cells: in those alone, eigenvalues other than 0 are the same
        values = values @ torch.linalg.qr(values.flatten(0, 1).T).Q
    inverse, velocities = None, []
    for sample, scale in zip(samples, scales.to(values.device)[:, :, None], strict=True):
        chosen = values[sample.to(values.device)] * scale
        if inverse is None:
            eigenvalues, inverse = kronecker_eigenvalues(chosen)
            variance = eigenvalues.sum().item() / size
        else:
            eigenvalues, _ = kronecker_eigenvalues(chosen, num_steps=1, cell_inverse=inverse)
        velocities.append(math.pi / 2 * eigenvalues.sqrt().sum().cpu() / size)
    return torch.stack(velocities), variance


def kronecker_eigenvalues(
    values: Tensor, *, num_steps: int = NUM_STEPS, cell_inverse: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (C, S) of Σ_s ⊗ Σ_c fitted to `values` (N, C, S), and the (pseudo-)inverse of Σ_s.

    The flip-flop iteration of maximum likelihood (Dutilleul 1999): Σ_c is the covariance of channels after
    whitening by Σ_s, and the other way round. Σ_c and Σ_s are determined up to a factor; the eigenvalues are
    scaled so that their sum is the total variance of the values, with N in the denominator.

    Args:
        values: In float64.
        num_steps: Iterations.
        cell_inverse: The first Σ_s⁻¹, (S, S). Default: the identity.
    """
    centred = values - values.mean(dim=0)
    inverse = torch.eye(values.shape[2]).to(centred) if cell_inverse is None else cell_inverse
    for _ in range(num_steps):
        channels = torch.einsum('ncs,nds->cd', centred @ inverse, centred)
        cells = torch.einsum('ncs,nct->st', _inverse(channels) @ centred, centred)
        inverse = _inverse(cells)
    eigenvalues = torch.outer(*(torch.linalg.eigvalsh(each).clamp_min(0) for each in (channels, cells)))
    total, fitted = centred.square().sum() / len(centred), eigenvalues.sum()
    return eigenvalues * (total / fitted if fitted > 0 else 0.0), inverse


def _channel_scales(moments: Tensor) -> Tensor:
    """Return the factors (K, C) that give channels a variance of 1, 0 for a channel that does not vary.

    Args:
        moments: The means of values and of squares in each of K samples, (K, 2, C); the first has all images.
    """
    variance = moments[:, 1] - moments[:, 0].square()
    varies = variance[0] > ROUNDING_SHARE * moments[0, 1]
    return torch.where(varies, variance, torch.inf).rsqrt()


def _inverse(covariance: Tensor) -> Tensor:
    """Return the inverse on the directions that vary."""
    return torch.linalg.pinv(covariance, rtol=ROUNDING_SHARE, hermitian=True)


def _large_classes(labels: Tensor) -> list[int]:
    """Return the classes of enough images.

    Raises:
        ValueError: If there is none.
    """
    classes, counts = labels.unique(return_counts=True)
    if counts.max() < MIN_CLASS_IMAGES:
        raise ValueError(
            f'viv: the largest of {len(classes)} classes has {int(counts.max())} images, but a covariance needs '
            f'{MIN_CLASS_IMAGES} or more; use more images, or by_class=False for one Gaussian of all images.'
        )
    return classes[counts >= MIN_CLASS_IMAGES].tolist()
