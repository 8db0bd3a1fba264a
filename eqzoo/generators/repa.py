"""REPA: SiT with tokens aligned to the features of a frozen vision encoder (arXiv 2410.06940)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.adaptation import Change, load_adapted
from eqzoo.generators.interpolant import Interpolant, SiT
from eqzoo.generators.transformer import DiffusionTransformer, MlpKind, Norm
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS, NETWORKS
from eqzoo.registry.ranges import Filled, NonNegativeFloat, PositiveInt, Probability


@NETWORKS.register_module()
class AlignedTransformer(DiffusionTransformer):
    """A `DiffusionTransformer` with an MLP per vision encoder, on the tokens of one block.

    Names and shapes of the weights are those of REPA's `last.pt`. Arguments that are not listed are those of
    `DiffusionTransformer`.

    Args:
        learn_sigma: As of `DiffusionTransformer`, but off by default: REPA's files have no such channels.
        feature_dims: Width of each encoder's features; 768 for DINOv2-B.
        tap: The block whose tokens are projected, counted from 1.
        projector_width: Width of the MLPs' hidden layers.
        weights: A file written by REPA or eqzoo; see `read_generator`.

    Raises:
        ValueError: If there is no block `tap` or a feature width is below 1, and as `DiffusionTransformer`.
    """

    def __init__(
        self,
        size: str | tuple[PositiveInt, PositiveInt, PositiveInt] = 'XL',
        patch_size: PositiveInt = 2,
        *,
        latent_channels: PositiveInt = 4,
        latent_size: PositiveInt = 32,
        num_classes: PositiveInt = 1000,
        learn_sigma: bool = False,
        qk_norm: bool = False,
        mlp: MlpKind = 'gelu',
        norm: Norm = 'layer',
        rope: bool = False,
        adaln_shift: bool = True,
        checkpointing: bool = False,
        feature_dims: Filled[PositiveInt] = (768,),
        tap: PositiveInt = 8,
        projector_width: PositiveInt = 2048,
        weights: str | None = None,
        adapt: Sequence[Change] = (),
    ) -> None:
        super().__init__(
            size,
            patch_size,
            latent_channels=latent_channels,
            latent_size=latent_size,
            num_classes=num_classes,
            learn_sigma=learn_sigma,
            qk_norm=qk_norm,
            mlp=mlp,
            norm=norm,
            rope=rope,
            adaln_shift=adaln_shift,
            checkpointing=checkpointing,
        )
        if tap > len(self.blocks):
            raise ValueError(f'AlignedTransformer.tap: got {tap}; expected a block, 1 to {len(self.blocks)}.')
        self.tap, self.feature_dims = tap, tuple(feature_dims)
        width = self.pos_embed.shape[2]
        self.projectors = nn.ModuleList([_projector(width, projector_width, dim) for dim in feature_dims])
        load_adapted(self, weights, adapt)  # here, not in the base class: a file holds the projectors, too

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a tiny network without weights."""
        return {**super().smoke(arguments), 'tap': 1, 'projector_width': 32}

    def project(self, x: Tensor, times: Tensor, labels: Tensor) -> list[Tensor]:
        """Return the features of `forward_with_features` alone; blocks after the tapped one are not computed."""
        tokens, condition = self.embed(x, times, labels)
        for block in self.blocks[: self.tap]:
            tokens = self.run_block(block, tokens, condition)
        return [projector(tokens) for projector in self.projectors]

    def forward_with_features(self, x: Tensor, times: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the prediction and, for each encoder, the tapped tokens projected to its features (B, T, F)."""
        tokens, condition = self.embed(x, times, labels)
        features: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            tokens = self.run_block(block, tokens, condition)
            if number == self.tap:
                features = [projector(tokens) for projector in self.projectors]
        return self.head(tokens, condition), features


@GENERATORS.register_module()
class REPA(SiT):
    """SiT with an alignment loss: minus the mean cosine between projected tokens and features of the clean image.

    Features stored with the latents (`cache_encoder`) come with the batch; otherwise the encoder computes them
    from the batch's images. The encoder is in neither the parameters nor the state dict.

    Args:
        network: Has a projector for the encoder's features.
        process: The path, and the quantity that the network predicts.
        encoder: Maps images (B, 3, H, W), uint8, to features (B, T, F); a `VisionEncoder`.
        weight: Factor of the alignment loss; 0.5 in REPA.
        p_unconditional: Probability that a label is replaced by no class.

    Raises:
        ValueError: If network or process are of another kind, or encoder and projectors do not fit.
    """

    def __init__(
        self,
        network: AlignedTransformer,
        process: Interpolant,
        *,
        encoder: Callable[[Tensor], Tensor] | None = None,
        weight: NonNegativeFloat = 0.5,
        p_unconditional: Probability = 0.1,
    ) -> None:
        super().__init__(network, process, p_unconditional=p_unconditional)
        if not hasattr(network, 'forward_with_features'):
            raise ValueError(f'REPA.network: got {type(network).__name__}; expected AlignedTransformer.')
        width = getattr(encoder, 'num_features', network.feature_dims[0])
        if network.feature_dims != (width,):
            raise ValueError(
                f'REPA.network: projects to features of {network.feature_dims}; expected one encoder, here of width '
                f'{width}; set model.generator.network.feature_dims=({width},).'
            )
        self.weight = weight
        self._outside = (encoder,)  # a tuple hides it from nn.Module, and thus from checkpoints and optimizers

    @property
    def encoder(self) -> Callable[[Tensor], Tensor] | None:
        """Computes the features that do not come with the batch."""
        return self._outside[0]

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss' and its parts 'denoising' and 'alignment'; see `Generator.loss`.

        Raises:
            ValueError: If the batch has neither features nor images for the encoder, or features of the wrong shape.
        """
        features = self.features(batch)
        between = self.interpolate(batch, streams)
        times = self.process.network_times(between.times)
        output, (projected,) = self.network.forward_with_features(between.noisy, times, between.labels)
        denoising = self.denoising_losses(output, batch['latents'], between)['loss']
        alignment = _alignment_loss(projected, features)
        return {'loss': denoising + self.weight * alignment, 'denoising': denoising, 'alignment': alignment}

    def alignment(self, batch: Mapping[str, Any], streams: SampleStreams) -> Tensor:
        """Return the alignment loss alone, a scalar, by whose gradient at `latents` REPA-E trains the autoencoder.

        Times and noise are those of `loss` with the same streams. No label is dropped. Arguments and errors are those
        of `loss`.
        """
        features = self.features(batch)
        between = self.interpolate(batch, streams)
        times = self.process.network_times(between.times)
        (projected,) = self.network.project(between.noisy, times, batch['labels'])
        return _alignment_loss(projected, features)

    def features(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the features (B, T, F) that come with a batch, or those of its images.

        Raises:
            ValueError: If there is neither, or they have another shape than the network's projections.
        """
        if 'features' in batch:
            features = batch['features']
        elif self.encoder is not None and 'images' in batch:
            features = self.encoder(batch['images'])
        else:
            lacks = 'no encoder' if self.encoder is None else 'no image for the encoder'
            raise ValueError(
                f'REPA: the batch has no features, and there is {lacks}; expected either; store features with '
                'cache_encoder, or set model.generator.encoder and images of the LatentStore.'
            )
        wanted = (self.network.grid**2, *self.network.feature_dims)
        if features.shape[1:] != wanted:
            raise ValueError(
                f'REPA: got features of {features.shape[1]} tokens and width {features.shape[2]}; expected {wanted[0]} '
                f"tokens and width {wanted[1]}, as of the network; change the encoder's grid or size, or feature_dims."
            )
        return features


def _alignment_loss(projected: Tensor, features: Tensor) -> Tensor:
    """Return minus the mean cosine of projected tokens and features (B, T, F), in float32 (arXiv 2410.06940)."""
    return -F.cosine_similarity(projected.float(), features.float(), dim=2).mean()


def _projector(width: int, hidden: int, features: int) -> nn.Sequential:
    layers = nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, features)
    for layer in layers[::2]:  # REPA initialises its projectors with the rest of the network
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
