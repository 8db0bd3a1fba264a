"""What every run of a study has: its last checkpoint, and a line in the log now and then."""

from mmengine.config import read_base

with read_base():
    from ..runtime import default_hooks, log_processor

default_hooks.checkpoint = dict(type='CheckpointHook', interval=500, max_keep_ckpts=1)
default_hooks.logger.interval = 100
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
compile = False
evaluators = []
