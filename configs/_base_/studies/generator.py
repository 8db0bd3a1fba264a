"""Training of generators in studies. A leaf adds `run`, the model, the sampler, data and metrics."""

network = dict(
    type='DiffusionTransformer', size=(4, 96, 4), patch_size=2, latent_channels=4, latent_size=8, num_classes=10
)
optim_wrapper = dict(
    generator=dict(optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0, fused=True))
)
custom_hooks = dict(ema=dict(type='EMAHook', decay=0.99))
# no guidance, as the paper's Tables 2, 9 and 10
sampling = dict(num_samples=500, batch_size=250, labels='balanced', seed=0)
extractor = dict(type='EfficientNetLite0', size=112)
