"""MaskGIT: masking schedules, the loss, and samplers of codes."""

import itertools

import pytest
import torch
from formula_networks import fill
from torch import nn
from torch.nn import functional as F

from eqzoo.generators import Confidence, DiT, GaussianDiffusion, Halton, MaskGIT, MaskTransformer
from eqzoo.generators.maskgit import codes_per_step, masked_share, mean_masked_share
from eqzoo.generators.samplers.codes import codes_after_steps, draw_codes, gumbel, halton_order
from eqzoo.randomness import SampleStreams

SCHEDULES = ('arccos', 'cosine', 'linear', 'square')
COUNT, GRID, NUM_CODES = 64, 8, 5
CODES = torch.arange(COUNT * GRID**2).view(COUNT, GRID, GRID) * 7 % NUM_CODES
BATCH = dict(codes=CODES, labels=torch.arange(COUNT) % 3)


class FixedLogits(nn.Module):
    """A network that returns given logits and records its inputs."""

    num_codes, num_classes, mask_code, latent_shape = NUM_CODES, 3, NUM_CODES, (GRID, GRID)

    def __init__(self, logits):
        super().__init__()
        self.logits, self.seen = logits, []

    def forward(self, codes, labels):
        self.seen.append((codes, labels))
        return self.logits


def with_logits(logits=None, **options):
    logits = torch.zeros(COUNT, GRID**2, NUM_CODES + 1) if logits is None else logits
    return MaskGIT(FixedLogits(logits), **options)


def streams(seed=0, numbers=range(COUNT)):
    return SampleStreams(seed, torch.tensor(list(numbers)))


def masks(generator, seed=0):
    generator.loss(BATCH, streams(seed))
    return generator.network.seen[-1][0] == NUM_CODES


@pytest.mark.parametrize(
    ('name', 'middle'), [('arccos', 2 / 3), ('cosine', 0.5**0.5), ('linear', 0.5), ('square', 0.75)]
)
def test_schedules_fall_from_all_to_nothing(name, middle):
    r = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    share = masked_share(name, r)
    torch.testing.assert_close(share[[0, 5000, -1]], torch.tensor([1, middle, 0], dtype=torch.float64))
    assert (share.diff() < 0).all()
    assert float(torch.trapezoid(share, r)) == pytest.approx(mean_masked_share(name), abs=1e-5)


# What the release's `adap_sche` (5ce6c9e) gives.
@pytest.mark.parametrize(
    ('name', 'steps', 'codes', 'expected'),
    [
        ('arccos', 8, 256, [1, 18, 26, 32, 38, 43, 48, 50]),
        ('cosine', 8, 256, [1, 12, 22, 32, 41, 47, 51, 50]),
        ('linear', 8, 256, [1, 9, 18, 27, 37, 46, 55, 63]),
        ('square', 8, 256, [1, 13, 24, 34, 41, 46, 49, 48]),
        ('arccos', 1, 64, [64]),
        ('arccos', 2, 64, [1, 63]),
    ],
)
def test_steps_fix_as_many_codes_as_released(name, steps, codes, expected):
    assert codes_per_step(name, steps, codes) == expected


@pytest.mark.parametrize('name', SCHEDULES)
def test_every_step_fixes_a_code_and_all_steps_all(name):
    for codes in (16, 64, 256):
        for steps in range(1, codes + 1, 3):
            counts = codes_per_step(name, steps, codes)
            assert (len(counts), sum(counts)) == (steps, codes)
            assert min(counts) >= 1


@pytest.mark.parametrize('name', SCHEDULES)
def test_each_sample_is_masked_by_its_share(name):
    generator = with_logits(schedule=name)
    shares = torch.cat([masks(generator, seed).float().mean(dim=(1, 2)) for seed in range(8)])
    expected = torch.cat([masked_share(name, streams(seed).uniform()) for seed in range(8)])
    assert float((shares - expected).abs().max()) < 5 * 0.5 / GRID  # five deviations of a mean of 64 coins
    assert float((shares - expected).mean()) == pytest.approx(0, abs=0.01)
    assert float(shares.std()) > 0.2  # of each sample, not of all


