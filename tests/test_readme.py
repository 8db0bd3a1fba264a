"""The README shows real output."""

import re

import pytest
import torch

from eqzoo.commands.train import train
from eqzoo.engine import latest_checkpoint
from eqzoo.loading import autoencoder_config
from eqzoo.registry import build

FENCE = re.compile(r'```python\n(.*?)```', re.DOTALL)


@pytest.fixture
def blocks(root):
    return FENCE.findall((root / 'README.md').read_text())


def test_the_lines_of_python_do_what_they_say(blocks):
    (lines,) = [block for block in blocks if 'import eqzoo' in block]
    names = dict(images=torch.rand(2, 3, 32, 32, generator=torch.manual_seed(0)) * 2 - 1)
    exec(lines, names)
    autoencoder = build(autoencoder_config('configs/_base_/autoencoders/clothes_f8.py')).eval()
    with torch.no_grad():
        latents = autoencoder.encode(names['images']).mean
        assert names['z'].shape == (2, 32, 4, 4)
        assert torch.equal(names['z'], latents)
        assert torch.equal(names['turned'], autoencoder.decode(latents.transpose(2, 3).flip(2)))
        assert torch.equal(names['latents'], autoencoder.normalization.normalize(latents))


def test_a_custom_transform_trains_without_a_change_to_eqzoo(blocks, tmp_path):
    for block in blocks:
        if block.startswith('# '):
            name = block.splitlines()[0].removeprefix('# ')
            (tmp_path / name).write_text(block)
    train(
        str(tmp_path / 'my_config.py'),
        overrides=[f'work_dir={tmp_path}/work', 'model.objective.p_equivariance=1.0'],
        smoke=True,
    )
    assert latest_checkpoint(tmp_path / 'work').name == 'iter_4.pth'

    from eqzoo.registry import TRANSFORMS

    shear = TRANSFORMS.module_dict.pop('Shear')  # other tests go through all that is registered
    assert shear.__module__ == 'shear'
