"""LightningDiT-XL/1 with its own settings (arXiv 2501.01423): 64 epochs of 1,024 images, 250 times of Euler's method.

Its code counts time from noise to data, and guides three channels, at times from 0.1 on. The loss of velocity and
direction and logit-normal times are those of its configs; a prediction of zero has an enormous gradient of direction,
which beta2 = 0.95 forgets within the first thousand steps.
"""

from mmengine.config import read_base

with read_base():
    from ..latents.vavae import autoencoder, latents, store
    from .sit import *

model.generator.network.update(patch_size=1, mlp='swiglu', norm='rms', rope=True, **latents)
model.generator.process.update(network_time='noise_to_data', time_sampling='lognormal', direction_weight=1.0)
model.update(autoencoder=autoencoder)
train_dataloader.update(batch_size=1024)
train_dataloader.dataset.update(root=store)
optim_wrapper.generator.optimizer.update(lr=2e-4, betas=(0.9, 0.95))
train_cfg.max_iters = 80_000
guidance = dict(type='ClassifierFree', scale=10.0, interval=(0.0, 0.9), channels=3)
sampling.sampler = dict(type='ShiftedODE', method='euler', steps=249, shift=1 / 0.3, guidance=guidance)
custom_hooks.samples.sampler = dict(sampling.sampler, steps=49)
