"""Table 5 in miniature, on Shapes: which transforms; beside the paper's, those that it leaves to others."""

from mmengine.config import read_base

with read_base():
    from .._base_.studies.grid import columns, dit, kl, score
    from .._base_.studies.objectives import (
        affine,
        anisotropic,
        flip,
        isotropic,
        perspective,
        rot_anisotropic,
        rot_scale,
        rot_scale_antialiased,
        rotation,
        shift,
        warp,
    )

ablated = dict(**kl, against='plain')
study = dict(
    title='Which transforms',
    claim=(
        'EQ-VAE, Table 5 (gFID of DiT-B/2, rFID, intrinsic dimension): plain 43.5, 0.90, 62.2; rotation 41.2, '
        '0.73, 57.9; isotropic scale 35.8, 0.78, 41.0; both 34.1, 0.82, 39.4; rotation and anisotropic scale '
        '33.2, 0.92, 38.9.'
    ),
    size='shapes',
    data='Shapes',
    autoencoders={
        'plain': kl,
        'rotation': dict(**ablated, change={'model.objective': rotation}),
        'isotropic scale': dict(**ablated, change={'model.objective': isotropic}),
        'anisotropic scale': dict(**ablated, change={'model.objective': anisotropic}),
        'rotation + isotropic': dict(**ablated, change={'model.objective': rot_scale}),
        'rotation + isotropic, antialiased': dict(**ablated, change={'model.objective': rot_scale_antialiased}),
        'rotation + anisotropic': dict(**ablated, change={'model.objective': rot_anisotropic}),
        'flip': dict(**ablated, change={'model.objective': flip}),
        'shift': dict(**ablated, change={'model.objective': shift}),
        'affine': dict(**ablated, change={'model.objective': affine}),
        'perspective': dict(**ablated, change={'model.objective': perspective}),
        'warp': dict(**ablated, change={'model.objective': warp}),
    },
    generators={'DiT': dit},
    columns={
        **columns,
        'autoencoder': [
            *columns['autoencoder'],
            'eq_err/flip',
            'eq_err/shift',
            'eq_err/affine',
            'eq_err/perspective',
            'eq_err/warp',
        ],
    },
    score=score,
)
