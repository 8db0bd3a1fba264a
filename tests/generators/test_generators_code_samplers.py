"""Samplers of codes: what each step fixes, with what guidance, and draws that follow the probabilities."""

import itertools

import pytest
import torch
from deterministic import fill
from torch import nn

from eqzoo.generators import Confidence, DiT, GaussianDiffusion, Halton, MaskGIT, MaskTransformer
from eqzoo.generators.samplers.codes import codes_after_steps, draw_codes, gumbel, halton_order
from eqzoo.randomness import SampleStreams

GRID, NUM_CODES, CLASSES = 4, 6, 3
LABELS = torch.tensor([0, 2, 2, 1, 0])


class Told(nn.Module):
    """A network that wants a code at each place whatever it sees, surer of later places, and remembers its inputs.

    The wish of no class is another one.
    """

    num_codes, num_classes, mask_code, latent_shape = NUM_CODES, CLASSES, NUM_CODES, (GRID, GRID)

    def __init__(self, strength=30.0):
        super().__init__()
        self.strength, self.seen = strength, []

    def wanted(self, labels):
        return (torch.arange(GRID**2) + labels[:, None]) % NUM_CODES

    def forward(self, codes, labels):
        self.seen.append((codes.flatten(1).clone(), labels))
        strengths = self.strength * (1 + torch.arange(GRID**2) / GRID**2)
        return nn.functional.one_hot(self.wanted(labels), NUM_CODES + 1) * strengths[:, None]


def told(**options):
    return MaskGIT(Told(**options)).eval()


def streams(numbers=range(5), seed=0):
    return SampleStreams(seed, torch.tensor(list(numbers)))


def transformer():
    return MaskGIT(fill(MaskTransformer((2, 16, 2), NUM_CODES, grid=GRID, num_classes=CLASSES)).double()).eval()


SAMPLERS = (
    Confidence(4, guidance=1.5),
    Halton(4, guidance=1.5),
    Halton(5, guidance=0.5, redraw=True),
    Halton(4, random_start=True),
)


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_sure_networks_get_what_they_want(sampler):
    generator = told()
    codes = sampler(generator, LABELS, streams())
    assert codes.dtype == torch.int64
    assert torch.equal(codes.flatten(1), generator.network.wanted(LABELS))


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_a_sample_is_itself_in_every_batch(sampler):
    generator = transformer()
    whole = sampler(generator, LABELS, streams())
    parts = [sampler(generator, LABELS[part], streams(range(5)[part])) for part in (slice(0, 2), slice(2, 5))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(sampler(generator, LABELS, streams(seed=1)), whole)


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_every_code_is_drawn_and_none_is_a_mask(sampler):
    codes = sampler(MaskGIT(Told(0.0)).eval(), LABELS.repeat(20), streams(range(100)))
    assert codes.unique().tolist() == list(range(NUM_CODES))  # the mask's logit is as large


def test_the_first_step_predicts_once_a_class_and_guidance_once_more():
    generator = told()
    Confidence(3, guidance=2.0)(generator, LABELS, streams())
    labels = [seen.tolist() for _, seen in generator.network.seen]
    assert labels == [[0, 1, 2], [*LABELS.tolist(), 3, 3, 3, 3, 3], [*LABELS.tolist(), 3, 3, 3, 3, 3]]
    generator = told()
    Halton(3, guidance=2.0)(generator, LABELS, streams())
    assert generator.network.seen[0][1].tolist() == [0, 1, 2, 3, 3, 3]
    generator = told()
    Halton(3, guidance=0.0)(generator, LABELS, streams())
    assert [len(seen) for _, seen in generator.network.seen] == [3, 5, 5]


def test_confidence_keeps_the_surest_codes():
    """Without Gumbel noise the places that the network is surest of come first: the last ones."""
    generator = told(strength=1.5)
    Confidence(4, guidance=0.0, gumbel_temperature=0.0)(generator, LABELS, streams())
    masked = [(codes == NUM_CODES).sum(dim=1).unique().tolist() for codes, _ in generator.network.seen]
    assert masked == [[16], [15], [11], [6]]  # 1, 4, 5 and 6 codes a step
    mean_place = [(codes != NUM_CODES).float() @ torch.arange(16.0) for codes, _ in generator.network.seen[1:]]
    assert float(mean_place[2].mean() / 10) > 7.5 + 1


def test_confidence_never_changes_what_it_kept():
    generator = transformer()
    seen = []
    generator.network.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].flatten(1)[: len(LABELS)].clone())
    )
    last = Confidence(6)(generator, LABELS, streams()).flatten(1)
    for before, after in zip(seen[1:], [*seen[2:], last], strict=True):
        kept = before != NUM_CODES
        assert torch.equal(before[kept], after[kept])


