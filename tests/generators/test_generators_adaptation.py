"""Weights for other classes, grids and channels: rows that are kept, positions recomputed, everything else strict."""

import numpy as np
import pytest
import torch
from formula_networks import LATENTS, fill, wave
from torch.nn import functional as F

from eqzoo.generators import AlignedTransformer, DiffusionTransformer, MaskTransformer
from eqzoo.registry import build

SMALL = (2, 32, 2)
LIGHTNING = dict(learn_sigma=False, mlp='swiglu', norm='rms', rope=True)
CODES = dict(num_codes=12, grid=4, num_classes=3)
TIMES, CLASSES = torch.tensor([0.2, 0.7]), torch.tensor([1, 3])


def transformer(kind=DiffusionTransformer, **arguments):
    aligned = dict(feature_dims=(6,), tap=1, projector_width=8) if kind is AlignedTransformer else {}
    return kind(SMALL, 2, **{**LATENTS, **aligned, **arguments})


@pytest.fixture
def file(tmp_path):
    def write(network):
        torch.save(network.state_dict(), tmp_path / 'weights.pt')
        return str(tmp_path / 'weights.pt')

    return write


def sines(grid, width, positions):
    """MAE's table in numpy, for given coordinates along each axis."""
    omega = 1 / 10000 ** (np.arange(width // 4) / (width / 4))
    rows = []
    for row in range(grid):
        for column in range(grid):
            parts = [f(positions[place] * omega) for place in (column, row) for f in (np.sin, np.cos)]
            rows.append(np.concatenate(parts))
    return torch.from_numpy(np.stack(rows)).float()


def differing(one, other):
    theirs = other.state_dict()
    return {
        name
        for name, value in one.state_dict().items()
        if value.shape != theirs[name].shape or not torch.equal(value, theirs[name])
    }


FAMILIES = [
    (DiffusionTransformer, {}),
    (DiffusionTransformer, LIGHTNING),
    (AlignedTransformer, {}),
]


@pytest.mark.parametrize(('kind', 'options'), FAMILIES, ids=['dit', 'lightningdit', 'repa'])
@pytest.mark.parametrize('count', [4, 17])
def test_classes_keep_their_rows_and_new_ones_start_as_no_class(file, kind, options, count):
    old = fill(transformer(kind, **options))
    new = transformer(kind, **options, num_classes=count, weights=file(old), adapt=('classes',))
    name = 'y_embedder.embedding_table.weight'
    assert differing(new, old) == {name}
    table, before = new.state_dict()[name], old.state_dict()[name]
    kept = min(count, 10)
    assert table.shape == (count + 1, 32)
    assert torch.equal(table[:kept], before[:kept])
    assert torch.equal(table[kept:], before[10:].expand(count + 1 - kept, 32))
    assert new.adapted == [f'{name} (11, 32) -> ({count + 1}, 32)']


@pytest.mark.parametrize(('kind', 'options'), FAMILIES, ids=['dit', 'lightningdit', 'repa'])
@pytest.mark.parametrize('side', [4, 12, 16])
def test_fixed_positions_are_spread_over_the_old_grid(file, kind, options, side):
    old = fill(transformer(kind, **options))
    new = transformer(kind, **options, latent_size=side, weights=file(old), adapt=('grid',))
    grid = side // 2
    state = new.state_dict()
    torch.testing.assert_close(state['pos_embed'][0], sines(grid, 32, np.arange(grid) * 4 / grid), rtol=0, atol=1e-6)
    tables = {'feat_rope.freqs_cos', 'feat_rope.freqs_sin'} if options else set()
    assert differing(new, old) == {'pos_embed', *tables}
    if options:  # one head has 16 channels: 4 frequencies, each for two neighbours, of the row and of the column
        place = np.arange(grid**2)
        omega = 10000.0 ** (-np.arange(4) / 4)
        angles = np.concatenate(
            [np.outer(axis * 4 / grid, omega).repeat(2, axis=1) for axis in (place // grid, place % grid)], axis=1
        )
        torch.testing.assert_close(state['feat_rope.freqs_sin'], torch.from_numpy(np.sin(angles)).float())
        torch.testing.assert_close(state['feat_rope.freqs_cos'], torch.from_numpy(np.cos(angles)).float())
    x = wave(2, 4, side, side)
    assert new(x, TIMES, CLASSES).shape == (2, new.out_channels, side, side)


def test_positions_at_the_old_places_stay(file):
    old = fill(transformer())
    new = transformer(latent_size=16, weights=file(old), adapt=('grid',))
    places = new.pos_embed.detach().view(8, 8, 32)[::2, ::2].reshape(16, 32)
    torch.testing.assert_close(places, old.pos_embed.detach()[0], rtol=0, atol=1e-6)


def test_learned_positions_are_interpolated(file):
    old = fill(transformer())
    old.pos_embed.data = wave(1, 16, 32, step=0.37)
    new = transformer(latent_size=16, weights=file(old), adapt=('grid',))
    square = old.pos_embed.detach().view(4, 4, 32).permute(2, 0, 1)
    expected = torch.stack(
        [F.interpolate(each[None, None], (8, 8), mode='bicubic', antialias=True)[0, 0].flatten() for each in square]
    )
    torch.testing.assert_close(new.pos_embed.detach()[0], expected.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize('channels', [3, 6])
@pytest.mark.parametrize(('before', 'after'), [(True, True), (True, False), (False, True), (False, False)])
def test_channels_that_both_have_are_seen_and_predicted_as_before(file, channels, before, after):
    old = fill(transformer(learn_sigma=before))
    options = dict(learn_sigma=after, latent_channels=channels)
    new = transformer(**options, weights=file(old), adapt=('channels',)).eval()
    wanted = {'x_embedder.proj.weight', 'final_layer.linear.weight', 'final_layer.linear.bias'}
    assert differing(new, old) == wanted
    kept = min(channels, 4)
    x = wave(2, channels, 8, 8, step=0.9)
    seen = torch.zeros(2, 4, 8, 8)
    seen[:, :kept] = x[:, :kept]
    with torch.no_grad():
        found, expected = new(x, TIMES, CLASSES), old(seen, TIMES, CLASSES)
    torch.testing.assert_close(found[:, :kept], expected[:, :kept], rtol=0, atol=1e-6)
    assert not found[:, kept:channels].any()  # channels that are new are predicted as 0
    if after:
        variance = expected[:, 4:] if before else torch.zeros(2, 4, 8, 8)
        torch.testing.assert_close(found[:, channels : channels + kept], variance[:, :kept], rtol=0, atol=1e-6)
        assert not found[:, channels + kept :].any()


def test_channels_that_are_new_learn(file):
    network = transformer(latent_channels=6, weights=file(fill(transformer())), adapt=('channels',))
    (network(wave(2, 6, 8, 8), TIMES, CLASSES) * wave(2, 12, 8, 8, step=0.2)).sum().backward()
    assert network.x_embedder.proj.weight.grad[:, 4:].abs().min() > 0
    rows = network.final_layer.linear.weight.grad.view(4, 2, 6, 32)
    assert rows[:, :, 4:].abs().max() > 0


def test_all_changes_together_and_none(file):
    old = fill(transformer(**LIGHTNING))
    changed = dict(num_classes=4, latent_size=16, latent_channels=8)
    every = ('classes', 'grid', 'channels')
    new = transformer(**LIGHTNING, **changed, weights=file(old), adapt=every)
    assert len(new.adapted) == 7  # labels, positions, two tables of rotations, input, output and its bias
    assert new(wave(2, 8, 16, 16), TIMES, CLASSES).isfinite().all()
    same = transformer(**LIGHTNING, weights=file(old), adapt=every)
    assert same.adapted == []
    assert differing(same, old) == set()


@pytest.mark.parametrize(
    ('changed', 'adapt', 'needed'),
    [
        (dict(num_classes=4), (), r"adapt=\"\('classes',\)\""),
        (dict(num_classes=4, latent_size=16), ('grid',), r"adapt=\"\('classes',\)\""),
        (dict(latent_channels=3, latent_size=16), (), r"adapt=\"\('channels', 'grid'\)\""),
        (dict(learn_sigma=False), ('classes', 'grid'), r"adapt=\"\('channels',\)\""),
    ],
)
def test_what_is_not_named_stays_strict_and_is_named_in_the_error(file, changed, adapt, needed):
    with pytest.raises(ValueError, match=f'To fine-tune it for these: model.generator.network.{needed}'):
        transformer(**changed, weights=file(fill(transformer())), adapt=adapt)


@pytest.mark.parametrize(
    'changed', [dict(patch_size=4), dict(size=(3, 32, 2)), dict(size=(2, 64, 2)), dict(mlp='swiglu')]
)
def test_other_differences_cannot_be_adapted(file, changed):
    path = file(fill(transformer()))
    arguments = {**LATENTS, 'size': SMALL, 'patch_size': 2, **changed, 'num_classes': 4}
    with pytest.raises(ValueError, match='is of a network of') as caught:
        DiffusionTransformer(**arguments, weights=path, adapt=('classes', 'grid', 'channels'))
    assert 'To fine-tune' not in str(caught.value)


def test_a_damaged_file_is_refused_as_without_adapting(tmp_path):
    state = fill(transformer()).state_dict()
    for lost in ('pos_embed', 'final_layer.linear.bias', 'x_embedder.proj.weight'):
        torch.save({name: value for name, value in state.items() if name != lost}, tmp_path / 'lost.pt')
        with pytest.raises(ValueError, match='other names than those|missing'):
            transformer(num_classes=4, weights=str(tmp_path / 'lost.pt'), adapt=('classes', 'grid', 'channels'))


@pytest.mark.parametrize('kind', [DiffusionTransformer, AlignedTransformer])
def test_adapting_without_weights_is_refused(kind):
    with pytest.raises(ValueError, match=rf"{kind.__name__}.adapt: got \('grid',\) without weights"):
        transformer(kind, adapt=('grid',))
    with pytest.raises(ValueError, match=r"adapt\[0\] must be 'classes', 'grid' or 'channels', got 'class'"):
        transformer(kind, adapt=('class',))
    assert kind.smoke(dict(adapt=('grid',), weights='file'))['adapt'] == ()


def codes(**arguments):
    return MaskTransformer((2, 16, 4), **{**CODES, **arguments})


@pytest.mark.parametrize('count', [2, 6])
def test_classes_of_a_network_of_codes(file, count):
    old = fill(codes())
    old.bias.data = wave(17, 17, step=0.21)
    new = codes(num_classes=count, weights=file(old), adapt=('classes',))
    assert differing(new, old) == {'tok_emb.weight', 'bias'}
    kept = min(count, 3)
    rows = [*range(13), *range(13, 13 + kept), *[16] * (count - kept), 16]  # codes, mask, classes, no class
    assert torch.equal(new.tok_emb.weight, old.tok_emb.weight[rows])
    assert torch.equal(new.bias, old.bias[:, rows])


def test_grid_and_classes_of_a_network_of_codes(file):
    old = fill(codes())
    path = file(old)
    by_grid = codes(grid=8, weights=path, adapt=('grid',))
    assert differing(by_grid, codes(grid=8, weights=path, weights_grid=4)) == set()
    both = codes(grid=8, num_classes=5, weights=path, adapt=('grid', 'classes'))
    assert torch.equal(both.pos_emb, by_grid.pos_emb)
    assert both.bias.shape == (65, 19)
    assert [name.split(' ')[0] for name in both.adapted] == ['pos_emb', 'bias', 'tok_emb.weight'] or len(
        both.adapted
    ) == 3
    logits = both(torch.zeros(1, 8, 8, dtype=torch.int64), torch.tensor([4]))
    assert logits.shape == (1, 64, 13)
    with pytest.raises(ValueError, match=r"adapt=\"\('grid',\)\""):
        codes(grid=8, weights=path)


def test_a_checkpoint_states_the_network_without_its_origin(file):
    from eqzoo.checkpoints import plain_config

    config = dict(type='DiffusionTransformer', size=SMALL, weights=file(transformer()), adapt=('classes',))
    assert not {'weights', 'adapt'} & plain_config(config).keys()
    build(plain_config(config))
