"""The README shows real output."""

import doctest
import re

import pytest

from eqzoo.commands.train import train
from eqzoo.engine import latest_checkpoint

FENCE = re.compile(r'```python\n(.*?)```', re.DOTALL)


@pytest.fixture
def blocks(root):
    return FENCE.findall((root / 'README.md').read_text())


def test_the_session_prints_what_it_shows(blocks):
    (session,) = [block for block in blocks if block.startswith('>>>')]
    test = doctest.DocTestParser().get_doctest(session, {}, 'README', None, 0)
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


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
