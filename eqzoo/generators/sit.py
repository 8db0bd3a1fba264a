"""SiT: a transformer on stochastic interpolants (arXiv 2401.08740)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from eqzoo.generators.base import Generator
from eqzoo.generators.interpolant import Interpolant
from eqzoo.generators.label_dropout import check_probability, drop_labels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS


class Interpolation(NamedTuple):
    """A batch between data and noise.

    Args:
        noisy: x_t (B, C, h, w).
        times: t (B,).
        labels: (B,), some of them replaced by no class.
        noise: (B, C, h, w).
    """

    noisy: Tensor
    times: Tensor
    labels: Tensor
    noise: Tensor


@GENERATORS.register_module()
class SiT(Generator):
    """A network that predicts velocity, score or noise of an interpolant.

    Args:
        network: Such as a `DiffusionTransformer`.
        process: The path and what is predicted.
        p_unconditional: How often a label is replaced by no class.

    Raises:
        ValueError: If process or probability are not such.
    """

    def __init__(self, network: nn.Module, process: Interpolant, *, p_unconditional: float = 0.1) -> None:
        super().__init__(network)
        name = type(self).__name__
        if not isinstance(process, Interpolant):
            raise ValueError(f'{name}.process: got {type(process).__name__}; accepted is Interpolant; see DiT.')
        check_probability(f'{name}.p_unconditional', p_unconditional)
        self.process, self.p_unconditional = process, p_unconditional

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss'; see `Generator.loss`."""
        between = self.interpolate(batch, streams)
        output = self.network(between.noisy, self.process.network_times(between.times), between.labels)
        return {'loss': self.denoising_loss(output, batch['latents'], between)}

    def interpolate(self, batch: Mapping[str, Any], streams: SampleStreams) -> Interpolation:
        """Return the batch at random times.

        A sample's stream gives its time, then its noise, then whether its label is left out.
        """
        x = batch['latents']
        if self.process.time_sampling == 'lognormal':
            numbers = streams.normal(x.new_empty(len(x)))
        else:
            numbers = streams.uniform(device=x.device)
        times = self.process.sample_times(numbers)
        noise = streams.normal(x)
        labels = drop_labels(batch['labels'], streams.uniform(), self.p_unconditional, self.num_classes)
        return Interpolation(self.process.noised(x, noise, times), times, labels, noise)

    def denoising_loss(self, output: Tensor, x: Tensor, between: Interpolation) -> Tensor:
        """Return the process's loss, a scalar, of the network's output for latents `x`."""
        return self.process.losses(output, x, between.noise, between.times).mean()
