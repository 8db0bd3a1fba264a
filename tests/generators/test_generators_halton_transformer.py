"""Halton-MaskGIT's network: its release's names and sizes, and the network written out."""

import pytest
import torch
from formula_networks import fill
from torch.nn import functional as F

from eqzoo.checkpoints.generator import HALTON_SIZES, describe_state, load_generator
from eqzoo.generators import Halton, HaltonTransformer, MaskGIT
from eqzoo.randomness import SampleStreams

SMALL = (2, 16, 2)
OPTIONS = dict(num_codes=8, grid=4, num_classes=3, registers=2)


def network(**changes):
    return fill(HaltonTransformer(SMALL, **{**OPTIONS, **changes})).eval()


def inputs():
    codes = torch.randint(9, (3, 4, 4), generator=torch.Generator().manual_seed(0))
    return codes, torch.tensor([0, 2, 3])


def published_shapes(depth, width, heads, hidden):
    """The names and shapes of a released file: that of the 256 pixels, 16,384 codes and 1,000 classes."""
    inner = width // heads * heads
    found = {
        'cls_emb.weight': (1001, width),
        'tok_emb.weight': (16385, width),
        'pos_emb.weight': (256, width),
        'reg_tokens.weight': (1, width),
        'last_norm.norm_final.weight': (width,),
        'last_norm.norm_final.bias': (width,),
        'last_norm.mlp.1.weight': (2 * width, width),
        'last_norm.mlp.1.bias': (2 * width,),
        'head.weight': (16385, width),
        'head.bias': (16385,),
    }
    for block in range(depth):
        name = f'transformer.layers.{block}'
        found |= {
            f'{name}.mlp.1.weight': (6 * width, width),
            f'{name}.mlp.1.bias': (6 * width,),
            f'{name}.ln1.weight': (width,),
            f'{name}.ln2.weight': (width,),
            **{f'{name}.attn.w{part}.weight': (inner, width) for part in 'qkv'},
            f'{name}.attn.wo.weight': (width, inner),
            f'{name}.ff.w1.weight': (hidden, width),
            f'{name}.ff.w2.weight': (width, hidden),
            f'{name}.ff.w3.weight': (hidden, width),
        }
    return found


# Millions of parameters as in the release's README; hidden widths are 2/3 of 4 times the width, up to a multiple of 256.
@pytest.mark.parametrize(
    ('size', 'hidden', 'millions'), [('tiny', 1024, 23), ('small', 1536, 69), ('base', 2048, 142), ('large', 2816, 480)]
)
def test_names_shapes_and_counts_are_the_released_files(size, hidden, millions):
    with torch.device('meta'):
        made = HaltonTransformer(size)
    wanted = published_shapes(*HALTON_SIZES[size], hidden)
    assert {name: tuple(value.shape) for name, value in made.state_dict().items()} == wanted
    assert round(sum(parameter.numel() for parameter in made.parameters()) / 1e6) == millions


def written_out(state, codes, labels, heads):
    """Return the logits from a state dict, as the release computes them."""
    width = state['pos_emb.weight'].shape[1]

    def norm(x, eps=1e-5):
        return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt()

    def linear(name, x):
        return x @ state[f'{name}.weight'].T + state.get(f'{name}.bias', 0)

    y = state['cls_emb.weight'][labels]
    x = state['tok_emb.weight'][codes.flatten(1)] + state['pos_emb.weight']
    x = torch.cat([x, state['reg_tokens.weight'].expand(len(x), -1, -1)], dim=1)
    for block in range(SMALL[0]):
        name = f'transformer.layers.{block}'
        of_class = linear(f'{name}.mlp.1', y * y.sigmoid()).view(len(y), 6, 1, width)
        h = norm(x) * state[f'{name}.ln1.weight'] * (1 + of_class[:, 1]) + of_class[:, 0]
        q, k, v = (linear(f'{name}.attn.w{part}', h) for part in 'qkv')
        q, k, v = (each.view(*each.shape[:2], heads, -1).transpose(1, 2) for each in (norm(q), norm(k), v))
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        x = x + of_class[:, 2] * linear(f'{name}.attn.wo', attended)
        h = norm(x) * state[f'{name}.ln2.weight'] * (1 + of_class[:, 4]) + of_class[:, 3]
        gate = linear(f'{name}.ff.w1', h)
        x = x + of_class[:, 5] * linear(f'{name}.ff.w2', gate * gate.sigmoid() * linear(f'{name}.ff.w3', h))
    x = x[:, : codes[0].numel()]
    shift, scale = linear('last_norm.mlp.1', y * y.sigmoid()).view(len(y), 2, 1, width).unbind(1)
    x = (norm(x) * state['last_norm.norm_final.weight'] + state['last_norm.norm_final.bias']) * (1 + scale) + shift
    return linear('head', x)


def test_outputs_are_those_of_the_network_written_out():
    made, (codes, labels) = network().double(), inputs()
    logits = made(codes, labels)
    assert logits.shape == (3, 16, 9)
    wanted = written_out(made.state_dict(), codes, labels, heads=2)
    assert wanted.std() > 0.1
    torch.testing.assert_close(logits, wanted, atol=1e-9, rtol=1e-7)


