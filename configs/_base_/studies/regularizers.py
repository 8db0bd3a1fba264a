"""The methods of the studies of regularisers: what each changes in a plain fine-tuning of TAEF2.

Weights of penalties are relative to a reconstruction loss summed over 3 x 64 x 64 values.
"""

turn_and_scale = dict(type='Compose', transforms=[dict(type='IsotropicScale'), dict(type='Rotate')])
turn_and_antialiased_scale = dict(
    type='Compose',
    transforms=[dict(type='IsotropicScale', interpolation='bicubic', antialias=True), dict(type='Rotate')],
)
equivariance = dict(type='ImplicitEquivariance', transform=turn_and_scale, p_equivariance=0.5, p_low_resolution=0.0)
equivariance_antialiased = dict(
    type='ImplicitEquivariance', transform=turn_and_antialiased_scale, p_equivariance=0.5, p_low_resolution=0.0
)
noise = dict(type='LatentNoise', sigma=0.5, kind='drawn')
tokens = dict(type='EfficientNetLite0Tokens', stride=16, size=128)

eq = {'model.objective': equivariance}
eq_antialiased = {'model.objective': equivariance_antialiased}
scale_equivariance = {'model.objective': dict(type='DownsampledReconstruction')}
spectral_mask = {'model.objective': dict(type='SpectralMask')}
latent_noise = {'model.corruptions': [noise]}
latent_mask = {'model.corruptions': [dict(type='LatentMask')]}
spectrum_matching = {'model.penalties': [dict(type='SpectrumMatching', weight=120.0)]}
local_correlation = {'model.penalties': [dict(type='LocalCorrelation')]}
alignment = {'model.penalties': [dict(type='FeatureAlignment', encoder=tokens)]}
eq_and_noise = {**eq, **latent_noise}

# combinations that no paper has
turn_flip_or_shift = dict(type='Choice', transforms=[dict(type='Rotate'), dict(type='Flip'), dict(type='Shift')])
plane = dict(type='Compose', transforms=[dict(type='IsotropicScale'), turn_flip_or_shift])
eq_of_the_plane = {
    'model.objective': dict(type='ImplicitEquivariance', transform=plane, p_equivariance=0.5, p_low_resolution=0.0)
}
scale_equivariance_and_noise = {**scale_equivariance, **latent_noise}
scale_equivariance_and_eq = {
    **scale_equivariance,
    'model.penalties': [dict(type='ExplicitEquivariance', transform=turn_and_scale, weight=0.1)],
}
spectral_mask_and_noise = {**spectral_mask, **latent_noise}
eq_and_spectrum = {**eq, **spectrum_matching}

# a case of each, since every case encodes all images once more, and TAEF2 is no toy
equivariance_error = dict(
    type='EquivarianceError',
    transforms=dict(
        rotation=dict(type='Rotate', turns=(1,)),
        scale=dict(type='IsotropicScale', interpolation='bicubic', antialias=True, eval_scales=(0.5,)),
        flip=dict(type='Flip', axes=('horizontal',)),
    ),
)
