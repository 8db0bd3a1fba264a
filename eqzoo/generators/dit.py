"""DiT: a transformer that undoes Gaussian diffusion (arXiv 2212.09748)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from eqzoo.generators.base import Generator
from eqzoo.generators.gaussian_diffusion import GaussianDiffusion
from eqzoo.generators.label_dropout import check_probability, drop_labels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS


@GENERATORS.register_module()
class DiT(Generator):
    """A network that predicts the noise of Gaussian diffusion.

    Args:
        network: Such as a `DiffusionTransformer`, whose outputs have C channels, or 2C for the
            variance too.
        process: What is undone.
        p_unconditional: How often a label is replaced by no class.

    Raises:
        ValueError: If process or probability are not such.
    """

    def __init__(self, network: nn.Module, process: GaussianDiffusion, *, p_unconditional: float = 0.1) -> None:
        super().__init__(network)
        if not isinstance(process, GaussianDiffusion):
            raise ValueError(f'DiT.process: got {type(process).__name__}; accepted is GaussianDiffusion; see SiT.')
        check_probability('DiT.p_unconditional', p_unconditional)
        self.process, self.p_unconditional = process, p_unconditional

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss' and, with a learned variance, its parts 'mse' and 'vb'; see `Generator.loss`.

        A sample's stream gives its time, then its noise, then whether its label is left out.
        """
        x = batch['latents']
        times = self.process.sample_times(streams.uniform(device=x.device))
        noise = streams.normal(x)
        labels = drop_labels(batch['labels'], streams.uniform(), self.p_unconditional, self.num_classes)
        noisy = self.process.noised(x, noise, times)
        losses = self.process.losses(self.network(noisy, times, labels), x, noise, noisy, times)
        return {name: value.mean() for name, value in losses.items()}
