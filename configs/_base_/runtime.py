"""What every run has: logs, checkpoints, timing."""

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1000,
        max_keep_ckpts=2,
        save_best='eq_err/rotation',
        rule='less',
    ),
)

visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)

compile = False

log_processor = dict(by_epoch=False, window_size=50)

evaluators = [
    dict(type='ReconstructionMetric'),
    dict(type='EquivarianceError'),
    dict(type='LatentStatistics'),
]
