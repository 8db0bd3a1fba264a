"""Training on buckets: every step draws for its own grid, a resumed run is the same run, and what does not fit is refused."""

import pytest

from eqzoo.config import load_config
from eqzoo.data import BucketedShapes
from eqzoo.engine import build_runner, read_checkpoint, shrink
from eqzoo.engine.runner import rehearse

DATA = "train_dataloader.dataset={'type':'BucketedShapes','sizes':[(32,32),(32,64),(64,32)]}"
WORDS = ['model.autoencoder.weights=none', 'val_dataloader=none', 'default_hooks.checkpoint.save_best=none']
HOOKS = "custom_hooks={'ema': {'type': 'EMAHook', 'decay': 0.5}}"


def test_a_resumed_run_has_the_same_bits_and_every_step_its_own_grid(tmp_path, assert_same, monkeypatch):
    words = [f'work_dir={tmp_path}', DATA, HOOKS, 'visualizer=none', *WORDS]
    config = shrink(load_config('configs/demo/rot_scale.py', words))
    runner, grids = build_runner(config), []
    draw = runner.model.objective.sample
    monkeypatch.setattr(
        runner.model.objective, 'sample', lambda generator, grid: grids.append(grid) or draw(generator, grid)
    )
    runner.train()
    assert len(grids) == 4
    assert {(8, 8), (8, 16), (16, 8)} == set(grids)
    whole = read_checkpoint(tmp_path / 'iter_4.pth')
    (tmp_path / 'iter_4.pth').unlink()
    build_runner(config, resume=True).train()
    resumed = read_checkpoint(tmp_path / 'iter_4.pth')
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'log'):
        if part == 'log':
            for name in ('train/loss', 'train/kl'):
                assert_same(resumed[part][name], whole[part][name], name)
        else:
            assert_same(resumed[part], whole[part], part)


def test_sizes_that_the_autoencoder_or_a_transform_cannot_take_are_refused(tmp_path):
    words = [f'work_dir={tmp_path}', *WORDS, 'custom_hooks={}', 'evaluators=[]']
    sizes = "train_dataloader.dataset={'type':'BucketedShapes','sizes':[(32,32),(32,%d)]}"
    with pytest.raises(ValueError, match='images of 32 x 62 pixels; expected positive multiples of 4'):
        rehearse(load_config('configs/demo/rot_scale.py', [*words, sizes % 62]))
    with pytest.raises(ValueError, match=r'latent grid of 8 x 15 has no scale k/1'):
        rehearse(load_config('configs/demo/rot_scale.py', [*words, sizes % 60]))
    data = BucketedShapes(4, [(32, 32)])
    data.multiple = 6
    model = rehearse(load_config('configs/demo/plain.py', [*words, DATA]))
    with pytest.raises(ValueError, match=r'dataset.multiple: got 6; expected a multiple of 4, .* of KLAutoencoder'):
        model.check_data(data)


def test_smoke_of_the_leaf_has_several_sizes():
    config = shrink(load_config('configs/eqvae/sdxl_rot_scale_buckets.py'))
    assert config.train_dataloader.dataset.type == 'BucketedShapes'
    assert len(config.train_dataloader.dataset.sizes) == 3
