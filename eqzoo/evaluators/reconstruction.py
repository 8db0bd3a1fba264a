"""Reconstruction metrics: PSNR, SSIM, and perceptual distances such as LPIPS."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from eqzoo.evaluators.base import AutoencoderView, Evaluator
from eqzoo.images import decibels, squared_error, to_float, to_uint8
from eqzoo.precision import full_precision, to_double
from eqzoo.registry import EVALUATORS

_MIN_SIZE = 11  # SSIM's window: a Gaussian of sigma 1.5 out to 3.5 sigma


def _ssim(reconstruction: Tensor, target: Tensor, value_range: float | tuple[float, float] | None) -> Tensor:
    # imported here: torchmetrics takes longer to import than torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(reconstruction, target, data_range=value_range, reduction='none')


def _ssim_uint8(reconstruction: Tensor, target: Tensor) -> Tensor:
    return _ssim(to_double(to_uint8(reconstruction)), to_double(to_uint8(target)), 255.0)


def _ssim_eqvae(reconstruction: Tensor, target: Tensor) -> Tensor:
    # torchmetrics takes the range from the given images: one image at a time, as in the released eval.py
    pairs = zip(to_double(reconstruction).split(1), to_double(target).split(1), strict=True)
    return torch.cat([_ssim(*pair, None) for pair in pairs])


def _ssim_lightningdit(reconstruction: Tensor, target: Tensor) -> Tensor:
    return _ssim(to_double(reconstruction), to_double(target), (-1.0, 1.0))


# By protocol: SSIM of (reconstruction, target) (B, 3, H, W), about [-1, 1] → (B,); the decoded latent; the values
_PROTOCOLS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str, str]] = {
    'uint8': (_ssim_uint8, 'mean', '8-bit values, range 255'),
    'eqvae': (_ssim_eqvae, 'sample', '[-1, 1], unclamped, range of each image'),
    'lightningdit': (_ssim_lightningdit, 'sample', '[-1, 1], clamped, range 2'),
}


@EVALUATORS.register_module()
class ReconstructionMetric(Evaluator):
    """`psnr` in dB and `ssim`.

    PSNR is on 8-bit values in every protocol, as if images were saved. SSIM is torchmetrics' (Gaussian of
    sigma 1.5) in every protocol, on different values, which changes it by up to 0.04:

    - 'uint8' (default): 8-bit values, range 255. Independent of the batch size, reproducible
      from saved PNGs; reported by RAE.
    - 'eqvae': as in EQ-VAE's eval.py, on unclamped values in [-1, 1] with the range of each image, of a
      posterior sample. Its resizing is the data set's `crop='resize_tensor'`.
    - 'lightningdit': as in LightningDiT's evaluate_tokenizer.py, clamped to [-1, 1], range 2.

    Any choice other than the default is part of the metric's name: `ssim_eqvae`, `psnr_sample`,
    `psnr_global`.

    Args:
        protocol: One of the three.
        average: 'image': PSNR of each image, then averaged, as in the papers; 'global': PSNR of the
            squared error over all images, torchmetrics' default, about 1 dB lower.
        latent: The decoded latent: the posterior's 'mean' or a 'sample' whose noise depends on the
            image's number only. Default: the protocol's own.

    Raises:
        ValueError: If an argument has another value.
    """

    def __init__(
        self,
        protocol: Literal['uint8', 'eqvae', 'lightningdit'] = 'uint8',
        *,
        average: Literal['image', 'global'] = 'image',
        latent: Literal['mean', 'sample'] | None = None,
    ) -> None:
        super().__init__()
        self.protocol, self.average = protocol, average
        self._ssim, own, self._values = _PROTOCOLS[protocol]
        self.latent = latent or own
        sampled = '_sample' if self.latent == 'sample' else ''
        self._psnr_key = f'psnr{sampled}' + ('_global' if average == 'global' else '')
        self._ssim_key = f'ssim{sampled}' if protocol == 'uint8' else f'ssim_{protocol}' + ('' if sampled else '_mean')

    def update(self, view: AutoencoderView) -> None:
        """Add a batch.

        Raises:
            ValueError: If the images are smaller than SSIM's window.
        """
        if min(view.images.shape[2:]) < _MIN_SIZE:
            raise ValueError(
                f'ReconstructionMetric: images of {tuple(view.images.shape[2:])} pixels; '
                f'SSIM needs at least {_MIN_SIZE} on both sides.'
            )
        if self.latent == 'mean':
            reconstruction, rounded = view.reconstruction, view.reconstruction_uint8
        else:
            reconstruction, rounded = view.sampled_reconstruction, to_uint8(view.sampled_reconstruction)
        error = squared_error(rounded, view.images_uint8)
        self.add('error', error)
        self.add('psnr', decibels(error))
        self.add('ssim', self._ssim(reconstruction, view.images))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the averages."""
        psnr = sums['psnr'] / sums['count'] if self.average == 'image' else decibels(sums['error'] / sums['count'])
        return {self._psnr_key: psnr.item(), self._ssim_key: (sums['ssim'] / sums['count']).item()}

    def card(self) -> dict[str, Any]:
        """Return the protocol and its meaning."""
        return {
            'protocol': self.protocol,
            'psnr': '8-bit values, range 255',
            'ssim': f'torchmetrics, Gaussian of sigma 1.5; {self._values}',
            'average': 'per image' if self.average == 'image' else 'of the squared error, over all images',
            'latent': f'posterior {self.latent}',
        }


@EVALUATORS.register_module()
class PerceptualMetric(Evaluator):
    """The mean over images of a perceptual distance, under the distance's own name.

    `lpips` is LPIPS on VGG, as reported by EQ-VAE, LightningDiT and RAE; `lpips_alex` is on AlexNet,
    torchmetrics' default. Neither is comparable with the "PSIM" of SD-VAE's model cards.

    Args:
        distance: (reconstruction, target) (B, 3, H, W) in [-1, 1] → (B,), with `key` and `card()`:
            `LPIPS` or `FeatureDistance`.
        values: 'uint8' rounds both to 8 bits, as if saved (RAE); 'float' takes the decoder's unclamped
            output (EQ-VAE, LightningDiT). The distances differ in the third digit.

    Raises:
        ValueError: If `values` is neither.
    """

    def __init__(
        self, distance: Callable[[Tensor, Tensor], Tensor], *, values: Literal['uint8', 'float'] = 'uint8'
    ) -> None:
        super().__init__()
        self.distance, self.values = distance, values
        self._key = distance.key if values == 'uint8' else f'{distance.key}_float'

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch."""
        pair = view.reconstruction, view.images
        if self.values == 'uint8':
            pair = to_float(view.reconstruction_uint8), to_float(view.images_uint8)
        with full_precision():
            self.add('distance', self.distance(*pair))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the mean."""
        return {self._key: (sums['distance'] / sums['count']).item()}

    def card(self) -> dict[str, Any]:
        """Return the network and the values."""
        return {'distance': self.distance.card(), 'values': self.values, 'latent': 'posterior mean'}
