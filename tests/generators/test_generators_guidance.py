"""Guidance: its formula, the channels and the times it is for, and what it costs."""

import pytest
import torch
from deterministic import LATENTS, fill, wave
from torch import nn

from eqzoo.generators import AutoGuidance, ClassifierFree, DiffusionTransformer

X = wave(4, 4, 8, 8, step=0.9)
TIMES = torch.tensor([0.1, 0.4, 0.6, 0.9])
LABELS = torch.tensor([0, 3, 9, 10])
NOTHING = torch.full((4,), 10)


class Counting(nn.Module):
    """A network that counts its calls and the samples in them."""

    def __init__(self, network):
        super().__init__()
        self.network, self.sizes = network, []
        self.latent_shape, self.num_classes = network.latent_shape, network.num_classes

    def forward(self, x, times, labels):
        self.sizes.append(len(x))
        return self.network(x, times, labels)


def network(depth=2, **arguments):
    return fill(DiffusionTransformer((depth, 32, 2), 2, **{**LATENTS, **arguments}))


def ask(guidance, net, noise_time=TIMES):
    with torch.no_grad():
        return guidance(net, X, TIMES, LABELS, noise_time)


def plain(net, labels=LABELS):
    with torch.no_grad():
        return net(X, TIMES, labels)


CLOSE = dict(rtol=1e-5, atol=1e-6)  # batches of other sizes are summed in another order


def test_the_prediction_moves_away_from_that_for_no_class():
    net = network()
    conditional, unconditional = plain(net), plain(net, NOTHING)
    assert (conditional - unconditional)[:3].abs().amax(dim=(1, 2, 3)).min() > 1e-3
    guided = ask(ClassifierFree(4.0), net)
    expected = unconditional[:, :4] + 4 * (conditional - unconditional)[:, :4]
    torch.testing.assert_close(guided[:, :4], expected, **CLOSE)
    torch.testing.assert_close(guided[:, 4:], conditional[:, 4:], **CLOSE)  # the learned variance
    torch.testing.assert_close(guided[3], conditional[3], **CLOSE)  # which is of no class already


def test_published_guidance_is_of_three_channels():
    net = network()
    three, four = (ask(ClassifierFree(4.0, channels=channels), net) for channels in (3, 4))
    torch.testing.assert_close(three[:, :3], four[:, :3], rtol=0, atol=0)
    torch.testing.assert_close(three[:, 3:], plain(net)[:, 3:], **CLOSE)
    assert (four[:3, 3] - three[:3, 3]).abs().max() > 1e-3
    assert torch.equal(ask(ClassifierFree(4.0), net), four)


def test_only_times_within_the_interval_are_guided_and_only_they_cost():
    net = Counting(network())
    guided = ask(ClassifierFree(4.0, interval=(0.4, 0.6)), net, torch.tensor([0.39, 0.4, 0.6, 0.61]))
    everywhere, conditional = ask(ClassifierFree(4.0), net), plain(net)
    torch.testing.assert_close(guided[[0, 3]], conditional[[0, 3]], **CLOSE)
    torch.testing.assert_close(guided[[1, 2]], everywhere[[1, 2]], **CLOSE)
    assert (guided[[1, 2]] - conditional[[1, 2]]).flatten(1).abs().amax(dim=1).min() > 1e-3
    assert net.sizes == [6, 8, 4]


def test_guidance_that_changes_nothing_costs_nothing():
    net = Counting(network())
    assert torch.equal(ask(ClassifierFree(1.0), net), plain(net))
    assert torch.equal(ask(ClassifierFree(4.0, interval=(0.0, 0.05)), net), plain(net))
    assert net.sizes == [4, 4, 4, 4]
    worse = Counting(network(1))
    assert torch.equal(ask(AutoGuidance(1.0, worse), net), plain(net))
    assert worse.sizes == []


def test_a_scale_of_zero_is_the_prediction_for_no_class():
    net = network()
    torch.testing.assert_close(ask(ClassifierFree(0.0), net)[:, :4], plain(net, NOTHING)[:, :4], **CLOSE)


def test_autoguidance_moves_away_from_the_worse_network():
    net, worse = network(), Counting(network(1, learn_sigma=False))
    guided = ask(AutoGuidance(2.5, worse, interval=(0.3, 1.0)), net)
    conditional, bad = plain(net), plain(worse)
    torch.testing.assert_close(guided[1:, :4], (bad + 2.5 * (conditional[:, :4] - bad))[1:], **CLOSE)
    torch.testing.assert_close(guided[0], conditional[0])
    torch.testing.assert_close(guided[:, 4:], conditional[:, 4:])
    assert worse.sizes == [3, 4]


def test_autoguidance_leaves_the_worse_network_as_it_is():
    worse = network(1).train()
    AutoGuidance(2.0, worse)
    assert not worse.training
    assert not any(parameter.requires_grad for parameter in worse.parameters())


def test_worse_networks_of_other_latents_or_classes_are_refused():
    with pytest.raises(ValueError, match=r'of latents \(4, 4, 4\) and 10 classes; the generator is of \(4, 8, 8\)'):
        ask(AutoGuidance(2.0, network(1, latent_size=4)), network())
    with pytest.raises(
        ValueError, match=r'and 7 classes; the generator is of \(4, 8, 8\) and 10; take one of the same'
    ):
        ask(AutoGuidance(2.0, network(1, num_classes=7)), network())


@pytest.mark.parametrize('interval', [(-0.1, 1), (0, 1.1), (0.5, 0.5), (0.7, 0.3)])
def test_impossible_intervals_are_refused(interval):
    with pytest.raises(ValueError, match=r'ClassifierFree.interval: got .*; accepted is 0 <= low < high <= 1'):
        ClassifierFree(2.0, interval=interval)
    with pytest.raises(ValueError, match=r'AutoGuidance.interval: got'):
        AutoGuidance(2.0, network(1), interval=interval)


def test_impossible_channels_are_refused():
    with pytest.raises(ValueError, match='ClassifierFree.channels must be at least 1 or None, got 0'):
        ClassifierFree(2.0, channels=0)
    with pytest.raises(ValueError, match='ClassifierFree.channels: got 5; accepted are 1 to 4, those of the latents'):
        ask(ClassifierFree(2.0, channels=5), network())