def test_heads_may_not_divide_the_width(monkeypatch):
    """As in the released 'small', of 6 heads of 85 channels in 512."""
    monkeypatch.setitem(HALTON_SIZES, 'odd', HALTON_SIZES['small']._replace(depth=2, width=16, heads=3))
    made, (codes, labels) = fill(HaltonTransformer('odd', **OPTIONS)).eval().double(), inputs()
    assert made.blocks[0].attn.wq.weight.shape == (15, 16)
    wanted = written_out(made.state_dict(), codes, labels, heads=3)
    torch.testing.assert_close(made(codes, labels), wanted, atol=1e-9, rtol=1e-7)


def test_a_file_of_the_release_loads_strictly(tmp_path):
    """Compiled and in parallel, with the optimizer's state beside the weights."""
    made = network()
    state = {f'module._orig_mod.{name}': value for name, value in made.state_dict().items()}
    file = tmp_path / 'ImageNet_256_tiny.pth'
    content = dict(iter=5, global_epoch=1, optimizer_state_dict={'state': {}, 'param_groups': []})
    torch.save(dict(model_state_dict=state, **content), file)
    loaded = HaltonTransformer(SMALL, **OPTIONS, weights=str(file)).eval()
    assert torch.equal(loaded(*inputs()), made(*inputs()))
    assert loaded.head.weight is loaded.tok_emb.weight
    state.pop('module._orig_mod.head.bias')
    torch.save(dict(model_state_dict=state), file)
    with pytest.raises(ValueError, match='1 missing: head.bias'):
        load_generator(network(), str(file))


@pytest.mark.parametrize(
    ('change', 'theirs'),
    [
        (dict(grid=8), 'codes 8 x 8 of 8, 3 classes, 2 registers'),
        (dict(num_codes=16), 'codes 4 x 4 of 16, 3 classes, 2 registers'),
        (dict(num_classes=5), 'codes 4 x 4 of 8, 5 classes, 2 registers'),
        (dict(registers=0), 'codes 4 x 4 of 8, 3 classes, 0 registers'),
    ],
)
def test_a_file_of_another_network_is_named(change, theirs, tmp_path):
    torch.save(network(**change).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(
        ValueError, match=rf'is of a network of size \(2 blocks of 16\), {theirs}; the config describes'
    ):
        HaltonTransformer(SMALL, **OPTIONS, weights=str(tmp_path / 'other.pth'))


def test_published_sizes_are_named():
    with torch.device('meta'):
        assert describe_state(HaltonTransformer('large', grid=24).state_dict()) == (
            'size large, codes 24 x 24 of 16,384, 1,000 classes, 1 register'
        )


def test_a_new_network_ignores_the_class_in_its_blocks():
    """adaLN-Zero: blocks begin as the identity."""
    torch.manual_seed(0)
    made, (codes, labels) = HaltonTransformer(SMALL, **OPTIONS).eval(), inputs()
    tokens = made.tok_emb(codes.flatten(1))
    assert torch.equal(made.blocks[1](tokens, made.cls_emb(labels)), tokens)
    assert float(made.tok_emb.weight.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_checkpointing_and_dropout_change_what_they_should():
    plain, (codes, labels) = network(dropout=0.0).train(), inputs()
    twin = network(dropout=0.0, checkpointing=True).train()
    for each in (plain, twin):
        F.cross_entropy(each(codes, labels).flatten(0, 1), codes.flatten()).backward()
    for ours, theirs in zip(plain.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert not torch.equal(network(dropout=0.5).train()(codes, labels), plain(codes, labels))
    assert torch.equal(network(dropout=0.5)(codes, labels), network()(codes, labels))


def test_maskgit_learns_with_it():
    """Codes that are their places: predicted almost always after a few steps."""
    torch.manual_seed(0)
    generator = MaskGIT(HaltonTransformer((2, 32, 2), 16, grid=4, num_classes=2, dropout=0.0), label_smoothing=0.0)
    codes = torch.arange(16).view(1, 4, 4).expand(16, -1, -1)
    batch = dict(codes=codes, labels=torch.arange(16) % 2)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        losses = generator.loss(batch, SampleStreams(step, torch.arange(16)))
        losses['loss'].backward()
        optimizer.step()
    assert float(losses['loss'].detach()) < 0.2  # log(16) is 2.8
    drawn = Halton(4, guidance=0.0, top_k=1)(generator.eval(), torch.tensor([0, 1]), SampleStreams(0, torch.arange(2)))
    assert (drawn == codes[:2]).float().mean() > 0.95


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match=r'HaltonTransformer: got codes of shape \(1, 3, 4\); expected \(B, 4, 4\)'):
        network()(torch.zeros(1, 3, 4).long(), torch.zeros(1).long())
    with pytest.raises(ValueError, match='labels: got 4'):
        network()(torch.zeros(1, 4, 4).long(), torch.tensor([4]))
    with pytest.raises(ValueError, match="size: got 'huge'; expected tiny, small, base, large, xlarge"):
        HaltonTransformer('huge', **OPTIONS)
    with pytest.raises(ValueError, match='HaltonTransformer.registers must be at least 0, got -1'):
        HaltonTransformer(SMALL, **{**OPTIONS, 'registers': -1})
