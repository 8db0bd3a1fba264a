"""What setup.cfg lists is what there is."""

import configparser
from pathlib import Path


def test_every_package_is_listed(root):
    setup = configparser.ConfigParser()
    setup.read(root / 'setup.cfg')
    listed = set(setup['options']['packages'].split())
    folders = [path.parent.relative_to(root) for path in root.glob('eqzoo/**/__init__.py')]
    there = {'.'.join(Path(folder).parts) for folder in folders} | {'eqzoo.configs', 'eqzoo.registry'}
    assert listed == there