def test_guidance_and_temperature_are_as_released():
    """(1 + w) cond - w uncond, w rising from nothing: seen in the probabilities."""
    generator = transformer()
    network = generator.network
    codes = torch.full((5, 16), NUM_CODES)
    nothing = torch.full_like(LABELS, CLASSES)
    conditional, unconditional = (network(codes.view(5, 4, 4), labels) for labels in (LABELS, nothing))
    for weight, temperature in ((0.0, 1.0), (2.0, 1.0), (0.7, 0.5)):
        given = Confidence(4, temperature=temperature).probabilities(generator, codes, LABELS, weight)
        logits = ((1 + weight) * conditional - weight * unconditional)[..., :NUM_CODES] / temperature
        torch.testing.assert_close(given, logits.softmax(dim=2).float(), rtol=1e-4, atol=1e-6)
    asked = []
    sampler = Confidence(5, guidance=2.0)
    plain = sampler.probabilities
    sampler.probabilities = lambda *arguments: asked.append(arguments[-1]) or plain(*arguments)
    sampler(generator, LABELS, streams())
    assert asked == [0, 0.5, 1.0, 1.5, 2.0]
    asked.clear()
    sampler.steps = 1
    sampler(generator, LABELS, streams())
    assert asked == [2.0]


def test_the_first_step_is_noisy_and_the_last_is_not():
    """Gumbel noise decides what stays first: much of it spreads the first code over all places."""
    places = {}
    for temperature in (0.0, 100.0):
        generator = told()
        Confidence(8, gumbel_temperature=temperature)(generator, torch.zeros(200).long(), streams(range(200)))
        places[temperature] = (generator.network.seen[1][0][:200] != NUM_CODES).float().sum(dim=0)
    assert places[0.0].argmax() == 15 or places[0.0].count_nonzero() < 16
    assert places[100.0].count_nonzero() == 16
    assert float(places[100.0].max()) < 40  # of 200 on 16 places


def test_draws_follow_the_probabilities():
    torch.manual_seed(0)
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2]).expand(1, 40_000, 4)
    drawn = draw_codes(probabilities, torch.rand(1, 40_000)).flatten()
    counts = drawn.bincount(minlength=4) / 40_000
    torch.testing.assert_close(counts, probabilities[0, 0], rtol=0, atol=0.01)
    ends = draw_codes(probabilities[:, :3], torch.tensor([[0.0, 0.5, 1 - 2**-24]]))
    assert ends.tolist() == [[0, 2, 3]]  # a code without probability is never drawn


def test_gumbel_noise_has_gumbels_moments():
    noise = gumbel(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 6, abs=0.05)
    assert torch.isfinite(gumbel(torch.tensor([0.0, 1 - 2**-24]))).all()


# The release's `build_halton_mask(4)` (5ffd61f).
def test_haltons_order_is_the_released_one():
    assert halton_order(4, 4).tolist() == [9, 6, 12, 1, 11, 4, 14, 3, 8, 5, 0, 7, 13, 2, 15, 10]
    assert halton_order(5, 3).sort().values.tolist() == list(range(15))


def test_halton_fixes_places_in_its_order():
    generator = told(strength=1.0)
    Halton(4, guidance=0.0)(generator, LABELS, streams())
    order = halton_order(GRID, GRID)
    assert codes_after_steps(4, 16) == [2, 5, 8, 16]
    for (codes, _), count in zip(generator.network.seen[1:], [2, 5, 8], strict=True):
        there = torch.zeros(16, dtype=torch.bool)
        there[order[:count]] = True
        assert torch.equal(codes != NUM_CODES, there.expand(5, 16))


def test_halton_may_start_anywhere_in_its_order():
    generator = told()
    Halton(16, guidance=0.0, random_start=True)(generator, torch.zeros(60).long(), streams(range(60)))
    first = (generator.network.seen[1][0] != NUM_CODES).float().argmax(dim=1)
    assert len(first.unique()) > 12
    starts = (streams(range(60)).uniform() * 16).long()
    assert torch.equal(first, halton_order(GRID, GRID)[starts])


@pytest.mark.parametrize('redraw', [False, True])
def test_halton_draws_codes_anew_only_if_asked(redraw):
    generator = told(strength=0.5)
    Halton(8, guidance=0.0, redraw=redraw)(generator, LABELS, streams())
    seen = [codes for codes, _ in generator.network.seen[1:]]
    changed = [bool((a != b)[a != NUM_CODES].any()) for a, b in itertools.pairwise(seen)]
    assert any(changed) == redraw


@pytest.mark.parametrize('kind', [Confidence, Halton])
def test_what_does_not_fit_is_refused(kind):
    with pytest.raises(ValueError, match=f'{kind.__name__}.steps must be at least 1, got 0'):
        kind(0)
    with pytest.raises(ValueError, match=f'{kind.__name__}.temperature must be positive, got 0'):
        kind(4, temperature=0)
    with pytest.raises(ValueError, match=f'{kind.__name__}.steps: got 17; accepted are 1 to 16, the codes of an image'):
        kind(17).check(told())
    with pytest.raises(ValueError, match=r'labels: got \[4\]; accepted are 0 to 2, and 3 for no class'):
        kind(4)(told(), torch.tensor([4]), streams([0]))
    diffusion = DiT(nn.Identity(), GaussianDiffusion())
    with pytest.raises(ValueError, match=f'{kind.__name__} draws codes, for MaskGIT; DiT makes latents; DDPM, DDIM'):
        kind(4).check(diffusion)


def test_confidences_own_arguments_are_checked():
    with pytest.raises(ValueError, match="Confidence.schedule: got 'sine'; accepted are arccos"):
        Confidence(schedule='sine')
    with pytest.raises(ValueError, match='Confidence.gumbel_temperature must be at least 0, got -1'):
        Confidence(gumbel_temperature=-1)
