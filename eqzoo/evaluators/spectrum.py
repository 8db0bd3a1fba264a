"""How the latents' power falls with frequency, which says how hard they are to generate."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from eqzoo.evaluators.base import Evaluator, to_double
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.registry import EVALUATORS
from eqzoo.statistics.spectrum import check_sides, dct, radial_spectrum


@EVALUATORS.register_module()
class LatentSpectrum(Evaluator):
    """`spectrum/slope` and `spectrum/high_share` of the latents' DCT-II; `curves` has the spectrum.

    Each channel is brought to a variance of 1 over the set, so that all count alike; then powers are
    averaged over images and channels. White noise has 0 and 0.75, images and random codes
    of patches lie between that and -4 and 0.02: see `eqzoo.statistics.spectrum` for the bins.
    Latents that diffusion models learn easily fall more steeply (Skorokhodov et al. 2025).
    Channels that do not vary are left out; if none varies, both are NaN.

    Raises:
        ValueError: By `update`, if a side of the latents is below 4, or they change in size.
    """

    def update(self, view: AutoencoderView) -> None:
        """Add a batch's powers (C, h, w) and moments per channel.

        Raises:
            ValueError: If the latents are too small, or of another size than those before.
        """
        latents = to_double(view.latents)
        size = tuple(latents.shape[2:])
        check_sides(size)
        if 'power' in self.sums and self.sums['power'].shape[1:] != size:
            before = tuple(self.sums['power'].shape[1:])
            raise ValueError(f'LatentSpectrum: latents of {size} after {before} cells; use images of one size.')
        self.add('power', dct(latents).square())
        self.add('value', latents.sum(dim=(2, 3)))
        self.add('square', latents.square().sum(dim=(2, 3)))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return slope and share; set `curves`."""
        power = sums['power'] / sums['count']
        cells = sums['count'] * power[0].numel()
        square = sums['square'] / cells
        variance = square - (sums['value'] / cells).square()
        varies = variance > 1e-12 * square  # less is rounding
        # of no channel the mean is NaN, and so is all that follows
        spectrum = radial_spectrum((power[varies] / variance[varies, None, None]).mean(dim=0))
        series = {
            'label': 'latents',
            'x': spectrum.frequency.tolist(),
            'y': spectrum.power.tolist(),
            'low': None,
            'high': None,
        }
        labels = {'title': 'Latent spectrum', 'x': 'frequency / Nyquist', 'y': 'power', 'log': True}
        self.curves = [{**labels, 'series': [series]}] if varies.any() else []
        return {'spectrum/slope': spectrum.slope, 'spectrum/high_share': spectrum.high_share}

    def card(self) -> dict[str, Any]:
        """Say what the spectrum is of."""
        return {
            'latent': 'posterior mean in generator units, each channel of variance 1 over the set',
            'transform': 'DCT-II, orthonormal; 16 bins of the distance from frequency 0 up to Nyquist, 0 left out',
        }
