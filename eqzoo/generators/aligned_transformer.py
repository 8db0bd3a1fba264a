"""REPA's network: a diffusion transformer whose tokens are also projected to a vision encoder's features."""

from collections.abc import Sequence

from torch import Tensor, nn

from eqzoo.generators.published import load_generator
from eqzoo.generators.transformer import DiffusionTransformer
from eqzoo.registry import NETWORKS


@NETWORKS.register_module()
class AlignedTransformer(DiffusionTransformer):
    """A `DiffusionTransformer` with an MLP on the tokens of one block for each encoder (arXiv 2410.06940).

    Names and shapes of weights are those of REPA's `last.pt`.

    Args:
        size: See `DiffusionTransformer`.
        patch_size: See `DiffusionTransformer`.
        latent_channels: See `DiffusionTransformer`.
        latent_size: See `DiffusionTransformer`.
        num_classes: See `DiffusionTransformer`.
        learn_sigma: See `DiffusionTransformer`; REPA's files have no such channels.
        qk_norm: See `DiffusionTransformer`.
        checkpointing: See `DiffusionTransformer`.
        feature_dims: Values of a feature of each encoder, 768 of DINOv2-B.
        tap: The block whose tokens are projected, counted from 1.
        projector_width: Of the MLPs' hidden layers.
        weights: A file as REPA or eqzoo write it; see `read_generator`.

    Raises:
        ValueError: If there is no such block, or as `DiffusionTransformer`.
    """

    def __init__(
        self,
        size: str | Sequence[int] = 'XL',
        patch_size: int = 2,
        *,
        latent_channels: int = 4,
        latent_size: int = 32,
        num_classes: int = 1000,
        learn_sigma: bool = False,
        qk_norm: bool = False,
        checkpointing: bool = False,
        feature_dims: Sequence[int] = (768,),
        tap: int = 8,
        projector_width: int = 2048,
        weights: str | None = None,
    ) -> None:
        super().__init__(
            size,
            patch_size,
            latent_channels=latent_channels,
            latent_size=latent_size,
            num_classes=num_classes,
            learn_sigma=learn_sigma,
            qk_norm=qk_norm,
            checkpointing=checkpointing,
        )
        if not 1 <= tap <= len(self.blocks):
            raise ValueError(f'AlignedTransformer.tap: got {tap}; accepted is a block, 1 to {len(self.blocks)}.')
        if not feature_dims or min(feature_dims) < 1:
            raise ValueError(
                f"AlignedTransformer.feature_dims: got {feature_dims}; accepted is each encoder's number of features."
            )
        self.tap, self.feature_dims = tap, tuple(feature_dims)
        width = self.pos_embed.shape[2]
        self.projectors = nn.ModuleList([_projector(width, projector_width, dim) for dim in feature_dims])
        if weights is not None:
            load_generator(self, weights)

    @classmethod
    def smoke(cls, arguments: dict) -> dict:
        """Return the arguments for hardly any width and depth, without weights."""
        return {**super().smoke(arguments), 'tap': 1, 'projector_width': 32}

    def forward_with_features(self, x: Tensor, times: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the prediction as `forward` does, and the tapped tokens (B, T, D) as each encoder's features."""
        tokens, condition = self.embed(x, times, labels)
        features: list[Tensor] = []
        for number, block in enumerate(self.blocks, start=1):
            tokens = self.run_block(block, tokens, condition)
            if number == self.tap:
                features = [projector(tokens) for projector in self.projectors]
        return self.head(tokens, condition), features


def _projector(width: int, hidden: int, features: int) -> nn.Sequential:
    layers = nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, features)
    for layer in layers[::2]:  # REPA's, whose own initialisation reaches its projectors too
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
