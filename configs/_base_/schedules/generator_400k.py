"""Training of DiT, SiT and REPA on ImageNet: 400,000 steps of 256 images, 80 epochs; a moving average."""

train_cfg = dict(max_iters=400_000)
custom_hooks = dict(
    ema=dict(type='EMAHook', decay=0.9999),
    samples=dict(type='SampleHook', interval=10_000),
)
