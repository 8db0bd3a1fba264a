"""What every generator's run has: logs, checkpoints, timing, one AdamW."""

from mmengine.config import read_base

with read_base():
    from .runtime import *

default_hooks.checkpoint = dict(type='CheckpointHook', interval=50_000, max_keep_ckpts=2)
optim_wrapper = dict(
    generator=dict(optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, fused=True))
)
evaluators = []
