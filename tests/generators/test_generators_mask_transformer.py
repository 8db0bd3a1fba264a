"""MaskGIT's network: published sizes and names, agreement with torch's own layers, and its files."""

import pytest
import torch
from formula_networks import fill
from torch import nn
from torch.nn import functional as F

from eqzoo.checkpoints.generator import read_generator
from eqzoo.generators import MaskTransformer
from eqzoo.generators.adaptation import resize_table
from eqzoo.generators.base import count_macs

SMALL = (2, 16, 4)
OPTIONS = dict(num_codes=12, grid=4, num_classes=3)
CODES = torch.arange(3 * 16).view(3, 4, 4) % 13  # masks among them
LABELS = torch.tensor([0, 2, 3])


def small(**changes):
    return fill(MaskTransformer(SMALL, **{**OPTIONS, **changes}))


def on_meta(*arguments, **named):
    with torch.device('meta'):
        return MaskTransformer(*arguments, **named)


@pytest.mark.parametrize(
    ('size', 'grid', 'parameters'),
    [('base', 16, 174_160_874), ('base', 32, 176_306_666), ('big', 16, 341_953_002), ('huge', 16, 509_921_770)],
)
def test_published_sizes_have_their_parameters(size, grid, parameters):
    network = on_meta(size, grid=grid)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network.tok_emb.weight.shape[0] == 2026
    assert network.bias.shape == (grid**2 + 1, 2026)


def test_names_are_the_published_ones():
    names = set(on_meta('base').state_dict())
    outside = {'tok_emb.weight', 'pos_emb', 'bias'}
    first = {f'first_layer.{i}.{kind}' for i in (0, 2, 4, 6) for kind in ('weight', 'bias')}
    last = {f'last_layer.{i}.{kind}' for i in (0, 2, 4) for kind in ('weight', 'bias')}
    parts = ('0.norm', '0.fn.mha.out_proj', '1.norm', '1.fn.net.0', '1.fn.net.3')
    block = {f'{part}.{kind}' for part in parts for kind in ('weight', 'bias')}
    block |= {'0.fn.mha.in_proj_weight', '0.fn.mha.in_proj_bias'}
    blocks = {f'transformer.layers.{i}.{name}' for i in range(24) for name in block}
    assert names == outside | first | last | blocks


def described(network, codes, labels):
    """Compute the network as its paper describes it, by torch's own functions on its weights."""
    state = {name: value.double() for name, value in network.state_dict().items()}

    def linear(name, x):
        return F.linear(x, state[f'{name}.weight'], state[f'{name}.bias'])

    def norm(name, x, eps=1e-12):
        return F.layer_norm(x, x.shape[-1:], state[f'{name}.weight'], state[f'{name}.bias'], eps)

    tokens = torch.cat([codes.flatten(1), labels[:, None] + network.num_codes + 1], dim=1)
    x = state['tok_emb.weight'][tokens] + state['pos_emb']
    x = linear('first_layer.2', norm('first_layer.0', x))
    x = linear('first_layer.6', norm('first_layer.4', F.gelu(x)))
    attention = nn.MultiheadAttention(16, 4, batch_first=True).double().eval()
    for i in range(2):
        layer = f'transformer.layers.{i}'
        names = ('in_proj_weight', 'in_proj_bias', 'out_proj.weight', 'out_proj.bias')
        attention.load_state_dict({name: state[f'{layer}.0.fn.mha.{name}'] for name in names})
        y = norm(f'{layer}.0.norm', x, 1e-5)
        x = x + attention(y, y, y)[0]
        y = linear(f'{layer}.1.fn.net.0', norm(f'{layer}.1.norm', x, 1e-5))
        x = x + linear(f'{layer}.1.fn.net.3', F.gelu(y))
    x = norm('last_layer.4', F.gelu(linear('last_layer.2', norm('last_layer.0', x))))
    logits = x @ state['tok_emb.weight'].T + state['bias']
    return logits[:, :16, : network.num_codes + 1]


def test_the_network_agrees_with_its_description():
    network = small()
    with torch.no_grad():
        expected = described(network, CODES, LABELS)
        torch.testing.assert_close(network.double()(CODES, LABELS), expected, rtol=1e-12, atol=1e-12)
    assert expected.std() > 0.1  # else all would be alike


def test_multiply_accumulates_are_those_of_its_layers():
    network = on_meta(SMALL, **OPTIONS)
    tokens, width, rows = 17, 16, 13
    around = 2 * tokens * width**2 + 16 * width**2 + 16 * width * rows
    block = tokens * width * (4 * width + 8 * width) + 2 * tokens**2 * width
    assert count_macs(network) == around + 2 * block


def test_mlps_are_as_wide_as_published_or_four_times_the_width():
    def hidden(size, **options):
        return on_meta(size, **options).blocks[0][1].fn['net'][0].out_features

    assert [hidden('base'), hidden('big'), hidden(SMALL), hidden(SMALL, mlp_width=20)] == [3072, 3072, 64, 20]


