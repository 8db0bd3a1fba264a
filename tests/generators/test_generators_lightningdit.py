"""LightningDiT's options: outputs of the public code, an independent statement of its network, names of its weights."""

import itertools

import numpy as np
import pytest
import torch
from formula_networks import LABELS, LATENTS, fill, wave

from eqzoo.checkpoints.generator import describe_state
from eqzoo.generators import AlignedTransformer, DiffusionTransformer
from eqzoo.generators.base import count_macs
from eqzoo.generators.positions import RotaryPositions

SMALL = (3, 32, 2)
LIGHTNING = dict(learn_sigma=False, mlp='swiglu', norm='rms', rope=True)
X, TIMES = wave(3, 4, 8, 8, step=0.9), torch.tensor([0.0, 0.3, 1.0])
SWITCHES = dict(qk_norm=True, mlp='swiglu', norm='rms', rope=True, adaln_shift=False)
OFF = dict(qk_norm=False, mlp='gelu', norm='layer', rope=False, adaln_shift=True)


def small(**arguments):
    return fill(DiffusionTransformer(SMALL, 2, **{**LATENTS, **LIGHTNING, **arguments}))


# Of hustvl/LightningDiT (2725fed) for the weights of `fill`: some values, the sum of squares, and a sum by place.
@pytest.mark.parametrize(
    ('arguments', 'some', 'sums'),
    [
        ({}, [1.348314, -0.869218, 1.309717, -0.793204, 1.342102, -0.870361], (510.737969, 1.165389)),
        (
            dict(qk_norm=True, adaln_shift=False),
            [1.496011, 0.614309, 1.391778, 0.503185, 1.449995, 0.566323],
            (585.555814, 2.825973),
        ),
    ],
)
@torch.no_grad()
def test_outputs_are_those_of_the_public_code(arguments, some, sums):
    output = small(**arguments)(X, TIMES, LABELS)
    assert output.flatten()[:: output.numel() // 6][:6].tolist() == pytest.approx(some, abs=3e-6)
    output = output.double()
    found = float(output.square().sum()), float((output * wave(*output.shape, step=0.31)).sum())
    assert found == pytest.approx(sums, abs=2e-3)


def silu(x):
    return x / (1 + np.exp(-x))


def layer_norm(x, eps=1e-6):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def rms_norm(x, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def restated(network, x, times, labels, *, heads, patch, qk_norm, mlp, norm, rope, adaln_shift):
    """The network in numpy, float64; rotations are products of complex numbers."""
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}

    def linear(name, values):
        return values @ state[f'{name}.weight'].T + state[f'{name}.bias']

    def normed(name, values):
        return layer_norm(values) if norm == 'layer' else rms_norm(values) * state[f'{name}.weight']

    def normed_head(name, values):
        if norm == 'rms':
            return rms_norm(values) * state[f'{name}.weight']
        return layer_norm(values, 1e-5) * state[f'{name}.weight'] + state[f'{name}.bias']

    def rotated(values):  # (B, heads, T, D)
        count, width = values.shape[2:]
        grid, frequencies = round(count**0.5), 10000.0 ** (-np.arange(width // 4) / (width // 4))
        place = np.arange(count)
        angles = np.concatenate([np.outer(place // grid, frequencies), np.outer(place % grid, frequencies)], axis=1)
        turned = (values[..., 0::2] + 1j * values[..., 1::2]) * np.exp(1j * angles)
        return np.stack([turned.real, turned.imag], axis=-1).reshape(values.shape)

    b, c, side, _ = x.shape
    g = side // patch
    cells = x.numpy().reshape(b, c, g, patch, g, patch).transpose(0, 2, 4, 1, 3, 5).reshape(b, g * g, -1)
    width = state['x_embedder.proj.bias'].size
    tokens = cells @ state['x_embedder.proj.weight'].reshape(width, -1).T + state['x_embedder.proj.bias']
    tokens = tokens + state['pos_embed']
    angles = np.outer(times.numpy().astype(np.float64), 10000.0 ** (-np.arange(128) / 128))
    embedded = silu(linear('t_embedder.mlp.0', np.concatenate([np.cos(angles), np.sin(angles)], axis=1)))
    embedded = linear('t_embedder.mlp.2', embedded)
    condition = silu(embedded + state['y_embedder.embedding_table.weight'][labels.numpy()])[:, None]
    for number in range(len(network.blocks)):
        at = f'blocks.{number}'
        parts = np.split(linear(f'{at}.adaLN_modulation.1', condition), 6 if adaln_shift else 4, axis=2)
        if not adaln_shift:
            parts = [0, parts[0], parts[1], 0, parts[2], parts[3]]
        shift, scale, gate, shift2, scale2, gate2 = parts
        hidden = normed(f'{at}.norm1', tokens) * (1 + scale) + shift
        qkv = linear(f'{at}.attn.qkv', hidden).reshape(b, g * g, 3, heads, -1).transpose(2, 0, 3, 1, 4)
        q, k, v = qkv
        if qk_norm:
            q, k = normed_head(f'{at}.attn.q_norm', q), normed_head(f'{at}.attn.k_norm', k)
        if rope:
            q, k = rotated(q), rotated(k)
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (weights / weights.sum(-1, keepdims=True)) @ v
        tokens = tokens + gate * linear(f'{at}.attn.proj', attended.transpose(0, 2, 1, 3).reshape(b, g * g, -1))
        hidden = normed(f'{at}.norm2', tokens) * (1 + scale2) + shift2
        if mlp == 'swiglu':
            gated, value = np.split(linear(f'{at}.mlp.w12', hidden), 2, axis=2)
            out = linear(f'{at}.mlp.w3', silu(gated) * value)
        else:
            h = linear(f'{at}.mlp.fc1', hidden)
            out = linear(f'{at}.mlp.fc2', h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))))
        tokens = tokens + gate2 * out
    shift, scale = np.split(linear('final_layer.adaLN_modulation.1', condition), 2, axis=2)
    out = linear('final_layer.linear', normed('final_layer.norm_final', tokens) * (1 + scale) + shift)
    out = out.reshape(b, g, g, patch, patch, -1).transpose(0, 5, 1, 3, 2, 4)
    return out.reshape(b, -1, side, side)


@pytest.mark.parametrize('on', list(itertools.product([False, True], repeat=5)))
@torch.no_grad()
def test_every_combination_is_the_independent_statement(on):
    options = {name: (SWITCHES if used else OFF)[name] for (name, used) in zip(SWITCHES, on, strict=True)}
    network = small(**options)
    expected = restated(network, X, TIMES, LABELS, heads=2, patch=2, **options)
    found = network(X, TIMES, LABELS).double().numpy()
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_each_option_changes_the_output():
    plain = DiffusionTransformer(SMALL, 2, **LATENTS)
    outputs = [fill(plain)(X, TIMES, LABELS).detach()]
    for name, value in SWITCHES.items():
        outputs.append(fill(DiffusionTransformer(SMALL, 2, **{**LATENTS, name: value}))(X, TIMES, LABELS).detach())
    for one, other in itertools.combinations(outputs, 2):
        assert (one - other).abs().max() > 1e-3


# Published sizes: parameters, tensors (with the two tables of rotations), hidden width of SwiGLU.
@pytest.mark.parametrize(
    ('size', 'patch', 'parameters', 'tensors', 'hidden'),
    [
        ('XL', 1, 675_256_736, 351, 3072),
        ('B', 1, 130_556_192, 159, 2048),
        ('1p0B', 1, 1_029_401_120, 303, 4096),
        ('1p6B', 2, 1_631_767_216, 351, 4778),
    ],
)
def test_published_networks_have_their_names_and_shapes(size, patch, parameters, tensors, hidden):
    with torch.device('meta'):
        network = DiffusionTransformer(size, patch, latent_channels=32, latent_size=16, **LIGHTNING)
    state = network.state_dict()
    assert sum(value.numel() for value in network.parameters()) == parameters
    assert len(state) == tensors
    width = state['pos_embed'].shape[2]
    assert {
        name.removeprefix('blocks.0.'): tuple(value.shape) for name, value in state.items() if '.0.' in name[:9]
    } == {
        'norm1.weight': (width,),
        'norm2.weight': (width,),
        'attn.qkv.weight': (3 * width, width),
        'attn.qkv.bias': (3 * width,),
        'attn.proj.weight': (width, width),
        'attn.proj.bias': (width,),
        'mlp.w12.weight': (2 * hidden, width),
        'mlp.w12.bias': (2 * hidden,),
        'mlp.w3.weight': (width, hidden),
        'mlp.w3.bias': (width,),
        'adaLN_modulation.1.weight': (6 * width, width),
        'adaLN_modulation.1.bias': (6 * width,),
    }
    outside = {name for name in state if not name.startswith('blocks.')}
    assert {'feat_rope.freqs_cos', 'feat_rope.freqs_sin', 'final_layer.norm_final.weight'} < outside
    heads = len(network.blocks) and network.blocks[0].attn.heads
    assert state['feat_rope.freqs_cos'].shape == ((16 // patch) ** 2, width // heads)
    assert describe_state(state).endswith('32 output channels, 1,000 classes, SwiGLU, RMSNorm, RoPE')


def test_files_of_its_training_load_strictly(tmp_path):
    trained, average = small().state_dict(), {name: value + 1 for name, value in small().state_dict().items()}
    torch.save(dict(model=trained, ema=average, opt={}, config={'model': {'use_rope': True}}), tmp_path / 'a.pt')
    torch.save(dict(ema={f'module.{name}': value for name, value in average.items()}), tmp_path / 'b.pt')
    for name in ('a.pt', 'b.pt'):
        loaded = small(weights=str(tmp_path / name))
        # `small` fills the parameters again; the tables of rotations are the file's
        assert torch.equal(loaded.feat_rope.freqs_cos, average['feat_rope.freqs_cos'])
        loaded = DiffusionTransformer(SMALL, 2, **LATENTS, **LIGHTNING, weights=str(tmp_path / name)).state_dict()
        assert loaded.keys() == average.keys()
        assert all(torch.equal(value, average[key]) for key, value in loaded.items())


@pytest.mark.parametrize(
    ('arguments', 'theirs', 'ours'),
    [
        (dict(mlp='gelu'), '10 classes, SwiGLU, RMSNorm, RoPE;', '10 classes, RMSNorm, RoPE;'),
        (dict(norm='layer'), 'SwiGLU, RMSNorm, RoPE;', '10 classes, SwiGLU, RoPE;'),
        (dict(rope=False), 'RoPE;', 'SwiGLU, RMSNorm;'),
        (dict(qk_norm=True), 'RMSNorm, RoPE;', 'SwiGLU, RMSNorm, QK norm, RoPE;'),
        (dict(adaln_shift=False), 'RoPE;', 'RoPE, no adaLN shifts;'),
    ],
)
def test_the_error_for_other_options_names_them(tmp_path, arguments, theirs, ours):
    torch.save(small().state_dict(), tmp_path / 'a.pt')
    with pytest.raises(ValueError, match='mlp, norm, rope and adaln_shift') as caught:
        small(**arguments, weights=str(tmp_path / 'a.pt'))
    found, described = str(caught.value).split(' the config describes ')
    assert found.endswith(theirs)
    assert ours in described
    assert 'adapt' not in described


def test_products_of_rotated_vectors_depend_on_the_distance_of_their_places_only():
    rotate = RotaryPositions(5, 8).double()
    q, k = (wave(1, 1, 1, 8, step=step).double().expand(1, 1, 25, 8) for step in (0.3, 1.1))
    scores = (rotate(q) @ rotate(k).transpose(2, 3)).view(5, 5, 5, 5)
    torch.testing.assert_close(scores[0, 0, 2, 3], scores[2, 1, 4, 4], rtol=0, atol=1e-6)
    assert (scores[0, 0, 2, 3] - scores[0, 0, 3, 2]).abs() > 1e-2  # rows and columns differ
    torch.testing.assert_close(rotate(q).norm(dim=3), q.norm(dim=3), rtol=1e-6, atol=0)


def test_checkpointing_changes_no_gradient():
    plain, saving = small(), small(checkpointing=True)
    for network in (plain, saving):
        (network(X, TIMES, LABELS) * wave(3, 4, 8, 8)).sum().backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        if name != 'pos_embed':
            assert one.grad.abs().max() > 0, name
            assert torch.equal(one.grad, other.grad), name


def test_aligned_networks_have_the_same_options():
    given = dict(feature_dims=(6,), tap=2, projector_width=8)
    aligned = AlignedTransformer(SMALL, 2, **LATENTS, **given, learn_sigma=False, **SWITCHES)
    plain = DiffusionTransformer(SMALL, 2, **LATENTS, learn_sigma=False, **SWITCHES)
    ours = {name for name in aligned.state_dict() if not name.startswith('projectors.')}
    assert ours == plain.state_dict().keys()
    assert torch.equal(fill(aligned)(X, TIMES, LABELS), aligned.forward_with_features(X, TIMES, LABELS)[0])


def test_multiply_accumulates_of_swiglu_are_about_those_of_gelu():
    options = dict(latent_channels=32, latent_size=16)
    with torch.device('meta'):
        plain, lightning = (DiffusionTransformer('B', 1, **options, **given) for given in ({}, LIGHTNING))
    # 3 matrices of 2/3 the hidden layer are 2 of the whole; the output has half the channels
    output = 256 * 768 * 32
    assert count_macs(lightning) == count_macs(plain) - output


def test_half_precision_rotates_without_changing_the_type():
    network = small().bfloat16()
    assert network(X.bfloat16(), TIMES, LABELS).dtype == torch.bfloat16


def test_heads_that_cannot_be_rotated_are_refused():
    with pytest.raises(
        ValueError, match='DiffusionTransformer.rope: got heads of 6 channels; expected a multiple of 4'
    ):
        DiffusionTransformer((2, 12, 2), 2, **LATENTS, rope=True)
    with pytest.raises(ValueError, match="mlp must be 'gelu' or 'swiglu', got 'relu'"):
        DiffusionTransformer(SMALL, 2, **LATENTS, mlp='relu')
