"""Networks that know that the data are Gaussian, and what samplers draw with them."""

import pytest
import torch
from formula_networks import LATENTS, fill
from torch import Tensor, nn

from eqzoo.generators import DiffusionTransformer, DiT, GaussianDiffusion, Interpolant, SiT
from eqzoo.randomness import SampleStreams

MEAN, STD = 0.5, 0.7
SHAPE = (1, 16, 16)


class Exact(nn.Module):
    """The optimal prediction if all values are independent and normal with `MEAN` and `STD`.

    Args:
        process: The process whose prediction is wanted.
        extra: Value of C more output channels, as of a learned variance; None for none.
    """

    latent_shape, num_classes = SHAPE, 3

    def __init__(self, process: GaussianDiffusion | Interpolant, extra: float | None = None) -> None:
        super().__init__()
        self.process, self.extra = process, extra
        self.out_channels = 1 if extra is None else 2
        self.seen = []

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        self.seen.append(times.clone())
        output = self.prediction(x.double(), times)
        return output.float() if self.extra is None else torch.cat([output, self.extra * torch.ones_like(x)], 1).float()

    def prediction(self, x: Tensor, times: Tensor) -> Tensor:
        process = self.process
        if isinstance(process, GaussianDiffusion):
            product = torch.from_numpy(process.products)[times].view(-1, 1, 1, 1)
            return (1 - product).sqrt() * (x - product.sqrt() * MEAN) / (product * STD**2 + 1 - product)
        path = process.at(process.network_times(times).double())  # its own inverse
        score = -(x - path.alpha * MEAN) / (path.alpha**2 * STD**2 + path.sigma**2)
        if process.prediction == 'score':
            return score
        noise = -path.sigma * score
        if process.prediction == 'noise':
            return noise
        data = MEAN + path.alpha * STD**2 * (x - path.alpha * MEAN) / (path.alpha**2 * STD**2 + path.sigma**2)
        velocity = path.d_alpha * data + path.d_sigma * noise
        return -velocity if process.network_time == 'noise_to_data' else velocity


def generator(process: GaussianDiffusion | Interpolant, extra: float | None = None) -> DiT | SiT:
    kind = DiT if isinstance(process, GaussianDiffusion) else SiT
    return kind(Exact(process, extra), process).eval()


def carried(x: Tensor, alpha: float, sigma: float, alpha_end: float = 1.0, sigma_end: float = 0.0) -> Tensor:
    """Return where the probability-flow ODE leads `x` from (alpha, sigma): every quantile stays the same."""
    before = (alpha**2 * STD**2 + sigma**2) ** 0.5
    after = (alpha_end**2 * STD**2 + sigma_end**2) ** 0.5
    return alpha_end * MEAN + (x.double() - alpha * MEAN) / before * after


COUNT = 16  # samples of 256 values: mean and deviation are known to 0.011 and 0.008
LABELS = torch.arange(COUNT) % 4
FORMS = ('sigma', 'linear', 'sbdm', 'constant', 'decreasing', 'increasing-decreasing')


def streams(numbers=range(COUNT)):
    return SampleStreams(0, torch.tensor(list(numbers)))


def first_noise():
    return streams().normal(torch.zeros(COUNT, 1, 16, 16))


def draw(sampler, process, extra=None):
    return sampler(generator(process, extra), LABELS, streams())


def assert_gaussian(samples, tolerance=0.03):
    assert samples.dtype == torch.float32
    assert float(samples.mean()) == pytest.approx(MEAN, abs=tolerance)
    assert float(samples.std()) == pytest.approx(STD, abs=tolerance)


def transformer(kind=SiT, process=None, **arguments):
    network = fill(DiffusionTransformer((1, 32, 2), 4, **{**LATENTS, **arguments}))
    return kind(network, process or Interpolant()).eval()
