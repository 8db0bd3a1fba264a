"""Plain and EQ-VAE alone of `regularizers_clothing`: whether EQ-VAE helps on photographs, in five seeds overnight.

Gates and criterion are that study's, written down before its first run. Both studies share their stages in one
--work-dir.
"""

from mmengine.config import read_base

with read_base():
    from .regularizers_clothing import regularised, study, taef2
    from .._base_.studies.regularizers import eq

study.update(
    title='EQ-VAE against plain fine-tuning',
    claim='Generators learn faster on equivariant latents, and reconstructions do not suffer.',
)
study['autoencoders'] = {'plain': taef2, 'EQ': dict(**regularised, change=eq)}