def test_the_network_sees_only_codes_that_are_not_masked():
    generator = with_logits()
    hidden = masks(generator)
    seen = generator.network.seen[0][0]
    assert torch.equal(seen[~hidden], CODES[~hidden])
    assert 0.5 < float(hidden.float().mean()) < 0.8


def test_labels_are_dropped_with_the_given_probability():
    seen = {}
    for probability in (0.0, 0.3, 1.0):
        generator = with_logits(p_unconditional=probability)
        generator.loss(BATCH, streams())
        seen[probability] = generator.network.seen[0][1]
    assert torch.equal(seen[0.0], BATCH['labels'])
    assert set(seen[1.0].tolist()) == {3}
    assert 0.1 < float((seen[0.3] == 3).float().mean()) < 0.5


def test_the_loss_is_cross_entropy_on_all_codes_or_the_masked():
    torch.manual_seed(0)
    logits = torch.randn(COUNT, GRID**2, NUM_CODES + 1)
    log = logits.log_softmax(dim=2)
    target = F.one_hot(CODES.flatten(1), NUM_CODES + 1)
    for smoothing in (0.0, 0.1):
        wanted = (1 - smoothing) * target + smoothing / (NUM_CODES + 1)
        losses = -(wanted * log).sum(dim=2)
        of_all, of_masked = (with_logits(logits, label_smoothing=smoothing, loss_on=on) for on in ('all', 'masked'))
        hidden = masks(of_all).flatten(1)
        assert float(of_all.loss(BATCH, streams())['loss']) == pytest.approx(float(losses.mean()), rel=1e-5)
        expected = losses[hidden].sum() / losses.numel() / (2 / torch.pi)
        assert float(of_masked.loss(BATCH, streams())['loss']) == pytest.approx(float(expected), rel=1e-5)


def test_accuracy_counts_masked_codes():
    right = F.one_hot(CODES.flatten(1), NUM_CODES + 1).float()
    assert float(with_logits(right).loss(BATCH, streams())['accuracy']) == 1
    assert float(with_logits(right.roll(1, dims=2)).loss(BATCH, streams())['accuracy']) == 0
    half = right.clone()
    half[: COUNT // 2] = half[: COUNT // 2].roll(1, dims=2)
    assert float(with_logits(half).loss(BATCH, streams())['accuracy']) == 0.5


def network(dropout):
    torch.manual_seed(1)
    made = fill(MaskTransformer((1, 16, 2), NUM_CODES, grid=GRID, num_classes=3, dropout=dropout))
    return MaskGIT(made, loss_on='masked').train()


def test_a_batch_may_be_cut_anywhere_without_dropout():
    generator = network(0.0)
    whole = generator.loss(BATCH, streams())
    parts = []
    for part in (slice(0, 24), slice(24, COUNT)):
        piece = {name: value[part] for name, value in BATCH.items()}
        losses = generator.loss(piece, streams(numbers=range(COUNT)[part]))
        parts.append({name: value * len(piece['labels']) / COUNT for name, value in losses.items()})
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value)


