"""Paths from data to noise, x_t = alpha(t) x + sigma(t) noise: t = 0 is data, t = 1 noise (arXiv 2401.08740)."""

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


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
