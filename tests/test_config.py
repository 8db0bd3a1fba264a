"""Config files: overrides hit existing keys with the right type, and typos are errors."""

import json
import sys

import pytest

from eqzoo.config import KEYS, apply_override, load_config, parse_value, read_with_imports, to_python
from eqzoo.studies import load_study

LEAF = 'configs/eqvae/sdxl_rot_scale.py'


def write(tmp_path, text, name='config.py'):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_leaf_is_its_bases_and_its_own():
    config = load_config(LEAF)
    assert config.model.autoencoder.scale == 0.13025
    assert config.model.objective.type == 'ImplicitEquivariance'
    assert config.train_dataloader.batch_size == 160
    assert config.work_dir == 'work_dirs/eqvae/sdxl_rot_scale'
    assert config.seed == 0


def test_overrides_are_literals_words_or_text():
    config = load_config(
        LEAF,
        [
            'train_cfg.max_iters=7',
            'model.precision=bf16',
            'model.objective.transform.transforms.0.minimum=0.5',
            'model.micro_batch_size=none',
            'optim_wrapper.autoencoder.optimizer.betas=(0.9, 0.99)',
            'custom_hooks.pictures.num_images=4',
        ],
    )
    assert config.train_cfg.max_iters == 7
    assert config.model.precision == 'bf16'
    assert config.model.objective.transform.transforms[0].minimum == 0.5
    assert config.model.micro_batch_size is None
    assert config.optim_wrapper.autoencoder.optimizer.betas == (0.9, 0.99)
    assert config.custom_hooks.pictures == dict(type='PictureHook', interval=1000, num_images=4)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1e-3', 1e-3),
        ('True', True),
        ('false', False),
        ('None', None),
        ('[1, 2]', [1, 2]),
        ('a/b.zip', 'a/b.zip'),
        (
            "dict(type='Compose', transforms=[dict(type='Rotate')])",
            dict(type='Compose', transforms=[dict(type='Rotate')]),
        ),
        ('dict(**x)', 'dict(**x)'),
        ('dict(a=f())', 'dict(a=f())'),
        ('set(a=1)', 'set(a=1)'),
    ],
)
def test_parse_value(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('train_cfg.max_iter=1', r"train_cfg has no key 'max_iter'\. Did you mean 'max_iters'\? .*: max_iters"),
        ('trian_cfg.max_iters=1', r"the config has no key 'trian_cfg'\. Did you mean 'train_cfg'\?"),
        ('train_cfg.max_iters=abc', r"train_cfg\.max_iters: expected a number such as 50000, got 'abc'"),
        ('model.precision=16', r"model\.precision: expected text such as 'fp32', got 16"),
        ('train_cfg=5', r'train_cfg: expected a dict'),
        ('evaluators.3.type=A', r"evaluators is a list of 3; '3'"),
        ('custom_hooks.picture.interval=1', r"custom_hooks has no key 'picture'\. Did you mean 'pictures'\?"),
        ("custom_hooks=[{'type': 'PictureHook'}]", r'custom_hooks: expected a dict'),
        ('seed.x=1', r"seed is 0, which has no key 'x'"),
        ('seed', r'expected key=value'),
        ('model.precison=bf16', r"model has no key 'precison'\. Did you mean 'precision'\?"),
        ('train_dataloader.dataset.flip=3', r'dataset\.flip: expected true or false such as False, got 3'),
    ],
)
def test_wrong_overrides(override, message):
    with pytest.raises(ValueError, match=message):
        load_config(LEAF, [override])


def test_an_argument_of_a_component_need_not_be_in_the_config():
    config = load_config('configs/demo/pretrain.py', ['model.precision=bf16', 'model.objective.type=Plain'])
    assert config.model.precision == 'bf16'
    with pytest.raises(ValueError, match=r'model\.precision: expected text such as .fp32., got 16'):
        load_config('configs/demo/pretrain.py', ['model.precision=16'])


