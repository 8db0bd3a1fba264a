"""Stochastic interpolants: paths in continuous time, and what a network learns of them (arXiv 2401.08740)."""

import math
from typing import Literal

from torch import Tensor

from eqzoo.generators.paths import PATHS, Coefficients
from eqzoo.registry import PROCESSES

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
