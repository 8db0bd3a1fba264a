"""Paths from data to noise, x_t = alpha(t) x + sigma(t) noise: t = 0 is data, t = 1 noise (arXiv 2401.08740)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from eqzoo.generators.base import Generator
from eqzoo.generators.diffusion import check_probability, drop_labels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS, PROCESSES


class Coefficients(NamedTuple):
    """A path's coefficients at times (B, 1, 1, 1), and their derivatives."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    @property
    def growth(self) -> Tensor:
        """The rate d log(alpha) / dt at which data fade, negative."""
        return self.d_alpha / self.alpha

    @property
    def diffusion(self) -> Tensor:
        """Half the variance added per time by the SDE that leads along this path, `drift_var` of SiT's code."""
        return self.sigma * self.d_sigma - self.growth * self.sigma.square()


def linear(t: Tensor) -> Coefficients:
    """Return those of the straight path, 1 - t and t."""
    one = t.new_ones(())
    return Coefficients(1 - t, t, -one, one)


def gvp(t: Tensor) -> Coefficients:
    """Return those of the path of constant variance, cosine and sine of a quarter turn."""
    angle = t * (math.pi / 2)
    cosine, sine = angle.cos(), angle.sin()
    return Coefficients(cosine, sine, -sine * (math.pi / 2), cosine * (math.pi / 2))


def vp(t: Tensor) -> Coefficients:
    """Return those of the variance-preserving diffusion with rates from 0.1 to 20."""
    low, high = 0.1, 20.0
    log_alpha = -0.25 * t.square() * (high - low) - 0.5 * t * low
    half_rate = 0.5 * (low + t * (high - low))
    alpha = log_alpha.exp()
    sigma = (-(2 * log_alpha).expm1()).sqrt()
    return Coefficients(alpha, sigma, -half_rate * alpha, half_rate * alpha.square() / sigma)


PATHS: dict[str, Callable[[Tensor], Coefficients]] = {'linear': linear, 'gvp': gvp, 'vp': vp}


# How far SiT stays away from the ends of the path where something divides by zero there.
_TRAIN_MARGIN_VP = 1e-5
_MARGIN = 1e-3