def test_dropout_repeats_itself_and_leaves_torchs_stream_alone():
    generator = network(0.5)
    torch.manual_seed(3)
    first = generator.loss(BATCH, streams(1))['loss']
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    again, other = (generator.loss(BATCH, streams(seed))['loss'] for seed in (1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, network(0.0).loss(BATCH, streams(1))['loss'])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(schedule='sine'), "MaskGIT.schedule: got 'sine'; expected one of arccos, cosine, linear, square"),
        (dict(p_unconditional=2), r'MaskGIT.p_unconditional must be in \[0, 1\], got 2'),
        (dict(label_smoothing=-1), r'MaskGIT.label_smoothing must be in \[0, 1\], got -1'),
        (dict(loss_on='some'), "MaskGIT.loss_on must be 'all' or 'masked', got 'some'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        with_logits(**arguments)


SIDE, VOCABULARY, CLASSES = 4, 6, 3
LABELS = torch.tensor([0, 2, 2, 1, 0])


class Certain(nn.Module):
    """A network that prefers a fixed code at each place, more strongly at later places, and records its inputs.

    For no class it prefers other codes.
    """

    num_codes, num_classes, mask_code, latent_shape = VOCABULARY, CLASSES, VOCABULARY, (SIDE, SIDE)

    def __init__(self, strength=30.0):
        super().__init__()
        self.strength, self.seen = strength, []

    def wanted(self, labels):
        return (torch.arange(SIDE**2) + labels[:, None]) % VOCABULARY

    def forward(self, codes, labels):
        self.seen.append((codes.flatten(1).clone(), labels))
        strengths = self.strength * (1 + torch.arange(SIDE**2) / SIDE**2)
        return nn.functional.one_hot(self.wanted(labels), VOCABULARY + 1) * strengths[:, None]


def certain(**options):
    return MaskGIT(Certain(**options)).eval()


def five_streams(numbers=range(5), seed=0):
    return SampleStreams(seed, torch.tensor(list(numbers)))


def transformer():
    return MaskGIT(fill(MaskTransformer((2, 16, 2), VOCABULARY, grid=SIDE, num_classes=CLASSES)).double()).eval()


SAMPLERS = (
    Confidence(4, guidance=1.5),
    Halton(4, guidance=1.5),
    Halton(5, guidance=0.5, redraw=True),
    Halton(4, random_start=True),
)


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_codes_are_those_of_a_certain_network(sampler):
    generator = certain()
    codes = sampler(generator, LABELS, five_streams())
    assert codes.dtype == torch.int64
    assert torch.equal(codes.flatten(1), generator.network.wanted(LABELS))


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_a_samples_codes_are_the_same_in_every_batch(sampler):
    generator = transformer()
    whole = sampler(generator, LABELS, five_streams())
    parts = [sampler(generator, LABELS[part], five_streams(range(5)[part])) for part in (slice(0, 2), slice(2, 5))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(sampler(generator, LABELS, five_streams(seed=1)), whole)


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_every_code_is_drawn_and_none_is_a_mask(sampler):
    codes = sampler(MaskGIT(Certain(0.0)).eval(), LABELS.repeat(20), five_streams(range(100)))
    assert codes.unique().tolist() == list(range(VOCABULARY))  # the mask's logit is as large


def test_the_first_step_predicts_once_per_class_and_guidance_doubles_it():
    generator = certain()
    Confidence(3, guidance=2.0)(generator, LABELS, five_streams())
    labels = [seen.tolist() for _, seen in generator.network.seen]
    assert labels == [[0, 1, 2], [*LABELS.tolist(), 3, 3, 3, 3, 3], [*LABELS.tolist(), 3, 3, 3, 3, 3]]
    generator = certain()
    Halton(3, guidance=2.0)(generator, LABELS, five_streams())
    assert generator.network.seen[0][1].tolist() == [0, 1, 2, 3, 3, 3]
    generator = certain()
    Halton(3, guidance=0.0)(generator, LABELS, five_streams())
    assert [len(seen) for _, seen in generator.network.seen] == [3, 5, 5]


def test_confidence_keeps_the_surest_codes():
    """Without Gumbel noise the places of highest confidence, the last ones, come first."""
    generator = certain(strength=1.5)
    Confidence(4, guidance=0.0, gumbel_temperature=0.0)(generator, LABELS, five_streams())
    masked = [(codes == VOCABULARY).sum(dim=1).unique().tolist() for codes, _ in generator.network.seen]
    assert masked == [[16], [15], [11], [6]]  # 1, 4, 5 and 6 codes a step
    mean_place = [(codes != VOCABULARY).float() @ torch.arange(16.0) for codes, _ in generator.network.seen[1:]]
    assert float(mean_place[2].mean() / 10) > 7.5 + 1


def test_confidence_never_changes_what_it_kept():
    generator = transformer()
    seen = []
    generator.network.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].flatten(1)[: len(LABELS)].clone())
    )
    last = Confidence(6)(generator, LABELS, five_streams()).flatten(1)
    for before, after in zip(seen[1:], [*seen[2:], last], strict=True):
        kept = before != VOCABULARY
        assert torch.equal(before[kept], after[kept])


