"""REPA: a SiT whose tokens are aligned with a vision encoder's features (arXiv 2410.06940)."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from eqzoo.generators.aligned_transformer import AlignedTransformer
from eqzoo.generators.interpolant import Interpolant
from eqzoo.generators.sit import SiT
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS


@GENERATORS.register_module()
class REPA(SiT):
    """A SiT with a second loss: minus the cosine between projected tokens and features of the clean image.

    Features come with the batch where they were stored with the latents (`cache_encoder`), else
    the encoder makes them of its images. The encoder is in neither parameters nor state dict.

    Args:
        network: With a projector for the encoder's features.
        process: The path and what is predicted.
        encoder: Makes features (B, T, D) of images (B, 3, H, W), uint8: a `VisionEncoder`.
        weight: Of the second loss; REPA's is 0.5.
        p_unconditional: How often a label is replaced by no class.

    Raises:
        ValueError: If network or process are not such, or encoder and projectors do not fit.
    """

    def __init__(
        self,
        network: AlignedTransformer,
        process: Interpolant,
        *,
        encoder: Callable[[Tensor], Tensor] | None = None,
        weight: float = 0.5,
        p_unconditional: float = 0.1,
    ) -> None:
        super().__init__(network, process, p_unconditional=p_unconditional)
        if not hasattr(network, 'forward_with_features'):
            raise ValueError(f'REPA.network: got {type(network).__name__}; accepted is AlignedTransformer.')
        if weight < 0:
            raise ValueError(f'REPA.weight must not be negative, got {weight}.')
        width = getattr(encoder, 'num_features', network.feature_dims[0])
        if network.feature_dims != (width,):
            raise ValueError(
                f'REPA.network: projects to features of {network.feature_dims}; accepted is one encoder, here of '
                f'{width}; set model.generator.network.feature_dims=({width},).'
            )
        self.weight = weight
        self._outside = (encoder,)  # in a tuple, where nn.Module does not look

    @property
    def encoder(self) -> Callable[[Tensor], Tensor] | None:
        """What makes the features, if they do not come with the batch."""
        return self._outside[0]

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss' and its parts 'denoising' and 'alignment'; see `Generator.loss`.

        Raises:
            ValueError: If the batch has neither features nor images for the encoder, or features of another shape.
        """
        features = self._features(batch)
        between = self.interpolate(batch, streams)
        times = self.process.network_times(between.times)
        output, (projected,) = self.network.forward_with_features(between.noisy, times, between.labels)
        denoising = self.denoising_loss(output, batch['latents'], between)
        alignment = -F.cosine_similarity(projected.float(), features.float(), dim=2).mean()
        return {'loss': denoising + self.weight * alignment, 'denoising': denoising, 'alignment': alignment}

    def _features(self, batch: Mapping[str, Any]) -> Tensor:
        if 'features' in batch:
            features = batch['features']
        elif self.encoder is not None and 'images' in batch:
            features = self.encoder(batch['images'])
        else:
            has = 'no encoder' if self.encoder is None else 'an encoder, but the latents come without images'
            raise ValueError(
                f'REPA: nothing to align with: the batch has no features, and there is {has}; write features into the '
                'store with cache_encoder, or set model.generator.encoder, and images of the LatentStore.'
            )
        wanted = (self.network.grid**2, *self.network.feature_dims)
        if features.shape[1:] != wanted:
            raise ValueError(
                f'REPA: features of {features.shape[1]} tokens and {features.shape[2]} values; the network has '
                f"{wanted[0]} tokens and projects to {wanted[1]}; change the encoder's grid or size, or feature_dims."
            )
        return features
