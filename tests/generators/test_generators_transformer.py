"""The diffusion transformer: published sizes and names, outputs of the public code, and effects of its arguments."""

import pytest
import torch
from formula_networks import LABELS, LATENTS, fill, wave

from eqzoo.generators import AlignedTransformer, DiffusionTransformer
from eqzoo.generators.base import count_macs

PARAMETERS = {
    ('XL', 2): 675_129_632,
    ('XL', 4): 675_074_432,
    ('XL', 8): 675_683_072,
    ('L', 2): 458_102_816,
    ('L', 4): 458_053_760,
    ('L', 8): 458_594_816,
    ('B', 2): 130_512_416,
    ('B', 4): 130_475_648,
    ('B', 8): 130_881_536,
    ('S', 2): 32_963_360,
    ('S', 4): 32_945_024,
    ('S', 8): 33_148_160,
}
SMALL = (3, 32, 2)
X = wave(3, 4, 8, 8, step=0.9)
STEPS, TIMES = torch.tensor([0, 500, 999]), torch.tensor([0.0, 0.3, 1.0])


def small(size=SMALL, patch_size=2, **arguments):
    return fill(DiffusionTransformer(size, patch_size, **{**LATENTS, **arguments}))


def on_meta(*arguments, kind=DiffusionTransformer, **named):
    with torch.device('meta'):
        return kind(*arguments, **named)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(('size', 'patch'), PARAMETERS)
def test_published_sizes_have_their_parameters_and_tensors(size, patch):
    network = on_meta(size, patch)
    assert count(network) == PARAMETERS[size, patch]
    assert len(network.state_dict()) == {'XL': 292, 'L': 252, 'B': 132, 'S': 132}[size]


def test_positions_are_fixed_and_grow_with_the_latents():
    network = on_meta(latent_size=64)
    assert count(network) == 676_014_368
    assert [name for name, weight in network.named_parameters() if not weight.requires_grad] == ['pos_embed']
    assert network.pos_embed.shape == (1, 32 * 32, 1152)


@pytest.mark.parametrize(
    ('size', 'feature_dims', 'expected'),
    [
        ('XL', (768,), 683_242_512),
        ('XL', (1024,), 683_767_056),
        ('XL', (1536,), 684_816_144),
        ('L', (768,), 465_955_600),
        ('B', (768,), 137_845_008),
    ],
)
def test_aligned_sizes_are_those_of_repa(size, feature_dims, expected):
    assert count(on_meta(size, kind=AlignedTransformer, feature_dims=feature_dims)) == expected


@pytest.mark.parametrize(
    ('size', 'patch', 'gmacs'), [('S', 2, 6.06), ('S', 4, 1.41), ('S', 8, 0.36), ('B', 8, 1.42), ('L', 8, 5.01)]
)
def test_multiply_accumulates_are_as_published(size, patch, gmacs):
    assert count_macs(on_meta(size, patch)) / 1e9 == pytest.approx(gmacs, abs=0.006)