def test_guidance_and_temperature_are_as_released():
    """(1 + w) cond - w uncond, with w rising from 0: compared by probabilities."""
    generator = transformer()
    network = generator.network
    codes = torch.full((5, 16), VOCABULARY)
    nothing = torch.full_like(LABELS, CLASSES)
    conditional, unconditional = (network(codes.view(5, 4, 4), labels) for labels in (LABELS, nothing))
    for weight, temperature in ((0.0, 1.0), (2.0, 1.0), (0.7, 0.5)):
        given = Confidence(4, temperature=temperature).probabilities(generator, codes, LABELS, weight)
        logits = ((1 + weight) * conditional - weight * unconditional)[..., :VOCABULARY] / temperature
        torch.testing.assert_close(given, logits.softmax(dim=2).float(), rtol=1e-4, atol=1e-6)
    asked = []
    sampler = Confidence(5, guidance=2.0)
    plain = sampler.probabilities
    sampler.probabilities = lambda *arguments: asked.append(arguments[-1]) or plain(*arguments)
    sampler(generator, LABELS, five_streams())
    assert asked == [0, 0.5, 1.0, 1.5, 2.0]
    asked.clear()
    sampler.steps = 1
    sampler(generator, LABELS, five_streams())
    assert asked == [2.0]


def test_the_first_step_is_noisy_and_the_last_is_not():
    """Much Gumbel noise spreads the first code over all places."""
    places = {}
    for temperature in (0.0, 100.0):
        generator = certain()
        Confidence(8, gumbel_temperature=temperature)(generator, torch.zeros(200).long(), five_streams(range(200)))
        places[temperature] = (generator.network.seen[1][0][:200] != VOCABULARY).float().sum(dim=0)
    assert places[0.0].argmax() == 15 or places[0.0].count_nonzero() < 16
    assert places[100.0].count_nonzero() == 16
    assert float(places[100.0].max()) < 40  # of 200 on 16 places


def test_the_noise_falls_linearly_to_zero(monkeypatch):
    scales = []

    class Noise:
        def __rmul__(self, scale):
            scales.append(scale)
            return torch.zeros(())

    monkeypatch.setattr('eqzoo.generators.samplers.codes.gumbel', lambda uniform: Noise())
    Confidence(4, gumbel_temperature=4.5)(certain(), torch.zeros(2).long(), five_streams(range(2)))
    assert scales == pytest.approx([4.5, 3.0, 1.5, 0.0])


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
def test_haltons_order_is_as_released():
    assert halton_order(4, 4).tolist() == [9, 6, 12, 1, 11, 4, 14, 3, 8, 5, 0, 7, 13, 2, 15, 10]
    assert halton_order(5, 3).sort().values.tolist() == list(range(15))


def test_halton_fixes_places_in_its_order():
    generator = certain(strength=1.0)
    Halton(4, guidance=0.0)(generator, LABELS, five_streams())
    order = halton_order(SIDE, SIDE)
    assert codes_after_steps(4, 16) == [2, 5, 8, 16]
    for (codes, _), count in zip(generator.network.seen[1:], [2, 5, 8], strict=True):
        there = torch.zeros(16, dtype=torch.bool)
        there[order[:count]] = True
        assert torch.equal(codes != VOCABULARY, there.expand(5, 16))


