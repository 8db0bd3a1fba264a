"""Training of every generator: one AdamW, rare checkpoints, no validation. A base sets `default_hooks.checkpoint`."""

optim_wrapper = dict(
    generator=dict(optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True))
)
checkpoint = dict(type='CheckpointHook', interval=50_000, max_keep_ckpts=2)
evaluators = []