def test_an_int_may_become_a_float_but_not_a_bool():
    config = {'a': 1}
    apply_override(config, 'a=0.5')
    assert config == {'a': 0.5}
    with pytest.raises(ValueError, match='a: expected a number'):
        apply_override(config, 'a=true')


def test_a_missing_config_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"'configs/eqvae/sdxl_rot_scal.py' is not a file. Did you mean '.*sdxl_rot_scale.py'"
    ):
        load_config('configs/eqvae/sdxl_rot_scal.py')


def test_a_broken_config_is_one_message(tmp_path):
    with pytest.raises(ValueError, match=r'broken\.py cannot be read: SyntaxError'):
        load_config(write(tmp_path, 'model = dict(', 'broken.py'))
    write(tmp_path, 'seed = 1', 'other.py')
    lines = 'from mmengine.config import read_base\n\nwith read_base():\n    from other import *\n'
    with pytest.raises(ValueError, match=r'a config beside it is `from .NAME import \*`'):
        load_config(write(tmp_path, lines, 'mine.py'))


def test_a_misspelt_key_is_an_error_and_a_building_block_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match=r"'train_datalaoder'.*Did you mean 'train_dataloader'"):
        load_config(write(tmp_path, 'train_datalaoder = dict()'))
    assert 'colours' not in load_config(write(tmp_path, 'colours = dict(a=1)', 'other.py'))


def test_custom_imports_that_fail_say_why(tmp_path):
    for form in ("['no_such_module_here']", "dict(imports='no_such_module_here')"):
        with pytest.raises(ValueError, match=r"custom_imports: 'no_such_module_here' cannot be imported: No module"):
            load_config(write(tmp_path, f'custom_imports = {form}'))


