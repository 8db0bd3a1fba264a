"""REPA-E on the built-in Shapes, from the demo's autoencoder and a small SiT: minutes on two CPU cores.

`python tools/demo.py --images shapes` trains the autoencoder. `configs/repa/repa_tiny_shapes.py` is the same generator
on fixed latents.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.demo import *
    from .._base_.generator_demo import autoencoder, checkpoint, network, sampling, test_evaluators

network.update(type='AlignedTransformer', learn_sigma=False, feature_dims=(112,), tap=2, projector_width=256)
model.update(
    type='JointTraining',
    autoencoder=autoencoder,
    generator=dict(
        type='REPA',
        network=network,
        process=dict(type='Interpolant'),
        encoder=dict(type='EfficientNetLite0Tokens', stride=16, size=128),  # 8 x 8 tokens, as many as of the network
    ),
    alignment_weight=1.5,
)
model.reconstruction_loss.update(reduction='mean')  # beside a sum over pixels, alignment would have no effect
train_dataloader.update(batch_size=32)
train_cfg = dict(max_iters=1000, val_interval=500)
adamw = dict(optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.0), clip_grad=dict(max_norm=1.0))
optim_wrapper = dict(autoencoder=adamw, generator=adamw)
default_hooks.checkpoint = dict(checkpoint, interval=500)
custom_hooks.update(ema=dict(type='EMAHook', decay=0.99), samples=dict(type='SampleHook', interval=500))
custom_hooks.samples.sampler = sampling.sampler = dict(
    type='ODE', method='heun', steps=25, guidance=dict(type='ClassifierFree', scale=1.5)
)