def test_halton_may_start_anywhere_in_its_order():
    generator = certain()
    Halton(16, guidance=0.0, random_start=True)(generator, torch.zeros(60).long(), five_streams(range(60)))
    first = (generator.network.seen[1][0] != VOCABULARY).float().argmax(dim=1)
    assert len(first.unique()) > 12
    starts = (five_streams(range(60)).uniform() * 16).long()
    assert torch.equal(first, halton_order(SIDE, SIDE)[starts])


@pytest.mark.parametrize('redraw', [False, True])
def test_halton_redraws_codes_only_if_asked(redraw):
    generator = certain(strength=0.5)
    Halton(8, guidance=0.0, redraw=redraw)(generator, LABELS, five_streams())
    seen = [codes for codes, _ in generator.network.seen[1:]]
    changed = [bool((a != b)[a != VOCABULARY].any()) for a, b in itertools.pairwise(seen)]
    assert any(changed) == redraw


@pytest.mark.parametrize('kind', [Confidence, Halton])
def test_unfit_arguments_are_refused(kind):
    with pytest.raises(ValueError, match=f'{kind.__name__}.steps must be at least 1, got 0'):
        kind(0)
    with pytest.raises(ValueError, match=f'{kind.__name__}.temperature must be above 0, got 0'):
        kind(4, temperature=0)
    with pytest.raises(ValueError, match=f'{kind.__name__}.steps: got 17; expected 1 to 16'):
        kind(17).check(certain())
    with pytest.raises(ValueError, match='labels: got 4; expected 0 to 2, or 3 '):
        kind(4)(certain(), torch.tensor([4]), five_streams([0]))
    diffusion = DiT(nn.Identity(), GaussianDiffusion())
    with pytest.raises(ValueError, match=f'{kind.__name__} draws codes, for MaskGIT; DiT makes latents; DDPM, DDIM'):
        kind(4).check(diffusion)


def test_confidences_own_arguments_are_checked():
    with pytest.raises(ValueError, match="Confidence.schedule: got 'sine'; expected one of arccos"):
        Confidence(schedule='sine')
    with pytest.raises(ValueError, match='Confidence.gumbel_temperature must be at least 0, got -1'):
        Confidence(gumbel_temperature=-1)


# The release's `HaltonSampler` (f61b0a1): linspace(sm_temp_min, sm_temp_max, step)[s] ** temp_pow, halved in the first
# temp_warmup steps, multiplies the logits.
@pytest.mark.parametrize(
    ('least', 'most', 'power', 'warmup'), [(1.0, 1.2, 1.0, 0), (0.8, 1.3, 2.0, 3), (1.5, 0.5, 0.5, 1)]
)
def test_haltons_ramp_of_temperatures_is_as_released(least, most, power, warmup):
    factors = [(least + (most - least) * step / 6) ** power * (0.5 if step < warmup else 1) for step in range(7)]
    sampler = Halton(7, temperature=least**-power, last_temperature=most**-power, ramp_power=power, hot_steps=warmup)
    assert [1 / each for each in sampler.temperatures()] == pytest.approx(factors, rel=1e-9)
    assert Halton(3, temperature=0.7, hot_steps=1).temperatures() == [1.4, 0.7, 0.7]
    assert Halton(1, temperature=0.7, last_temperature=0.5).temperatures() == pytest.approx([0.7])


def test_each_step_of_halton_has_its_temperature():
    generator, asked = transformer(), []
    sampler = Halton(4, temperature=2.0, last_temperature=0.5, guidance=0.0)
    plain = sampler.probabilities
    sampler.probabilities = lambda *arguments: asked.append(arguments[-1]) or plain(*arguments)
    sampler(generator, LABELS, five_streams())
    assert asked == pytest.approx([2.0, 1.0, 1 / 1.5, 0.5])
    codes = torch.full((5, 16), VOCABULARY)
    logits = generator.network(codes.view(5, 4, 4), LABELS)[..., :VOCABULARY]
    given = plain(generator, codes, LABELS, 0.0, 0.5)
    torch.testing.assert_close(given, (2 * logits).softmax(dim=2).float(), rtol=1e-4, atol=1e-6)


