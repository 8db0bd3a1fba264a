"""Keys of a config that are no components' arguments: types, ranges, names, and packages that are not installed."""

from pathlib import Path

import pytest
from mmengine.optim import AmpOptimWrapper

from eqzoo.config import KEYS, leaf_configs, load_config
from eqzoo.engine.training import StepOptimWrapper
from eqzoo.schema import SCHEMA, check_foreign, check_keys

DEMO = 'configs/demo/pretrain.py'


def test_the_schema_has_the_keys_of_a_config():
    assert {key.rstrip('?') for key in SCHEMA} == {*KEYS}


@pytest.mark.parametrize('path', leaf_configs(Path('configs')), ids=str)
def test_every_config_that_comes_with_eqzoo_passes(path):
    config = load_config(path)
    check_foreign(config)


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('train_cfg.max_iters=0', 'train_cfg.max_iters must be at least 1, got 0'),
        ('train_cfg.max_iters=1e4', r'train_cfg.max_iters must be a whole number.*, got 10000.0; write 10000\.'),
        ('train_cfg.val_interval=0', 'train_cfg.val_interval must be at least 1, got 0'),
        ('train_cfg=none', 'train_cfg must be a dict, got None'),
        ('train_cfg={}', "train_cfg needs 'max_iters'"),
        ('train_cfg={"max_iter": 5}', "train_cfg has no key 'max_iter'. Did you mean 'max_iters'"),
        ('train_dataloader.batch_size=-3', 'train_dataloader.batch_size must be at least 1, got -3'),
        ('train_dataloader.num_workers=none', 'train_dataloader.num_workers must be a whole number .*, got None'),
        ('train_dataloader.dataset=none', r'train_dataloader.dataset must be a component, dict\(type=…\), got None'),
        ('train_dataloader=none', 'train_dataloader must be a dict, got None'),
        ('model=none', 'model must be a dict, got None'),
        ('evaluators=none', 'evaluators must be a list of components, got None'),
        ('evaluators=[5]', r'evaluators\[0\] must be a component, dict\(type=…\), got 5'),
        ('custom_hooks={"a": 5}', r'custom_hooks.a must be a component, dict\(type=…\), got 5'),
        ('log_processor.window_size=1.5', 'log_processor.window_size must be a whole number of at least 1, got 1.5'),
        ('optim_wrapper.autoencoder=none', 'optim_wrapper.autoencoder must be a dict, got None'),
        ('seed=-1', r'seed must be in \[0, 4,294,967,295\], got -1'),
        ('seed=1.5', 'seed must be a whole number .*, got 1.5'),
        ('work_dir=', "work_dir must be text that is not empty, got ''"),
        ('resume=yes', "resume must be 'auto' or None, got 'yes'"),
        ('sharding=half', "sharding must be 'full' or None, got 'half'"),
    ],
)
def test_wrong_values_are_refused_on_reading(override, message):
    with pytest.raises(ValueError, match=message):
        load_config(DEMO, [override])


@pytest.mark.parametrize('word', ['seed=' + '-' * 5000 + '1', 'seed=' + '[' * 5000, 'seed=' + '9' * 5000])
def test_a_value_of_thousands_of_signs_is_text(word):
    with pytest.raises(ValueError, match='Override seed: expected a number'):
        load_config(DEMO, [word])


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(num_samples=0), 'sampling.num_samples must be at least 1, got 0'),
        (dict(batch_size=-2), 'sampling.batch_size must be at least 1, got -2'),
        (dict(labels=7), "sampling.labels must be 'random', 'balanced' or a list of one or more .*, got 7"),
        (dict(labels=[-1]), r'sampling.labels\[0\] must be at least 0, got -1'),
        (dict(sampler=None), 'sampling.sampler must be a component, .*, got None'),
        (dict(precision='fp16'), "sampling.precision must be 'fp32' or 'bf16', got 'fp16'"),
    ],
)
def test_sampling(wrong, message):
    good = dict(num_samples=4, batch_size=2, sampler=dict(type='ODE'))
    check_keys(dict(sampling=good))
    with pytest.raises(ValueError, match=message):
        check_keys(dict(sampling={**good, **wrong}))


