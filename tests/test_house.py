"""The order of the house: imports point one way, names mean one thing, files have a reason of their own."""

import pytest
from house import House

# From the bottom up. A room imports rooms that are further down, and of its own; rooms of one line do not import each other.
LAYERS = (
    ('dct', 'files', 'lazy', 'precision', 'randomness', 'text', 'zips'),
    ('images', 'distributed', 'machine', 'npz'),
    ('gradients',),
    ('registry',),
    ('schema',),
    ('config',),
    ('zoo',),
    ('normalization',),
    ('checkpoints',),
    ('transforms', 'vision', 'autoencoders', 'generators'),
    ('regularizers', 'losses', 'pictures', 'data'),
    ('evaluators',),
    ('report', 'loading'),
    ('engine',),
    ('laboratory', 'benchmarks'),
    ('studies',),
    ('commands',),
    ('__main__',),
)

# Modules with one importer that are a subject of their own, and why.
SINGLE_IMPORTERS = {
    'eqzoo.checkpoints.pickled': 'how a pickle is read without running it, beside what is in it',
    'eqzoo.checkpoints.card': 'the page about an exported autoencoder, for the one command that exports',
    'eqzoo.checkpoints.comfyui': 'what ComfyUI and A1111 can open, beside how files are written',
    'eqzoo.checkpoints.onnx': 'graphs, beside files of weights',
    'eqzoo.data.drawing': 'how pictures are drawn, beside which pictures there are (Shapes)',
    'eqzoo.studies.plots': 'plots, beside the page that contains them',
    'eqzoo.studies.preflight': 'what a study lacks, for the one command that runs studies',
    'eqzoo.studies.report': 'the page of a study, for the one command that runs studies',
    # one file for each kind of container, for the one module that opens all of them
    'eqzoo.data.lmdbs': '',
    'eqzoo.data.tables': '',
    'eqzoo.data.tars': '',
    # one file per benchmark, for the one command that runs them
    'eqzoo.benchmarks.decoding': '',
    'eqzoo.benchmarks.evaluation': '',
    'eqzoo.benchmarks.gpu_checks': '',
    'eqzoo.benchmarks.gpu_parts': '',
    'eqzoo.benchmarks.gradients': '',
    'eqzoo.benchmarks.growth': '',
    'eqzoo.benchmarks.images': '',
    'eqzoo.benchmarks.latents': '',
    'eqzoo.benchmarks.memory': '',
    'eqzoo.benchmarks.networks': '',
    'eqzoo.benchmarks.speed': '',
    'eqzoo.benchmarks.startup': '',
}


@pytest.fixture(scope='module')
def house():
    return House()


def _room(module):
    return module.split('.')[1] if '.' in module else ''


def test_every_room_has_a_layer(house):
    known = {room for layer in LAYERS for room in layer}
    assert {_room(module) for module in house.files} - {''} == known


def test_imports_point_down(house):
    height = {room: level for level, layer in enumerate(LAYERS) for room in layer}
    upward = [
        f'{module} imports {each.module}'
        for module, imports in house.imports.items()
        for each in imports
        if each.module in house.files and _room(module) != _room(each.module) and _room(module) and _room(each.module)
        if height[_room(each.module)] >= height[_room(module)]
    ]
    assert upward == []


def test_no_import_circle(house):
    assert house.circles() == []


def test_no_command_imports_another(house):
    shared = {'eqzoo.commands.cli', 'eqzoo.commands'}
    between = [
        f'{module} imports {other}'
        for module, imported in house.graph.items()
        for other in imported
        if module.startswith('eqzoo.commands.') and other.startswith('eqzoo.commands.') and other not in shared
        if module not in shared
    ]
    assert between == []


def test_mmengine_stays_behind_its_fence(house):
    assert house.mmengine_elsewhere() == []


def test_no_public_name_is_defined_twice(house):
    assert house.name_collisions() == {}


def test_a_module_with_one_importer_has_a_reason(house):
    assert set(house.single_importers()) == set(SINGLE_IMPORTERS)


def test_the_checks_see_a_fault(tmp_path):
    """A counter-example: a house with a circle, a name used twice, mmengine outside and a module of one importer."""
    package = tmp_path / 'eqzoo'
    (package / 'losses').mkdir(parents=True)
    (tmp_path / 'registry').mkdir()
    (package / '__init__.py').write_text('')
    (package / 'losses' / '__init__.py').write_text('')
    (package / 'losses' / 'a.py').write_text('def find():\n    from eqzoo.losses.b import other\n')
    (package / 'losses' / 'b.py').write_text('from eqzoo.losses.a import find as found\ndef find(): ...\n')
    (package / 'files.py').write_text('import mmengine.dist\n')
    house = House(tmp_path)
    assert house.circles() == [['eqzoo.losses.a', 'eqzoo.losses.b']]
    assert house.name_collisions() == {'find': ['eqzoo.losses.a', 'eqzoo.losses.b']}
    assert house.mmengine_elsewhere() == ['eqzoo.files']
    assert house.single_importers() == {'eqzoo.losses.a': 'eqzoo.losses.b', 'eqzoo.losses.b': 'eqzoo.losses.a'}