def test_top_k_leaves_the_most_probable_codes():
    generator, codes = transformer(), torch.full((5, 16), VOCABULARY)
    every = Halton(4).probabilities(generator, codes, LABELS, 1.0)
    for top_k in (1, 3, VOCABULARY):
        given = Halton(4, top_k=top_k).probabilities(generator, codes, LABELS, 1.0)
        rank = every.argsort(dim=2, descending=True).argsort(dim=2)
        kept = every * (rank < top_k)
        torch.testing.assert_close(given, kept / kept.sum(dim=2, keepdim=True))
        assert ((given > 0).sum(dim=2) == top_k).all()
    with pytest.raises(ValueError, match=rf'Halton.top_k: got {VOCABULARY + 1}; expected 1 to {VOCABULARY}'):
        Halton(4, top_k=VOCABULARY + 1)(generator, LABELS, five_streams())
    with pytest.raises(ValueError, match=r'Halton.top_k must be at least 1 or None, got 0'):
        Halton(4, top_k=0)


def holes():
    """Codes with different numbers of masked places: none, one, a box, a half and all."""
    codes = torch.arange(5 * 16).view(5, 4, 4) * 3 % VOCABULARY
    codes[1, 2, 1] = codes[2, 1:3, 1:3] = codes[3, :, 2:] = codes[4] = VOCABULARY
    return codes


@pytest.mark.parametrize('sampler', [*SAMPLERS, Confidence(16), Halton(16), Confidence(1), Halton(1)])
def test_given_codes_are_kept_and_all_others_drawn(sampler):
    generator, given = certain(), holes()
    wanted = generator.network.wanted(LABELS).view(5, 4, 4)
    masked = given == VOCABULARY
    before = given.clone()
    filled = sampler(generator, LABELS, five_streams(), codes=given)
    assert torch.equal(filled, torch.where(masked, wanted, given))
    assert torch.equal(given, before)


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_inpainting_does_not_depend_on_the_batch_and_begins_like_sampling(sampler):
    generator, given = transformer(), holes()
    whole = sampler(generator, LABELS, five_streams(), codes=given)
    parts = [
        sampler(generator, LABELS[part], five_streams(range(5)[part]), codes=given[part])
        for part in (slice(0, 2), slice(2, 5))
    ]
    assert torch.equal(torch.cat(parts), whole)
    empty = torch.full_like(given, VOCABULARY)
    assert torch.equal(
        sampler(generator, LABELS, five_streams(), codes=empty), sampler(generator, LABELS, five_streams())
    )
    assert torch.equal(whole[4], sampler(generator, LABELS, five_streams())[4])


def test_halton_fills_holes_in_its_order():
    generator = certain(strength=1.0)
    Halton(4, guidance=0.0)(generator, LABELS, five_streams(), codes=holes())
    order = halton_order(SIDE, SIDE).tolist()
    box = [place for place in order if place // 4 in (1, 2) and place % 4 in (1, 2)]
    limits = codes_after_steps(4, 4)
    for (codes, _), count in zip(generator.network.seen[1:], limits, strict=False):
        still = (codes[2].flatten() == VOCABULARY).nonzero().flatten().tolist()
        assert sorted(still) == sorted(box[count:])


@pytest.mark.parametrize('codes', [torch.zeros(5, 4, 3).long(), torch.full((5, 4, 4), -1), torch.full((5, 4, 4), 99)])
def test_given_codes_are_checked(codes):
    with pytest.raises(
        ValueError, match=rf'Confidence.codes: got shape .*; expected \(5, 4, 4\), 0 to {VOCABULARY - 1}'
    ):
        Confidence(4)(certain(), LABELS, five_streams(), codes=codes)


def test_fewer_codes_than_steps():
    assert codes_per_step('arccos', 4, 2) == [0, 0, 1, 1]
    assert codes_per_step('arccos', 4, 0) == [0, 0, 0, 0]
    assert codes_per_step('cosine', 3, 1) == [0, 0, 1]
