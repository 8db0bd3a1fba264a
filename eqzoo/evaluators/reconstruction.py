"""How close reconstructions are to the images: PSNR and SSIM."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from eqzoo.evaluators.base import Evaluator, to_double
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.registry import EVALUATORS

_MIN_SIZE = 11  # SSIM's window: a Gaussian of sigma 1.5 out to 3.5 sigma
_MIN_SQUARED_ERROR = 1e-10  # of values in [0, 1]: identical images have 100 dB, not infinity


@EVALUATORS.register_module()
class ReconstructionMetric(Evaluator):
    """`psnr` in dB and `ssim`, per image and then averaged.

    Args:
        protocol: 'uint8': images and reconstructions are rounded to 8 bits as when saved,
            the data range is 255, SSIM is torchmetrics' (Gaussian of sigma 1.5). Independent
            of the batch size, reproducible from saved PNGs, and what RAE reports.

    Raises:
        ValueError: If `protocol` is unknown.
    """

    def __init__(self, protocol: Literal['uint8'] = 'uint8') -> None:
        super().__init__()
        if protocol != 'uint8':
            raise ValueError(f"ReconstructionMetric.protocol must be 'uint8', got {protocol!r}.")
        self.protocol = protocol

    def update(self, view: AutoencoderView) -> None:
        """Add a batch.

        Raises:
            ValueError: If the images are smaller than SSIM's window.
        """
        if min(view.images.shape[2:]) < _MIN_SIZE:
            raise ValueError(
                f'ReconstructionMetric: images of {tuple(view.images.shape[2:])} pixels; '
                f'SSIM needs {_MIN_SIZE} or more on both sides.'
            )
        target, reconstruction = (to_double(to_uint8(each)) for each in (view.images, view.reconstruction))
        error = ((reconstruction - target) / 255).square().mean(dim=(1, 2, 3))
        self.add('psnr', -10 * error.clamp_min(_MIN_SQUARED_ERROR).log10())
        self.add(
            'ssim', structural_similarity_index_measure(reconstruction, target, data_range=255.0, reduction='none')
        )

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return both averages."""
        return {name: (sums[name] / sums['count']).item() for name in ('psnr', 'ssim')}

    def card(self) -> dict[str, Any]:
        """Name the protocol."""
        return {'protocol': self.protocol, 'data_range': 255, 'average': 'per image', 'latent': 'posterior mean'}


def to_uint8(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits, to the nearest value."""
    return (127.5 * images + 128).clamp(0, 255).to(torch.uint8)
