"""Checkpoints and logs of the runs of a study: the last checkpoint, and a line in the log now and then."""

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=500, max_keep_ckpts=1),
)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
compile = False
log_processor = dict(by_epoch=False, window_size=50)
evaluators = []