def optimizer(**arguments):
    return dict(optim_wrapper=dict(autoencoder=dict(optimizer=dict(dict(type='Adam', lr=1e-3), **arguments))))


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (optimizer(lr='1e-4'), "Adam.lr must be a number above 0, got '1e-4'; write 0.0001, without quotes"),
        (optimizer(lr=None), 'Adam.lr must be a number above 0, got None'),
        (optimizer(lr=-1), 'Adam.lr must be above 0, got -1'),
        (optimizer(betas=('a', 1)), r"Adam.betas\[0\] must be a number in \[0, 1\), got 'a'"),
        (optimizer(betas=5), r'Adam.betas must be 2 numbers in \[0, 1\), got 5'),
        (optimizer(weight_decay=-1), 'Adam.weight_decay must be at least 0, got -1'),
        (optimizer(type='AdamV'), "Unknown optimizer 'AdamV'. Did you mean 'Adam"),
        (optimizer(type='LBFGS'), 'LBFGS computes the loss several times a step'),
        (optimizer(type='Rotate'), "Unknown optimizer 'Rotate'"),
        *(
            (
                dict(optim_wrapper=dict(a=dict(type=kind, optimizer=dict(type='SGD', lr=1)))),
                "optim_wrapper.a.type: got '(Amp|Step)?OptimWrapp.*'; expected StepOptimWrapper, .*model.precision=bf16",
            )
            for kind in ('AmpOptimWrapper', AmpOptimWrapper, 'OptimWrapper', 'StepOptimWrapp')
        ),
        (
            dict(optim_wrapper=dict(a=dict(optimizer=dict(type='SGD', lr=1), clip_grad=dict(max_norm='a')))),
            "optim_wrapper.a.clip_grad.max_norm must be a number above 0, got 'a'",
        ),
        (
            dict(optim_wrapper=dict(a=dict(optimizer=dict(type='SGD', lr=1), clip_grad=dict(max_value=1)))),
            "optim_wrapper.a.clip_grad has no key 'max_value'. Its keys: max_norm",
        ),
        (
            dict(param_scheduler=[dict(type='LinearLR', start_factor=0)]),
            r'param_scheduler\[0\]: LinearLR.start_factor must be in \(0, 1\], got 0',
        ),
        (
            dict(param_scheduler=dict(a=[dict(type='LinearLr')])),
            "Unknown parameter scheduler 'LinearLr'. Did you mean 'LinearLR'",
        ),
        (
            dict(param_scheduler=dict(type='LinearLR', end=1.5)),
            'LinearLR.end must be a whole number of at least 1, got 1.5',
        ),
        (
            dict(param_scheduler=dict(a=[dict(type='LinearLR', by_epoch=True)])),
            r'param_scheduler.a\[0\]: LinearLR.by_epoch: got True, .*; expected False, with begin, end .* in steps',
        ),
        (
            dict(visualizer=dict(type='Visualizer', vis_backends=[dict(type='ClearMLVisBackend')])),
            r'vis_backends\[0\]: ClearMLVisBackend needs clearml, which is not installed; expected: pip install clearml',
        ),
        (
            dict(default_hooks=dict(logger=dict(type='LoggerHook', interval=0))),
            'default_hooks.logger: LoggerHook.interval must be at least 1, got 0',
        ),
        (dict(default_hooks=dict(logger=dict(type='LogerHook'))), "default_hooks.logger: Unknown hook 'LogerHook'"),
        (dict(custom_hooks=dict(a=dict(type='L1'))), "custom_hooks.a: Unknown hook 'L1'"),
    ],
)
def test_classes_of_torch_and_mmengine(config, message):
    check_keys(config)
    with pytest.raises(ValueError, match=message):
        check_foreign(config)


def test_a_wrapper_of_eqzoo_and_its_subclasses_are_taken():
    class Own(StepOptimWrapper):
        pass

    for kind in ('StepOptimWrapper', StepOptimWrapper, Own):
        check_foreign(dict(optim_wrapper=dict(a=dict(type=kind, optimizer=dict(type='SGD', lr=1)))))


def test_schedules_of_epochs_that_work_are_taken():
    check_foreign(
        dict(
            param_scheduler=[
                dict(type='LinearLR', by_epoch=True, convert_to_iter_based=True),
                dict(type='ReduceOnPlateauLR', monitor='rfid', by_epoch=True),
            ]
        )
    )
