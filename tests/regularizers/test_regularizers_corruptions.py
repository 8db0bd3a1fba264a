"""Corruptions: amounts, shares, each sample's own stream, and what they refuse."""

import pytest
import torch

from eqzoo.autoencoders import TinyAutoencoder, VQAutoencoder
from eqzoo.randomness import SampleStreams, StepRandomness, Stream
from eqzoo.regularizers import LatentMask, LatentNoise, LatentStep


def streams(count, seed=0):
    return SampleStreams(seed, torch.arange(count), Stream.CORRUPTION)


@pytest.fixture
def latents():
    return 5 * torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0)) + 1


def drawn(count, like):
    """What the streams give: whether and how much, then the noise."""
    own = streams(count)
    amounts = own.uniform(2)
    return amounts[:, 0, None, None, None], amounts[:, 1, None, None, None], own.normal(like)


@pytest.mark.parametrize('unit', ['latent', 'std'])
@pytest.mark.parametrize('kind', ['fixed', 'drawn', 'interpolated'])
def test_noise_is_the_formula(latents, kind, unit):
    _, amount, noise = drawn(4, latents)
    noise = 0.5 * noise * (latents.flatten(1).std(dim=1)[:, None, None, None] if unit == 'std' else 1)
    wanted = {
        'fixed': latents + noise,
        'drawn': latents + amount * noise,
        'interpolated': (1 - amount) * latents + amount * noise,
    }[kind]
    torch.testing.assert_close(LatentNoise(0.5, kind, unit=unit)(latents, streams(4)), wanted)


def test_a_share_of_the_samples_gets_noise(latents):
    chosen, _, _ = drawn(4, latents)
    noisy = LatentNoise(1.0, p=0.5)(latents, streams(4))
    changed = (noisy != latents).flatten(1).any(dim=1)
    assert changed.tolist() == (chosen < 0.5).flatten().tolist()
    assert len(set(changed.tolist())) == 2


def test_noise_does_not_depend_on_the_batch(latents):
    noise = LatentNoise(0.5)
    whole = noise(latents, streams(4))
    alone = noise(latents[2:3], SampleStreams(0, torch.tensor([2]), Stream.CORRUPTION))
    torch.testing.assert_close(alone, whole[2:3])


def test_corruptions_have_streams_of_their_own(latents):
    step = StepRandomness(0, 3)
    draws = torch.tensor([7])
    assert step.corruption(draws).uniform() != step.streams(draws).uniform()
    assert not torch.equal(step.corruption(draws).normal(latents[:1]), step.noise(draws)(latents[:1]))


def test_the_gradient_of_the_unit_is_not_followed(latents):
    """Otherwise latents could shrink the noise together with themselves."""
    x = latents.clone().requires_grad_()
    LatentNoise(0.5, 'fixed')(x, streams(4)).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(sigma=0), r'sigma must be above 0, got 0'),
        (dict(sigma=1, kind='none'), r"kind must be 'fixed', 'drawn' or 'interpolated', got 'none'"),
        (dict(sigma=1, unit='px'), r"unit must be 'std' or 'latent', got 'px'"),
        (dict(sigma=1, p=0), r'p must be in \(0, 1\], got 0'),
    ],
)
def test_noise_arguments(arguments, message):
    with pytest.raises(ValueError, match=f'LatentNoise.{message}'):
        LatentNoise(**arguments)


def masked(arguments, latents, channels=8):
    mask = LatentMask(**arguments)
    mask.prepare(TinyAutoencoder(channels, width=8))
    return mask, mask(latents, streams(len(latents)))


@pytest.mark.parametrize('share', [0.0, 0.25, 0.5, 0.75])
def test_a_share_of_the_cells_is_the_token(latents, share):
    mask, hidden = masked(dict(shares=(share,), probabilities=None), latents)
    is_token = (hidden == mask.token[:, None, None]).all(dim=1)
    assert is_token.sum(dim=(1, 2)).tolist() == [int(share * 36)] * 4
    assert torch.equal(hidden.permute(0, 2, 3, 1)[~is_token], latents.permute(0, 2, 3, 1)[~is_token])
    if share:
        assert not torch.equal(is_token[0], is_token[1])


