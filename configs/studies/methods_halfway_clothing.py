"""All methods of `regularizers_clothing` after 2,500 steps of SiT, where EQ-VAE led, on photographs.

'plain' and 'EQ' are the stages of `eq_halfway_clothing`, seeds and all, and are not run again in the same --work-dir.
Their results were known when this was written down, and no other method had been scored.
"""

from mmengine.config import read_base

with read_base():
    from .regularizers_clothing import study

study.update(title='Regularisers of latents, after half of the steps', first_seed=10)
study['generators']['SiT'] = dict(config='configs/studies/{size}/sit.py', change={'train_cfg.max_iters': 2500})
study['criterion'].update(
    words=(
        "A method helps if, after 2,500 steps, the Fréchet distance of SiT's samples to held-out photographs is lower "
        "than on plain latents in five of five seeds. The distance to the autoencoder's own reconstructions of the "
        'same photographs says whether latents or decoder did it.'
    )
)
