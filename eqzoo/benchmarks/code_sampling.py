"""MaskGIT's sampling beside the same loop in the plainest form."""

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from eqzoo.generators.mask_transformer import MaskTransformer
from eqzoo.generators.maskgit import MaskGIT
from eqzoo.generators.samplers.confidence import Confidence
from eqzoo.randomness import SampleStreams


class PlainConfidence(Confidence):
    """`Confidence` as the release writes it: two predictions in every step, for every sample."""

    def first_probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return `probabilities`, as of any step."""
        return self.probabilities(generator, codes, labels, weight)

    def probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return the probabilities, predicted with and without class even where the weight is 0."""
        tiny = torch.finfo(torch.float32).tiny
        return super().probabilities(generator, codes, labels, weight or tiny)


class PlainTransformer(MaskTransformer):
    """A `MaskTransformer` with logits of classes too, and of the class's place, which are then cut off."""

    def head(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, h * w + 1, D) as logits (B, h * w, K + 1)."""
        logits = F.linear(self.last_layer(tokens), self.tok_emb.weight) + self.bias
        return logits[:, :-1, : self.num_codes + 1]


def compare_sampling(
    size: str | tuple[int, int, int],
    *,
    grid: int,
    num_classes: int,
    batch_size: int,
    steps: int,
    rounds: int,
    device: torch.device,
) -> tuple[dict[str, float], float]:
    """Return each form's images a second, and the share of codes that are the same.

    Both draw with the same random weights, labels and streams; they alternate, and the fastest counts.

    Args:
        size: As `MaskTransformer` takes it.
        grid: Codes of an image's side.
        num_classes: Of which labels are drawn: those that are alike share their first prediction.
        batch_size: Images at once.
        steps: Of the sampler.
        rounds: Batches of each form, after one of a single step that is not timed.
        device: Where.
    """
    torch.manual_seed(0)
    ours = MaskTransformer(size, grid=grid, num_classes=num_classes)
    plain = PlainTransformer(size, grid=grid, num_classes=num_classes)
    plain.load_state_dict(ours.state_dict())
    forms = {
        'eqzoo': (MaskGIT(ours).eval().to(device), Confidence),
        'plain': (MaskGIT(plain).eval().to(device), PlainConfidence),
    }
    labels = torch.randint(num_classes, (batch_size,)).to(device)
    times: dict[str, list[float]] = {name: [] for name in forms}
    codes: dict[str, Tensor] = {}
    for number in range(rounds + 1):
        for name, (generator, sampler) in forms.items():
            started = time.perf_counter()
            streams = SampleStreams(0, torch.arange(batch_size))
            codes[name] = sampler(steps if number else 1)(generator, labels, streams).cpu()  # waits for a GPU
            if number:
                times[name].append(time.perf_counter() - started)
    same = (codes['eqzoo'] == codes['plain']).float().mean()
    return {name: batch_size / min(seconds) for name, seconds in times.items()}, float(same)