def test_dropout_is_off_in_evaluation():
    network = small(dropout=0.5)
    calm = network(CODES, LABELS)
    assert torch.equal(network(CODES, LABELS), calm)
    assert torch.equal(small(dropout=0.0).train()(CODES, LABELS), calm)
    network.train()
    assert not torch.allclose(network(CODES, LABELS), calm, atol=0.01)


def test_attention_drops_too():
    torch.manual_seed(0)
    block = small(dropout=0.5).blocks[0][0].train()
    x = torch.randn(1, 5, 16)
    assert not torch.equal(block(x), block(x))


def test_checkpointing_changes_only_memory():
    plain, saving = small(), small(checkpointing=True)
    for network in (plain, saving):
        network(CODES, LABELS).square().mean().backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_weights_start_as_released_or_as_maskgits_own():
    torch.manual_seed(0)
    deviations = {}
    for std in (None, 0.02):
        network = MaskTransformer((2, 64, 4), 500, grid=4, num_classes=10, init_std=std)
        parts = network.tok_emb, network.first_layer[2], network.blocks[0][0].fn['mha'].out_proj
        deviations[std] = [float(part.weight.detach().std()) for part in parts]
        assert float(network.bias.detach().abs().max()) == 0
    assert deviations[None] == pytest.approx([1.0, 64**-0.5 / 3**0.5, 64**-0.5 / 3**0.5], rel=0.05)
    assert deviations[0.02] == pytest.approx([0.0176] * 3, rel=0.05)  # cut off at two deviations


def test_files_of_the_release_load(tmp_path):
    network, file = small(), tmp_path / 'MaskGIT.pth'
    state = {f'module.{name}': value for name, value in network.state_dict().items()}
    torch.save(dict(iter=5, global_epoch=1, model_state_dict=state, optimizer_state_dict={'state': {}}), file)
    loaded = MaskTransformer(SMALL, **OPTIONS, weights=str(file))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert read_generator(file).latents is None


@pytest.mark.parametrize(
    ('change', 'theirs', 'ours'),
    [
        (dict(grid=8), 'codes 4 x 4', 'codes 8 x 8'),
        (dict(num_codes=13), '15 codes and classes together', '16 codes and classes together'),
        (dict(size=(3, 16, 4)), r'size \(2 blocks of 16\)', r'size \(3 blocks of 16\)'),
    ],
)
def test_the_error_describes_a_file_of_another_network(tmp_path, change, theirs, ours):
    file = tmp_path / 'other.pt'
    torch.save(small().state_dict(), file)
    with pytest.raises(ValueError, match=f'{theirs}.*{ours}.*num_codes'):
        MaskTransformer(**{'size': SMALL, **OPTIONS, **change, 'weights': str(file)})


def test_training_continues_at_another_resolution(tmp_path):
    network, file = small(grid=8), tmp_path / 'small.pt'
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing='ij')
    network.pos_emb.data[0, :-1, 0] = (2 * rows + columns).flatten()
    network.bias.data[:-1, 5] = 7
    torch.save(network.state_dict(), file)
    larger = MaskTransformer(SMALL, **{**OPTIONS, 'grid': 16}, weights=str(file), weights_grid=8)
    middle = larger.pos_emb[0, :-1, 0].view(16, 16)[6:10, 6:10]  # where bicubic interpolation sees no edge
    torch.testing.assert_close(middle.diff(dim=0), torch.full((3, 4), 2 * 0.5))  # half a place a step
    torch.testing.assert_close(middle.diff(dim=1), torch.full((4, 3), 0.5))
    torch.testing.assert_close(larger.bias[:-1, 5], torch.full((256,), 7.0))
    for name in ('pos_emb', 'bias'):  # the class stays what it is
        new, old = (each.state_dict()[name].flatten(0, -2)[-1] for each in (larger, network))
        assert torch.equal(new, old)
    same = [name for name in network.state_dict() if name not in ('pos_emb', 'bias')]
    assert all(torch.equal(larger.state_dict()[name], network.state_dict()[name]) for name in same)
    back = resize_table(larger.pos_emb.detach(), 8, last=1)
    torch.testing.assert_close(back[0, 27:29, 0].diff(), torch.ones(1), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(size='B'), "got 'B'; .*base, big, huge"),
        (dict(num_codes=1), 'num_codes must be at least 2, got 1'),
        (dict(grid=0), 'grid must be at least 1, got 0'),
        (dict(num_classes=0), 'num_classes must be at least 1, got 0'),
        (dict(dropout=1.0), r'dropout must be in \[0, 1\), got 1.0'),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskTransformer(**{'size': SMALL, **OPTIONS, **arguments})


def test_wrong_inputs_are_refused():
    network = small()
    with pytest.raises(ValueError, match=r'got codes of shape \(3, 2, 8\); expected \(B, 4, 4\)'):
        network(CODES.view(3, 2, 8), LABELS)
    with pytest.raises(ValueError, match='labels: got 4; expected 0 to 2, or 3 '):
        network(CODES, LABELS + 1)
