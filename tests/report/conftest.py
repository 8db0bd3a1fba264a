"""Fixtures: a result as tools/test.py writes it, and files of it."""

import json

import pytest


@pytest.fixture(scope='session')
def result():
    """A function → a test's result; its arguments change how it was measured."""

    def function(*, psnr=25.614, protocol='uint8', num_images=5000, **card):
        return dict(
            metrics={'psnr': psnr, 'ssim': 0.7045, 'eq_err/rotation': 0.1931, 'latent_std': None},
            cases={'eq_err/rotation/90': 0.2, 'eq_err/rotation/180': 0.19},
            curves=[
                dict(
                    title='Error over angle',
                    x='angle',
                    y='error',
                    log=False,
                    series=[dict(label='latent', x=[90, 180], y=[0.2, 0.19], low=[0.1, 0.15], high=[0.3, 0.2])],
                )
            ],
            card={
                'config': 'configs/eqvae/sd16_rot_scale.py',
                'weights': dict(file='iter_1.pth', sha256='ab' * 32),
                'data': dict(kind='ImageFolder', root='val.zip', crop='center', size=256, sha256='cd' * 32),
                'num_images': num_images,
                'unreadable': ['broken.png'],
                'evaluators': dict(
                    ReconstructionMetric=dict(metrics=['psnr', 'ssim'], protocol=protocol),
                    EquivarianceError=dict(metrics=['eq_err/rotation'], cases=dict(rotation=['90', '180'])),
                    LatentStatistics=dict(metrics=['latent_std'], latent='posterior mean'),
                ),
                'eqzoo': '0.1.0',
                'torch': '2.6.0',
                **card,
            },
        )

    return function


@pytest.fixture
def write(tmp_path):
    """A function (name, content) → the path of a metrics.json with that content, in a folder of that name."""

    def function(name, content):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        path = tmp_path / name / 'metrics.json'
        path.write_text(json.dumps(content))
        return path

    return function
