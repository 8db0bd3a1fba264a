"""The reconstruction loss: pixel losses, reductions, the perceptual term and the log-variance."""

import math

import pytest
import torch

from eqzoo.losses import L1, L2, ReconstructionLoss


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pair():
    return randn(2, 3, 8, 8, seed=1), randn(2, 3, 8, 8, seed=2)


def test_pixel_losses_are_element_by_element(pair):
    a, b = pair
    assert torch.equal(L1()(a, b), (a - b).abs())
    assert torch.equal(L2()(a, b), (a - b) ** 2)


def test_sum_reduction_is_over_pixels_and_mean_over_the_batch(pair):
    a, b = pair
    loss, parts = ReconstructionLoss(L1())(a, b)
    torch.testing.assert_close(loss, (a - b).abs().flatten(1).sum(1).mean())
    torch.testing.assert_close(parts['pixel'], (a - b).abs().mean())


def test_mean_reduction_is_the_sum_over_the_number_of_values(pair):
    total, _ = ReconstructionLoss(L2())(*pair)
    mean, _ = ReconstructionLoss(L2(), reduction='mean')(*pair)
    torch.testing.assert_close(mean, total / (3 * 8 * 8))


def test_perceptual_loss_is_added_to_every_pixel(pair):
    a, b = pair
    loss, parts = ReconstructionLoss(L1(), lambda r, t: torch.tensor([1.0, 3.0]), perceptual_weight=0.5)(a, b)
    plain, _ = ReconstructionLoss(L1())(a, b)
    torch.testing.assert_close(loss - plain, torch.tensor(0.5 * 2.0 * 192))
    assert parts['perceptual'] == 2


def test_log_variance_divides_and_is_added(pair):
    plain, _ = ReconstructionLoss(L1())(*pair)
    loss, _ = ReconstructionLoss(L1(), log_variance=0.7)(*pair)
    torch.testing.assert_close(loss, plain / math.exp(0.7) + 0.7 * 192)


def test_log_variance_is_learned_only_if_asked(pair):
    for learned in (False, True):
        loss = ReconstructionLoss(L1(), learn_log_variance=learned)
        assert [p.requires_grad for p in loss.parameters()] == [learned]
    loss(*pair)[0].backward()
    expected = -(pair[0] - pair[1]).abs().flatten(1).sum(1).mean() + 192  # d/ds of e·exp(-s) + s at 0
    torch.testing.assert_close(loss.log_variance.grad, expected)


def test_unknown_reductions_are_refused():
    with pytest.raises(ValueError, match="ReconstructionLoss.reduction must be 'sum' or 'mean', got 'none'"):
        ReconstructionLoss(L1(), reduction='none')
