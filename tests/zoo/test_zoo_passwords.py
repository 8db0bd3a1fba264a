"""Passwords of URLs in a config: a run downloads with them, and writes them nowhere."""

import torch

from eqzoo.autoencoders import TinyAutoencoder
from eqzoo.commands.train import train
from eqzoo.engine import read_checkpoint
from eqzoo.zoo import fetch, without_passwords

CONFIG = """
from mmengine.config import read_base

with read_base():
    from eqzoo.configs.demo.plain import *

images = dict(type='Shapes', num_images=8, size=16)
model.autoencoder = dict(type='TinyAutoencoder', num_blocks=(1, 1), width=8, weights={weights!r})
model.penalties = []
model.reconstruction_loss = dict(type='ReconstructionLoss', pixel=dict(type='L1'))
train_dataloader.update(batch_size=2, num_workers=0, dataset=images)
val_dataloader = None
test_dataloader = None
custom_hooks = {{}}
default_hooks.checkpoint.update(save_best=None)
train_cfg = dict(max_iters={steps})
"""


def test_a_run_writes_no_password(site, tmp_path, capsys):
    torch.save(TinyAutoencoder(num_blocks=(1, 1), width=8).state_dict(), tmp_path / 'a.pth')
    url = site.add('/a.pth?token=verysecret', (tmp_path / 'a.pth').read_bytes()).replace('://', '://me:secret@')
    fetch(url)
    config, work_dir = tmp_path / 'config.py', tmp_path / 'run'
    config.write_text(CONFIG.format(weights=url, steps=1))
    train(str(config), overrides=[f'work_dir={work_dir}'])
    written = {file: file.read_bytes() for file in work_dir.rglob('*') if file.is_file()}
    assert any(b'127.0.0.1' in content for content in written.values())  # the place without the password
    assert [file.name for file, content in written.items() if b'secret' in content] == []

    # a checkpoint of an earlier version has them; they are no change of the config, and in no message
    path = work_dir / 'iter_1.pth'
    content = read_checkpoint(path)
    bare = without_passwords(url)
    assert bare in content['meta']['cfg']
    content['meta']['cfg'] = content['meta']['cfg'].replace(bare, url)
    torch.save(content, path)
    config.write_text(CONFIG.format(weights=url, steps=2))
    capsys.readouterr()
    train(str(config), overrides=[f'work_dir={work_dir}'], resume=True)
    printed = capsys.readouterr()
    assert 'train_cfg.max_iters: 1, now 2' in printed.out
    assert 'weights' not in printed.out
    assert 'secret' not in printed.out + printed.err


def test_only_urls_change():
    config = dict(
        a=['x://y,z', 's3://u:p@b/a?.tar', 'https://u:p@h/e.pt,https://u:p@h/d.pt?k=1'], b=dict(c='me:secret@h', d=1)
    )
    assert without_passwords(config) == dict(
        a=['x://y,z', 's3://b/a?.tar', 'https://h/e.pt,https://h/d.pt?…'], b=config['b']
    )