@pytest.mark.parametrize(
    ('name', 'said'), [('Rotate', "'Rotate' is already a transform"), ('L1', 'L1 is already registered in loss')]
)
def test_a_name_of_eqzoo_in_custom_imports_is_one_message(name, said, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    lines = f'from eqzoo.registry import LOSSES\n\n\n@LOSSES.register_module()\nclass {name}:\n    pass\n'
    write(tmp_path, lines, f'taken_{name}.py')
    with pytest.raises(ValueError, match=f"custom_imports: 'taken_{name}' cannot be imported: {said}"):
        load_config(write(tmp_path, f"custom_imports = ['taken_{name}']"))


def test_hooks_have_names(tmp_path):
    with pytest.raises(ValueError, match=r'config\.py: custom_hooks: got a list; expected hooks by name'):
        load_config(write(tmp_path, "custom_hooks = [dict(type='PictureHook')]"))


def test_every_key_may_be_in_a_config_and_is_kept(tmp_path):
    loader = dict(batch_size=1, num_workers=0, dataset=dict(type='Shapes'))
    values = {
        **dict.fromkeys(KEYS),
        **{key: loader for key in KEYS if key.endswith('_dataloader')},
        **{key: [] for key in ('evaluators', 'test_evaluators', 'param_scheduler')},
        **{key: {} for key in ('default_hooks', 'custom_hooks', 'optim_wrapper', 'model', 'log_processor')},
        'sampling': dict(num_samples=1, batch_size=1, sampler=dict(type='ODE')),
        'train_cfg': dict(max_iters=1),
        **dict(seed=1, compile=True, device='cpu', work_dir='here'),
    }
    text = ''.join(f'{key} = {value!r}\n' for key, value in values.items())
    assert load_config(write(tmp_path, text)).to_dict() == values


def test_a_printed_config_has_what_python_has_and_no_long_lines(tmp_path):
    values = dict(
        single=(1,),
        none=None,
        empty=[[], {}, ()],
        text="it's \\ a\n",
        words={'a b': 1, 'class': 2},
        type=json.JSONDecoder,
    )
    model = dict(values, deep=[dict(number=number, long='x' * 30) for number in range(20)])
    text = to_python(dict(model=model))
    assert "type='json.decoder.JSONDecoder'" in text
    assert max(map(len, text.splitlines())) <= 120
    found = load_config(write(tmp_path, text)).model.to_dict()
    assert found == {**model, 'type': 'json.decoder.JSONDecoder'}
    assert type(found['single']) is tuple


def test_configs_that_are_not_here_are_those_of_eqzoo(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(LEAF)
    assert config.filename == str(root / LEAF)
    assert config.work_dir == 'work_dirs/eqvae/sdxl_rot_scale'
    (tmp_path / LEAF).parent.mkdir(parents=True)
    (tmp_path / LEAF).write_text('seed = 5')
    config = load_config(LEAF)
    assert config.filename == LEAF
    assert config.seed == 5
    assert config.work_dir == 'work_dirs/eqvae/sdxl_rot_scale'


def test_a_config_that_is_nowhere_says_where_it_was_looked_for(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=rf"not a file. Did you mean '{LEAF}'\? Looked for in {tmp_path} and, .* {root}"
    ):
        load_config('configs/eqvae/sdxl_rot_scal.py')
    with pytest.raises(ValueError, match=r"Config 'eqvae/sdxl_rot_scale.py' is not a file"):
        load_config('eqvae/sdxl_rot_scale.py')


def test_bases_may_be_those_of_a_package(tmp_path, monkeypatch):
    (tmp_path / 'lab' / 'configs').mkdir(parents=True)
    write(tmp_path / 'lab' / 'configs', 'optimizer = dict(lr=3.0)', 'fast.py')
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        'from mmengine.config import read_base\nwith read_base():\n'
        '    from eqzoo.configs.demo.rot_scale import *\n    from eqzoo.configs.eqvae.sd_rot import model as other\n'
        '    from lab.configs.fast import optimizer\n'
        'model.objective = other.objective\ntrain_cfg.update(val_interval=int(optimizer.lr))\n'
    )
    config, demo = load_config(write(tmp_path, text)), load_config('configs/demo/rot_scale.py')
    assert config.train_cfg.val_interval == 3
    assert config.model.autoencoder == demo.model.autoencoder
    assert config.model.objective == load_config('configs/eqvae/sd_rot.py').model.objective != demo.model.objective
    with pytest.raises(ValueError, match=r"cannot be read: ImportError: no package 'no_such_lab'"):
        load_config(write(tmp_path, text.replace('lab.configs', 'no_such_lab.configs')))
    with pytest.raises(ValueError, match=r'configs/demo/rot_scal\.py not found'):
        load_config(write(tmp_path, text.replace('rot_scale', 'rot_scal')))


def test_settings_of_the_gpu_are_in_a_config_only_if_they_are_set(tmp_path):
    path = write(tmp_path, '')
    assert 'gpu' not in load_config(path)
    assert 'gpu' not in load_config(path, ['gpu.deterministic=false'])
    assert load_config(path, ['gpu.tf32=true']).gpu == dict(deterministic=False, tf32=True, cudnn_benchmark=False)
    with pytest.raises(ValueError, match=r"gpu has no key 'tf23'. Did you mean 'tf32'?"):
        load_config(path, ['gpu.tf23=true'])
    with pytest.raises(ValueError, match=r'gpu must be a dict, got 3'):
        load_config(write(tmp_path, 'gpu = 3'))


def test_a_copy_of_a_config_is_told_to_import_it(tmp_path, root):
    copy = tmp_path / 'vqgan_rot_scale.py'
    copy.write_bytes((root / 'configs/eqvae/vqgan_rot_scale.py').read_bytes())
    with pytest.raises(ValueError, match=r'there; .*: from eqzoo.configs.eqvae.vqgan_rot_scale import \*`'):
        load_config(str(copy))


def test_a_work_dir_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert load_config(LEAF, ['work_dir=~/runs/a']).work_dir == f'{tmp_path}/runs/a'
    assert load_config(write(tmp_path, "work_dir = '~'")).work_dir == str(tmp_path)
    assert load_config(LEAF, ['work_dir=a/~']).work_dir == 'a/~'


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (
            "import os\nwork_dir = os.path.join('a', 'b')",
            "RuntimeError; a config's imports are not executed.*key=value",
        ),
        ("from pathlib import Path\nwork_dir = str(Path('a') / 'b')", "a config's imports are not executed"),
        ("import os\nwork_dir = os.environ['X']", "'LazyAttr' .*a config's imports are not executed"),
        (
            'from mmengine.config import read_base\nwith read_base():\n    import other',
            'AssertionError: Illegal syntax',
        ),
        ("_base_ = ['eqzoo::demo/plain.py']", 'AssertionError: mmengine does not'),
        ('assert 1 == 2', 'AssertionError$'),
        ('seed = [][1]', 'IndexError: list index'),
        ('seed = 1 / 0', 'ZeroDivisionError: division'),
        ("seed = int('a')", "ValueError: invalid literal .* 'a'"),
        ('seed = "\udcff"', 'UnicodeDecodeError'),
    ],
)
def test_whatever_a_config_raises_is_one_message_with_its_name(text, reason, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_bytes(text.encode(errors='surrogateescape'))
    for read in (load_config, read_with_imports, load_study):
        with pytest.raises(ValueError, match=rf'Config .*mine\.py cannot be read: .*{reason}'):
            read(path)


@pytest.mark.parametrize('name', ['run.yaml', 'run.json', 'run.txt', 'run'])
def test_a_config_is_a_python_file(name, tmp_path):
    with pytest.raises(ValueError, match=rf'{name}: expected a Python file'):
        load_config(write(tmp_path, '{}', name))


def test_an_item_of_a_tuple_can_be_set():
    config = load_config(LEAF, ['optim_wrapper.autoencoder.optimizer.betas.0=0.8'])
    assert config.optim_wrapper.autoencoder.optimizer.betas == (
        0.8,
        *load_config(LEAF).optim_wrapper.autoencoder.optimizer.betas[1:],
    )
    nested = {'a': ((1, 2), [3], {'b': 4})}
    for override in ('a.0.-1=5', 'a.1.0=6', 'a.2.b=7'):
        apply_override(nested, override)
    assert nested == {'a': ((1, 5), [6], {'b': 7})}
    with pytest.raises(ValueError, match=r"a\.0 is a list of 2; '2' is not one"):
        apply_override(nested, 'a.0.2=1')
    with pytest.raises(ValueError, match='a.0.0: expected a number'):
        apply_override(nested, 'a.0.0=x')


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ("['.shear']", r"got '\.shear'; expected the module's name: shear\."),
        ("['./m.py']", r"got './m\.py'; expected the module's name: m\."),
        ("dict(modules=['shear'])", 'got the keys modules; expected .*imports='),
        ("dict(imports=['shear'], allow_failed=True)", 'got the keys imports, allow_failed'),
        ('dict(imports=5)', 'got 5; expected'),
        ('5', 'got 5; expected'),
        ("['']", "got ''; expected the modules' names, such as custom_imports=dict"),
        ('[5]', "got 5; expected the modules' names"),
    ],
)
def test_custom_imports_that_name_no_module_are_refused(value, message, tmp_path):
    with pytest.raises(ValueError, match=rf'config\.py: custom_imports: {message}'):
        load_config(write(tmp_path, f'custom_imports = {value}'))


@pytest.mark.parametrize(
    ('text', 'reason'),
    [('def f(:', 'SyntaxError: .*line 1'), ('undefined', "NameError: .*'undefined'"), ('1 / 0', 'Zero')],
)
def test_a_broken_module_of_custom_imports_is_one_message(text, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [*sys.path])
    name = f'broken_{reason[:4]}'
    write(tmp_path, text, f'{name}.py')
    with pytest.raises(ValueError, match=rf"config\.py: custom_imports: '{name}' cannot be imported: {reason}"):
        load_config(write(tmp_path, f"custom_imports = '{name}'"))


def test_custom_imports_may_fail_if_the_config_says_so(tmp_path):
    load_config(write(tmp_path, "custom_imports = dict(imports=['no_such_module'], allow_failed_imports=True)"))
