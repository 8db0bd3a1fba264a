"""MaskGIT's loss: which codes are masked, what is compared with what, and randomness that belongs to samples."""

import pytest
import torch
from deterministic import fill
from torch import nn
from torch.nn import functional as F

from eqzoo.generators import MaskGIT, MaskTransformer
from eqzoo.generators.maskgit import codes_per_step, masked_share, mean_masked_share
from eqzoo.randomness import SampleStreams

SCHEDULES = ('arccos', 'cosine', 'linear', 'square')
COUNT, GRID, NUM_CODES = 64, 8, 5
CODES = torch.arange(COUNT * GRID**2).view(COUNT, GRID, GRID) * 7 % NUM_CODES
BATCH = dict(codes=CODES, labels=torch.arange(COUNT) % 3)


class Told(nn.Module):
    """A network that answers with given logits, and remembers what it saw."""

    num_codes, num_classes, mask_code, latent_shape = NUM_CODES, 3, NUM_CODES, (GRID, GRID)

    def __init__(self, logits):
        super().__init__()
        self.logits, self.seen = logits, []

    def forward(self, codes, labels):
        self.seen.append((codes, labels))
        return self.logits


def told(logits=None, **options):
    logits = torch.zeros(COUNT, GRID**2, NUM_CODES + 1) if logits is None else logits
    return MaskGIT(Told(logits), **options)


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
    generator = told(schedule=name)
    shares = torch.cat([masks(generator, seed).float().mean(dim=(1, 2)) for seed in range(8)])
    expected = torch.cat([masked_share(name, streams(seed).uniform()) for seed in range(8)])
    assert float((shares - expected).abs().max()) < 5 * 0.5 / GRID  # five deviations of a mean of 64 coins
    assert float((shares - expected).mean()) == pytest.approx(0, abs=0.01)
    assert float(shares.std()) > 0.2  # of each sample, not of all


def test_masked_codes_are_hidden_and_the_others_shown():
    generator = told()
    hidden = masks(generator)
    seen = generator.network.seen[0][0]
    assert torch.equal(seen[~hidden], CODES[~hidden])
    assert 0.5 < float(hidden.float().mean()) < 0.8


def test_labels_are_left_out_as_often_as_asked():
    seen = {}
    for probability in (0.0, 0.3, 1.0):
        generator = told(p_unconditional=probability)
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
        of_all, of_masked = (told(logits, label_smoothing=smoothing, loss_on=on) for on in ('all', 'masked'))
        hidden = masks(of_all).flatten(1)
        assert float(of_all.loss(BATCH, streams())['loss']) == pytest.approx(float(losses.mean()), rel=1e-5)
        expected = losses[hidden].sum() / losses.numel() / (2 / torch.pi)
        assert float(of_masked.loss(BATCH, streams())['loss']) == pytest.approx(float(expected), rel=1e-5)


def test_accuracy_counts_masked_codes():
    right = F.one_hot(CODES.flatten(1), NUM_CODES + 1).float()
    assert float(told(right).loss(BATCH, streams())['accuracy']) == 1
    assert float(told(right.roll(1, dims=2)).loss(BATCH, streams())['accuracy']) == 0
    half = right.clone()
    half[: COUNT // 2] = half[: COUNT // 2].roll(1, dims=2)
    assert float(told(half).loss(BATCH, streams())['accuracy']) == 0.5


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
        (dict(schedule='sine'), "MaskGIT.schedule: got 'sine'; accepted are arccos, cosine, linear, square"),
        (dict(p_unconditional=2), r'MaskGIT.p_unconditional must be in \[0, 1\], got 2'),
        (dict(label_smoothing=-1), r'MaskGIT.label_smoothing must be in \[0, 1\], got -1'),
        (dict(loss_on='some'), "MaskGIT.loss_on must be 'all' or 'masked', got 'some'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        told(**arguments)