@PROCESSES.register_module()
class Interpolant:
    """A path between data and noise, x_t = alpha(t) x + sigma(t) noise, t = 0 at the data.

    Args:
        path: 'linear', 'gvp' (cosine and sine) or 'vp'.
        prediction: What the network's output is: the 'velocity' dx_t/dt, the 'score', or the 'noise'.
        weighting: Of the loss of scores and noises: 'none', or such that it is that of the
            'velocity', or bounds the 'likelihood'.
        network_time: How the network counts time. 'data_to_noise': as here, which REPA does too.
            'noise_to_data': SiT's published networks see 1 - t, and the velocity towards data.
        time_sampling: Of training: 'uniform', or 'lognormal', the logistic function of a normal
            number, for the linear path and gvp.

    Raises:
        ValueError: If one of these is not among those named, or they do not go together.
    """

    def __init__(
        self,
        path: Literal['linear', 'gvp', 'vp'] = 'linear',
        prediction: Literal['velocity', 'score', 'noise'] = 'velocity',
        weighting: Literal['none', 'velocity', 'likelihood'] = 'none',
        *,
        network_time: Literal['data_to_noise', 'noise_to_data'] = 'data_to_noise',
        time_sampling: Literal['uniform', 'lognormal'] = 'uniform',
    ) -> None:
        _check('path', path, tuple(PATHS))
        _check('prediction', prediction, ('velocity', 'score', 'noise'))
        _check('weighting', weighting, ('none', 'velocity', 'likelihood'))
        _check('network_time', network_time, ('data_to_noise', 'noise_to_data'))
        _check('time_sampling', time_sampling, ('uniform', 'lognormal'))
        if prediction == 'velocity' and weighting != 'none':
            raise ValueError(
                f'Interpolant.weighting: got {weighting!r} for a velocity, whose loss has no weights; accepted is '
                "'none'."
            )
        if time_sampling == 'lognormal' and path == 'vp':
            raise ValueError("Interpolant.time_sampling: 'lognormal' is for the paths linear and gvp; use 'uniform'.")
        self.path, self.prediction, self.weighting = path, prediction, weighting
        self.network_time, self.time_sampling = network_time, time_sampling

    def at(self, times: Tensor) -> Coefficients:
        """Return the path's coefficients at `times` (B,), as (B, 1, 1, 1)."""
        return PATHS[self.path](times.view(-1, 1, 1, 1))

    def interval(self, *, training: bool = False) -> tuple[float, float]:
        """Return the least and the largest time that is trained, or that an ODE is solved between."""
        if self.path == 'vp':
            return (_TRAIN_MARGIN_VP if training else _MARGIN), 1.0
        return (0.0, 1.0) if self.prediction == 'velocity' else (_MARGIN, 1 - _MARGIN)

    def sample_times(self, numbers: Tensor) -> Tensor:
        """Return times (B,) for numbers (B,): uniform in [0, 1), or normal where `time_sampling` is lognormal."""
        if self.time_sampling == 'lognormal':
            ratio = numbers.exp()  # of noise to data
            return ratio / (1 + ratio) if self.path == 'linear' else ratio.atan() * (2 / math.pi)
        low, high = self.interval(training=True)
        return low + (high - low) * numbers

    def network_times(self, times: Tensor) -> Tensor:
        """Return `times` (B,) as the network counts them."""
        return 1 - times if self.network_time == 'noise_to_data' else times

    def noised(self, x: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return x_t (B, C, h, w) at `times` (B,)."""
        path = self.at(times)
        return path.alpha * x + path.sigma * noise

    def losses(self, output: Tensor, x: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the loss of each sample, (B,); channels beyond those of `x` do not count.

        Args:
            output: Of the network, (B, C or 2C, h, w).
            x: Latents (B, C, h, w).
            noise: As large.
            times: (B,).
        """
        output, path = output[:, : x.shape[1]].float(), self.at(times)
        if self.prediction == 'velocity':
            velocity = path.d_alpha * x + path.d_sigma * noise
            error = output - self._direction * velocity
        else:
            error = output - noise if self.prediction == 'noise' else output * path.sigma + noise
        squares = error.square()
        if self.weighting == 'velocity':
            squares = squares * (path.diffusion / path.sigma).square()
        elif self.weighting == 'likelihood':
            squares = squares * path.diffusion / path.sigma.square()
        return squares.flatten(1).mean(dim=1)

    def velocity(self, output: Tensor, x: Tensor, times: Tensor) -> Tensor:
        """Return dx_t/dt, from data to noise, that the network's output (B, C or 2C, h, w) says of `x` at `times`."""
        output = output[:, : x.shape[1]].to(x.dtype)
        if self.prediction == 'velocity':
            return self._direction * output
        path = self.at(times)
        return path.growth * x - path.diffusion * self.score(output, x, times)

    def score(self, output: Tensor, x: Tensor, times: Tensor) -> Tensor:
        """Return the gradient of the log-density that the network's output says of `x` (B, C, h, w) at `times`."""
        output, path = output[:, : x.shape[1]].to(x.dtype), self.at(times)
        if self.prediction == 'score':
            return output
        if self.prediction == 'noise':
            return -output / path.sigma
        # x_t and velocity are two equations for data and noise; the score is -noise / sigma
        fading = path.alpha / path.d_alpha
        return (fading * self._direction * output - x) / (path.sigma * (path.sigma - fading * path.d_sigma))

    @property
    def _direction(self) -> int:
        """The sign of the network's velocity."""
        return -1 if self.network_time == 'noise_to_data' else 1


def _check(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f'Interpolant.{name}: got {value!r}; accepted are {", ".join(map(repr, accepted))}.')


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