def test_blocks_are_hidden_whole(latents):
    mask, hidden = masked(dict(shares=(0.5,), probabilities=None, block=2), latents)
    is_token = (hidden == mask.token[:, None, None]).all(dim=1)
    blocks = is_token.unflatten(2, (3, 2)).unflatten(1, (3, 2)).float().mean(dim=(2, 4))
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}
    assert blocks.sum(dim=(1, 2)).tolist() == [4] * 4


def test_shares_are_drawn_with_their_probabilities():
    """2,000 samples: the standard deviation of a share is below 0.0103, three of it 0.031."""
    latents = torch.ones(2000, 1, 2, 2)
    mask, hidden = masked(dict(), latents, channels=1)
    counts = (hidden == mask.token).flatten(1).sum(dim=1).bincount(minlength=4) / 2000
    assert counts.tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.031)


def test_the_token_learns(latents):
    mask, hidden = masked(dict(shares=(0.5,), probabilities=None), latents)
    hidden.sum().backward()
    assert mask.token.grad.tolist() == [4 * 18.0] * 8


def test_the_last_channels_are_zero(latents):
    _, hidden = masked(dict(of='channels', shares=(0.0, 0.5, 0.8), probabilities=None), latents)
    kept = [int((each != 0).flatten(1).all(dim=1).sum()) for each in hidden]
    assert set(kept) <= {8, 4, 2}
    assert len(set(kept)) > 1
    for each, original, count in zip(hidden, latents, kept, strict=True):
        assert torch.equal(each[:count], original[:count])
        assert not each[count:].any()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(of='rows'), r"of must be 'cells' or 'channels', got 'rows'"),
        (dict(shares=(1.0,), probabilities=None), r'shares\[0\] must be in \[0, 1\), got 1.0'),
        (dict(shares=(0.5,), probabilities=(0.5, 0.5)), r'probabilities must be 1 numbers that add up to 1'),
        (dict(shares=(0.5, 0.1), probabilities=(0.5, 0.4)), r'probabilities must be 2 numbers that add up to 1'),
        (dict(block=0), r'block must be at least 1, got 0'),
    ],
)
def test_mask_arguments(arguments, message):
    with pytest.raises(ValueError, match=f'LatentMask.{message}'):
        LatentMask(**arguments)


def test_shares_are_equally_likely_unless_they_are_ssvaes():
    assert LatentMask().probabilities == LatentMask(shares=[0.0, 0.25, 0.5, 0.75]).probabilities == (0.7, 0.1, 0.1, 0.1)
    assert LatentMask(shares=(0.0, 0.5)).probabilities == (0.5, 0.5)
    assert LatentMask('channels').probabilities == (0.25,) * 4


def test_channels_of_codes_and_small_grids_are_refused():
    codes = VQAutoencoder(4, 32, (8, 8), attention_levels=(), norm_num_groups=4)
    with pytest.raises(ValueError, match=r"'channels' of a code of VQAutoencoder mean nothing each; use 'cells'"):
        LatentMask('channels').prepare(codes)
    LatentMask('cells').prepare(codes)
    for grid in ((1, 1), (5, 4)):
        with pytest.raises(
            ValueError, match=rf'latents of {grid[0]} x {grid[1]} cells are not two or more whole blocks'
        ):
            LatentMask(block=1 if grid == (1, 1) else 2).check_grid(grid)
    LatentMask('channels').check_grid((1, 1))


def test_a_step_corrupts_what_is_decoded_in_order(latents):
    class Decoder:
        def decode_latents(self, z):
            return z

    double, add = (lambda z, own: 2 * z), (lambda z, own: z + own.uniform()[:, None, None, None])
    step = LatentStep(Decoder(), torch.zeros_like, (double, add), streams(4))
    wanted = 2 * latents + streams(4).uniform()[:, None, None, None]
    torch.testing.assert_close(step.decode(latents), wanted)


def test_blocks_are_cut_at_the_edge_of_smaller_latents(latents):
    mask, hidden = masked(dict(shares=(0.5,), probabilities=None, block=4), latents)  # 6 x 6 cells
    is_token = (hidden == mask.token[:, None, None]).all(dim=1)
    parts = [is_token[:, :4, :4], is_token[:, :4, 4:], is_token[:, 4:, :4], is_token[:, 4:, 4:]]
    whole = torch.stack([part.flatten(1).float().mean(dim=1) for part in parts])
    assert set(whole.flatten().tolist()) == {0.0, 1.0}
    assert whole.sum(dim=0).tolist() == [2] * 4
