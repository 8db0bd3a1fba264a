"""Interpolants, x_t = alpha(t) x + sigma(t) noise with t = 0 at the data, and SiT (arXiv 2401.08740)."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.base import Generator, drop_labels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS, PROCESSES
from eqzoo.registry.ranges import NonNegativeFloat, PositiveFloat, Probability

# distances that SiT keeps from the ends of the path where a formula divides by zero
_TRAIN_MARGIN_VP = 1e-5
_MARGIN = 1e-3


class Coefficients(NamedTuple):
    """A path's coefficients at times (B, 1, 1, 1), and their derivatives with respect to time."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor

    @property
    def d_log_alpha(self) -> Tensor:
        """The derivative of log(alpha), negative: the rate at which the data fade."""
        return self.d_alpha / self.alpha

    @property
    def diffusion(self) -> Tensor:
        """Half the variance per time that the forward SDE along this path adds; `drift_var` in SiT's code."""
        return self.sigma * self.d_sigma - self.d_log_alpha * self.sigma.square()


class Interpolation(NamedTuple):
    """A batch at random times between data and noise.

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


@PROCESSES.register_module()
class Interpolant:
    """A path between data and noise, x_t = alpha(t) x + sigma(t) noise; t is 0 at the data and 1 at the noise.

    Args:
        path: 'linear', 'gvp' (cosine and sine) or 'vp'.
        prediction: The quantity that the network predicts: the 'velocity' dx_t/dt, the 'score', or the 'noise'.
        weighting: Weights of the loss of scores and noises: 'none', 'velocity' (makes it the loss of the velocity),
            or 'likelihood' (makes it a bound on the likelihood).
        network_time: Time as the network counts it. 'data_to_noise': as here, also REPA's convention.
            'noise_to_data': SiT's published networks see 1 - t and predict the velocity towards the data.
        time_sampling: Training times: 'uniform', or 'lognormal' (the logistic function of a normal number, also called
            logit-normal: arXiv 2403.03206, Eq. 19), which is available for the linear path and gvp.
        logit_std: Standard deviation of that normal number; its mean is 0, and `time_shift` moves it to log(shift).
        time_shift: Shift of training times; see `shifted`. Above 1 there is more noise. LightningDiT's `shifted_mu` is
            -log(time_shift), since it counts time the other way.
        direction_weight: Weight of the direction loss of a predicted velocity, which is added: 1 - its cosine with
            the true one over the channels, mean over cells (FasterDiT, arXiv 2410.10356). 1 in
            LightningDiT. Its gradient is millions of times too large where the prediction is 0, as of a new network:
            clip gradients (`clip_grad=dict(max_norm=1.0)`), or the optimizer remembers the first step for thousands.

    Raises:
        ValueError: If an option is unknown, or two options do not go together.
    """

    def __init__(
        self,
        path: Literal['linear', 'gvp', 'vp'] = 'linear',
        prediction: Literal['velocity', 'score', 'noise'] = 'velocity',
        weighting: Literal['none', 'velocity', 'likelihood'] = 'none',
        *,
        network_time: Literal['data_to_noise', 'noise_to_data'] = 'data_to_noise',
        time_sampling: Literal['uniform', 'lognormal'] = 'uniform',
        logit_std: PositiveFloat = 1.0,
        time_shift: PositiveFloat = 1.0,
        direction_weight: NonNegativeFloat = 0.0,
    ) -> None:
        if prediction == 'velocity' and weighting != 'none':
            raise ValueError(
                f"Interpolant.weighting: got {weighting!r}; expected 'none' with prediction='velocity', whose loss has "
                'no weights.'
            )
        if time_sampling == 'lognormal' and path == 'vp':
            raise ValueError(
                "Interpolant.time_sampling: got 'lognormal' with path='vp'; expected the path linear or gvp; use "
                "'uniform'."
            )
        if logit_std != 1 and time_sampling != 'lognormal':
            raise ValueError(
                f'Interpolant.logit_std: got {logit_std} with time_sampling={time_sampling!r}; expected '
                "time_sampling='lognormal', or leave it out."
            )
        if direction_weight and prediction != 'velocity':
            raise ValueError(
                f'Interpolant.direction_weight: got {direction_weight} with prediction={prediction!r}; expected '
                "prediction='velocity', whose direction it is, or 0."
            )
        self.path, self.prediction, self.weighting = path, prediction, weighting
        self.network_time, self.time_sampling = network_time, time_sampling
        self.logit_std, self.time_shift, self.direction_weight = logit_std, time_shift, direction_weight

    def at(self, times: Tensor) -> Coefficients:
        """Return the path's coefficients at `times` (B,), as (B, 1, 1, 1)."""
        return PATHS[self.path](times.view(-1, 1, 1, 1))

    def interval(self, *, training: bool = False) -> tuple[float, float]:
        """Return the smallest and the largest time, of training or of solving an ODE."""
        if self.path == 'vp':
            return (_TRAIN_MARGIN_VP if training else _MARGIN), 1.0
        return (0.0, 1.0) if self.prediction == 'velocity' else (_MARGIN, 1 - _MARGIN)

    def sample_times(self, numbers: Tensor) -> Tensor:
        """Return times (B,) for numbers (B,): uniform in [0, 1), or normal if `time_sampling` is 'lognormal'."""
        if self.time_sampling == 'lognormal':
            ratio = (self.logit_std * numbers).exp()  # sigma / alpha, solved for the time on each path
            times = ratio / (1 + ratio) if self.path == 'linear' else ratio.atan() * (2 / math.pi)
            return shifted(times, self.time_shift)
        low, high = self.interval(training=True)
        return low + (high - low) * shifted(numbers, self.time_shift)

    def network_times(self, times: Tensor) -> Tensor:
        """Return `times` (B,) as the network counts them."""
        return 1 - times if self.network_time == 'noise_to_data' else times

    def noised(self, x: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return x_t (B, C, h, w) at `times` (B,)."""
        path = self.at(times)
        return path.alpha * x + path.sigma * noise

    def losses(self, output: Tensor, x: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the loss of each sample (B,), the mean over its values; channels of `output` beyond C are ignored.

        Args:
            output: The network's output (B, C or 2C, h, w).
            x: Latents (B, C, h, w).
            noise: (B, C, h, w).
            times: (B,).
        """
        output, path = output[:, : x.shape[1]].float(), self.at(times)
        if self.prediction == 'velocity':
            velocity = path.d_alpha * x + path.d_sigma * noise
            error = output - self._direction * velocity
        else:
            # the score is -noise / sigma; its error times sigma is finite at t = 0
            error = output - noise if self.prediction == 'noise' else output * path.sigma + noise
        squares = error.square()
        if self.weighting == 'velocity':
            squares = squares * (path.diffusion / path.sigma).square()
        elif self.weighting == 'likelihood':
            squares = squares * path.diffusion / path.sigma.square()
        return squares.flatten(1).mean(dim=1)

    def direction_losses(self, output: Tensor, x: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return 1 - the cosine of predicted and true velocity over channels, mean over cells, (B,); as of `losses`."""
        output, path = output[:, : x.shape[1]].float(), self.at(times)
        velocity = self._direction * (path.d_alpha * x + path.d_sigma * noise)
        return (1 - F.cosine_similarity(output, velocity, dim=1)).flatten(1).mean(dim=1)

    def velocity(self, output: Tensor, x: Tensor, times: Tensor) -> Tensor:
        """Return dx_t/dt (B, C, h, w), from data to noise, from the network's output for `x` at `times`.

        Args:
            output: The network's output (B, C or 2C, h, w).
            x: x_t (B, C, h, w).
            times: (B,).
        """
        output = output[:, : x.shape[1]].to(x.dtype)
        if self.prediction == 'velocity':
            return self._direction * output
        path = self.at(times)
        # the probability-flow ODE of the SDE along the path (arXiv 2011.13456, Eq. 13)
        return path.d_log_alpha * x - path.diffusion * self.score(output, x, times)

    def score(self, output: Tensor, x: Tensor, times: Tensor) -> Tensor:
        """Return the gradient of the log-density at `x` (B, C, h, w); arguments as of `velocity`."""
        output, path = output[:, : x.shape[1]].to(x.dtype), self.at(times)
        if self.prediction == 'score':
            return output
        if self.prediction == 'noise':
            return -output / path.sigma
        # x_t and the velocity are two linear equations for data and noise; the score is -noise / sigma
        fading = path.alpha / path.d_alpha
        return (fading * self._direction * output - x) / (path.sigma * (path.sigma - fading * path.d_sigma))

    @property
    def _direction(self) -> int:
        """The sign of the network's velocity."""
        return -1 if self.network_time == 'noise_to_data' else 1


@GENERATORS.register_module()
class SiT(Generator):
    """A network that predicts velocity, score or noise of an interpolant (arXiv 2401.08740).

    Args:
        network: For instance a `DiffusionTransformer`.
        process: The path, and the quantity that the network predicts.
        p_unconditional: Probability that a label is replaced by no class.

    Raises:
        ValueError: If `process` is of another kind, or the probability is outside [0, 1].
    """

    def __init__(self, network: nn.Module, process: Interpolant, *, p_unconditional: Probability = 0.1) -> None:
        super().__init__(network)
        name = type(self).__name__
        if not isinstance(process, Interpolant):
            raise ValueError(f'{name}.process: got {type(process).__name__}; expected Interpolant; see also DiT.')
        self.process, self.p_unconditional = process, p_unconditional

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss' and, with a direction loss, its parts 'mse' and 'direction'; see `Generator.loss`."""
        between = self.interpolate(batch, streams)
        output = self.network(between.noisy, self.process.network_times(between.times), between.labels)
        return self.denoising_losses(output, batch['latents'], between)

    def interpolate(self, batch: Mapping[str, Any], streams: SampleStreams) -> Interpolation:
        """Return the batch at random times.

        Each sample's stream gives its time, then its noise, then whether its label is dropped.
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

    def denoising_losses(self, output: Tensor, x: Tensor, between: Interpolation) -> dict[str, Tensor]:
        """Return 'loss', a scalar, of the network's output for latents `x` (B, C, h, w), and its parts, if any.

        The process's loss, with the parts 'mse' and 'direction' where it has a direction loss. Subclasses with
        another loss override this.
        """
        mse = self.process.losses(output, x, between.noise, between.times).mean()
        if not self.process.direction_weight:
            return {'loss': mse}
        direction = self.process.direction_losses(output, x, between.noise, between.times).mean()
        return {'loss': mse + self.process.direction_weight * direction, 'mse': mse, 'direction': direction}


def shifted(times: Tensor, shift: float) -> Tensor:
    """Return times in [0, 1] moved towards the noise: s t / (1 + (s - 1) t), which adds log(s) to their logit.

    Stable Diffusion 3 (arXiv 2403.03206, Eq. 23) and FLUX. LightningDiT's `timestep_shift` is 1 / s, since it counts
    time from the noise.

    Args:
        times: 0 at the data, 1 at the noise.
        shift: s; 1 changes nothing.

    Example:
        >>> import torch
        >>> shifted(torch.tensor([0.0, 0.25, 0.5, 1.0]), 3.0)
        tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    return times if shift == 1 else shift * times / (1 + (shift - 1) * times)


def linear(t: Tensor) -> Coefficients:
    """Return the straight path's coefficients, 1 - t and t."""
    one = t.new_ones(())
    return Coefficients(1 - t, t, -one, one)


def gvp(t: Tensor) -> Coefficients:
    """Return the coefficients of the path of constant variance: cosine and sine over a quarter turn."""
    angle = t * (math.pi / 2)
    cosine, sine = angle.cos(), angle.sin()
    return Coefficients(cosine, sine, -sine * (math.pi / 2), cosine * (math.pi / 2))


def vp(t: Tensor) -> Coefficients:
    """Return the coefficients of the variance-preserving diffusion, with rates from 0.1 to 20 (arXiv 2011.13456)."""
    low, high = 0.1, 20.0
    log_alpha = -0.25 * t.square() * (high - low) - 0.5 * t * low
    half_rate = 0.5 * (low + t * (high - low))
    alpha = log_alpha.exp()
    sigma = (-(2 * log_alpha).expm1()).sqrt()  # sqrt(1 - alpha²), without cancellation at small t
    return Coefficients(alpha, sigma, -half_rate * alpha, half_rate * alpha.square() / sigma)


PATHS = {'linear': linear, 'gvp': gvp, 'vp': vp}