# Values, sums of squares and sums weighted by place that facebookresearch/DiT (ed81ce2),
# willisma/SiT (947f95b) and sihyun-yu/REPA (67f7145) give for the weights of `deterministic.fill`.
def some(values):
    return values.flatten()[:: values.numel() // 6][:6].tolist()


def sums(values):
    values = values.double()
    return float(values.square().sum()), float((values * wave(*values.shape, step=0.31)).sum())


def test_outputs_are_those_of_the_public_dit():
    output = small()(X, STEPS, LABELS).detach()
    assert some(output) == pytest.approx([0.573148, 0.198872, 0.480979, 0.107027, 0.567419, 0.192912], abs=3e-6)
    assert sums(output) == pytest.approx((665.366, -0.65199), abs=2e-3)


def test_outputs_are_those_of_the_public_sit_at_fractions_of_time():
    output = small()(X, TIMES, LABELS)[:, :4].detach()
    assert some(output) == pytest.approx([0.573148, -0.457107, 0.504384, -0.388482, 0.565766, -0.44961], abs=3e-6)
    assert sums(output) == pytest.approx((357.934, 1.30973), abs=2e-3)


def aligned(**arguments):
    given = dict(feature_dims=(6, 10), tap=2, projector_width=20)
    return fill(AlignedTransformer(SMALL, 2, **{**LATENTS, **given, **arguments}))


@torch.no_grad()
def test_outputs_and_projected_tokens_are_those_of_the_public_repa():
    output, (first, second) = aligned().forward_with_features(X, TIMES, LABELS)
    assert first.shape == (3, 16, 6)
    assert second.shape == (3, 16, 10)
    assert some(output) == pytest.approx([0.715996, -0.600493, 0.49374, -0.37829, 0.700056, -0.584585], abs=3e-6)
    assert some(first) == pytest.approx([1.005454, 1.017052, 1.00162, 1.020283, 1.003516, 1.018878], abs=3e-6)
    assert some(second) == pytest.approx([0.641339, 0.639305, 0.641238, 0.639389, 0.641236, 0.639366], abs=3e-6)
    assert sums(output) == pytest.approx((514.84, 2.45047), abs=2e-3)
    assert sums(first) == pytest.approx((118.8402, 0.95374), abs=2e-3)
    assert sums(second) == pytest.approx((52.9624, -0.06451), abs=2e-3)
    assert torch.equal(aligned()(X, TIMES, LABELS), output)


def test_each_tap_projects_the_tokens_of_its_own_block():
    taps = [aligned(tap=tap).forward_with_features(X, TIMES, LABELS) for tap in (1, 2, 3)]
    assert torch.equal(taps[0][0], taps[2][0])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (taps[one][1][0] - taps[other][1][0]).abs().max() > 1e-3


def test_aligned_networks_take_every_argument_of_plain_ones():
    given = dict(learn_sigma=True, qk_norm=True, checkpointing=True)
    network = aligned(**given)
    plain = small(**given).state_dict()
    assert {name for name in network.state_dict() if not name.startswith('projectors.')} == plain.keys()
    assert network.checkpointing
    assert not aligned().checkpointing
    assert aligned().out_channels == 4


def test_the_projectors_width_is_an_argument():
    widths = [layer.out_features for layer in aligned(projector_width=12).projectors[0][::2]]
    assert widths == [12, 12, 6]


def test_a_new_network_predicts_zero_and_its_blocks_change_nothing():
    network = DiffusionTransformer(SMALL, 2, **LATENTS)
    tokens, condition = network.embed(X, STEPS, LABELS)
    assert not network(X, STEPS, LABELS).any()
    assert torch.equal(network.blocks[0](tokens, condition), tokens)
    assert condition.std() > 0


def test_new_weights_are_spread_as_those_of_dit():
    torch.manual_seed(0)
    network = DiffusionTransformer((1, 128, 2), 4, latent_size=8, num_classes=500)
    weights = network.state_dict()
    for name in ('y_embedder.embedding_table', 't_embedder.mlp.0', 't_embedder.mlp.2'):
        assert float(weights[f'{name}.weight'].std()) == pytest.approx(0.02, rel=0.03)
    # xavier, of the flattened weight where it is a convolution's
    for name, ends in (('x_embedder.proj', 128 + 64), ('blocks.0.attn.qkv', 128 + 3 * 128)):
        assert float(weights[f'{name}.weight'].abs().max()) == pytest.approx((6 / ends) ** 0.5, rel=0.01)
    assert not network.x_embedder.proj.bias.any()


def test_positions_encode_columns_then_rows():
    network = DiffusionTransformer((1, 8, 2), 2, **LATENTS)
    places = network.pos_embed.view(4, 4, 8)
    angles = torch.tensor([2.0, 0.02])
    expected = torch.cat([angles.sin(), angles.cos(), (angles / 2).sin(), (angles / 2).cos()])  # column 2, row 1
    torch.testing.assert_close(places[1, 2], expected)


def test_checkpointing_changes_no_gradient():
    plain, saving = small(), small(checkpointing=True)
    calls = [0, 0]
    for place, network in enumerate((plain, saving)):
        network.blocks[0].register_forward_pre_hook(
            lambda *_, place=place: calls.__setitem__(place, calls[place] + 1)  # computed again in the backward pass
        )
        (network(X, STEPS, LABELS) * wave(3, 8, 8, 8)).sum().backward()
    assert calls == [1, 2]
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        if name != 'pos_embed':
            assert one.grad.abs().max() > 0
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0)


def test_queries_and_keys_are_normalised_where_asked():
    network = small(qk_norm=True)
    attention = network.blocks[0].attn
    with torch.no_grad():
        before = attention(wave(1, 16, 32))
        attention.qkv.weight[:64] *= 100  # of queries and keys, without their biases
        attention.qkv.bias[:64] *= 100
        torch.testing.assert_close(attention(wave(1, 16, 32)), before, rtol=1e-3, atol=1e-4)
        attention.q_norm.weight *= 3
        assert (attention(wave(1, 16, 32)) - before).abs().max() > 1e-3
    assert {name for name in network.state_dict() if '_norm' in name} == {
        f'blocks.{block}.attn.{which}_norm.{what}'
        for block in range(3)
        for which in 'qk'
        for what in ('weight', 'bias')
    }
    assert not any('q_norm' in name for name in small().state_dict())


def test_the_output_depends_on_time_class_and_place():
    network = small()
    with torch.no_grad():
        output = network(X[:1].expand(3, -1, -1, -1), STEPS, LABELS[:1].expand(3))
        assert (output[0] - output[1]).abs().max() > 1e-3
        output = network(X[:1].expand(3, -1, -1, -1), STEPS[:1].expand(3), LABELS)
        assert (output[0] - output[2]).abs().max() > 1e-3
        one = torch.zeros(1, 4, 8, 8)
        output = network(one, STEPS[:1], LABELS[:1]).view(1, 8, 4, 2, 4, 2)
        assert (output[:, :, 0, :, 1] - output[:, :, 1, :, 0]).abs().max() > 1e-4


def test_arguments_shape_the_network():
    network = small(latent_channels=3, latent_size=12, patch_size=4, num_classes=7, learn_sigma=False)
    assert network.latent_shape == (3, 12, 12)
    assert (network.out_channels, network.grid, network.num_classes) == (3, 3, 7)
    assert network(wave(1, 3, 12, 12), torch.tensor([3]), torch.tensor([7])).shape == (1, 3, 12, 12)
    assert small().out_channels == 8
    assert [len(small((depth, 32, 2)).blocks) for depth in (1, 4)] == [1, 4]
    with torch.no_grad():
        one, other = (small((1, 32, heads))(X, STEPS, LABELS) for heads in (2, 4))
    assert (one - other).abs().max() > 1e-4


def test_smoke_shrinks_the_network():
    shrunk = AlignedTransformer.smoke(dict(size='XL', weights='hf://there', latent_channels=3, tap=8))
    network = AlignedTransformer(**shrunk)
    assert len(network.blocks) == 2
    assert network.latent_shape == (3, 32, 32)
    assert network.tap == 1


def test_a_missing_file_is_required_before_anything_is_built(tmp_path):
    (needed,) = DiffusionTransformer.requirements(dict(weights=str(tmp_path / 'dit.pt')))
    assert 'weights of DiffusionTransformer' in str(needed)
    (tmp_path / 'dit.pt').touch()
    assert DiffusionTransformer.requirements(dict(weights=str(tmp_path / 'dit.pt'))) == []
    assert DiffusionTransformer.requirements({}) == []


@pytest.mark.parametrize('label', [-1, 11])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ValueError, match=f'labels: got {label}; expected 0 to 9, or 10 '):
        small()(X, STEPS, torch.tensor([0, label, 3]))


def test_latents_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r'got latents of shape \(3, 4, 8, 6\); expected \(B, 4, 8, 8\)'):
        small()(X[..., :6], STEPS, LABELS)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(patch_size=3), r'patch_size: got 3 for latents of 8 x 8; expected a divisor of 8'),
        (dict(patch_size=0), r'patch_size must be at least 1, got 0'),
        (dict(size='XXL'), r"size: got 'XXL'; .*S, B, L, XL"),
        (dict(size=(2, 32, 3)), r'size: got \(2, 32, 3\)'),
        (dict(size=(2, 6, 3)), r'size: got \(2, 6, 3\)'),
        (dict(size=(2, 32)), r'size must be text or 3 whole numbers of at least 1, got \(2, 32\)'),
        (dict(num_classes=0), 'DiffusionTransformer.num_classes must be at least 1, got 0'),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiffusionTransformer(**{'size': SMALL, **LATENTS, **arguments})


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(tap=4), 'AlignedTransformer.tap: got 4; expected a block, 1 to 3'),
        (dict(tap=0), 'AlignedTransformer.tap must be at least 1, got 0'),
        (dict(feature_dims=()), 'feature_dims must be a list of one or more whole numbers'),
        (dict(feature_dims=(3, 0)), r'feature_dims\[1\] must be at least 1, got 0'),
    ],
)
def test_impossible_projections_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        aligned(**arguments)
