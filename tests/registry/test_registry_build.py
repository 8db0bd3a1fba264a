"""Building from nested configs: order, uniqueness, and errors that say where."""

from pathlib import Path

import pytest

from eqzoo.registry import DATASETS, KINDS, LOSSES, TRANSFORMS, build, check_config


@pytest.fixture
def register():
    """Register classes for one test and forget them after it."""
    registered = []

    def register(kind, cls):
        kind.register_module()(cls)
        registered.append((kind, cls.__name__))
        return cls

    yield register
    for kind, name in registered:
        del kind.module_dict[name]


class Leaf:
    def __init__(self, size: int, *, colour: str = 'red') -> None:
        if size < 0:
            raise ValueError(f'Leaf.size must not be negative, got {size}.')
        self.size, self.colour = size, colour


class Branch:
    def __init__(self, leaves, by_name=None, init_cfg=None) -> None:
        self.leaves, self.by_name, self.init_cfg = leaves, by_name, init_cfg


def test_nested_configs_of_other_kinds_are_built_innermost_first(register):
    register(TRANSFORMS, Leaf)
    register(LOSSES, Branch)
    config = dict(
        type='Branch',
        leaves=[dict(type='Leaf', size=1), dict(type='Leaf', size=2)],
        by_name=dict(green=dict(type='Leaf', size=3, colour='green')),
        init_cfg=dict(type='Kaiming'),
    )
    branch = build(config)
    assert [leaf.size for leaf in branch.leaves] == [1, 2]
    assert branch.by_name['green'].colour == 'green'
    assert branch.init_cfg == dict(type='Kaiming')
    assert config['leaves'][0] == dict(type='Leaf', size=1)  # the config is left as it was


def test_type_may_be_a_class_or_a_dotted_path():
    assert build(dict(type=Leaf, size=4)).size == 4
    assert build(dict(type='fractions.Fraction', numerator=1, denominator=2)) * 2 == 1


def test_defaults_fill_what_the_config_leaves_out():
    assert LOSSES.build(dict(type=Leaf, size=1), dict(colour='blue')).colour == 'blue'
    assert LOSSES.build(dict(type=Leaf, size=1, colour='red'), dict(colour='blue')).colour == 'red'


def test_registry_build_takes_only_its_kind(register):
    register(LOSSES, Leaf)
    assert LOSSES.build(dict(type='Leaf', size=1)).size == 1
    with pytest.raises(ValueError, match="Unknown transform 'Leaf'"):
        TRANSFORMS.build(dict(type='Leaf', size=1))


def test_unknown_name_names_the_nearest_and_the_list(register):
    register(TRANSFORMS, Leaf)
    with pytest.raises(ValueError, match=r"Unknown transform 'Leav'\. Did you mean 'Leaf'\? Registered: .*Leaf"):
        TRANSFORMS.build(dict(type='Leav'))
    with pytest.raises(ValueError, match=r"leaves\[1\]: Unknown transform 'Leav'\. Did you mean 'Leaf'\?"):
        build(dict(type=Branch, leaves=[dict(type='Leaf', size=1), dict(type='Leav')]))


def test_unknown_name_like_no_other_lists_everything():
    with pytest.raises(ValueError, match=r"Unknown component 'Xyzzyx'\. Registered: .*KLAutoencoder"):
        build(dict(type='Xyzzyx'))


def test_unknown_and_missing_arguments_say_where():
    config = dict(type=Branch, leaves=[dict(type=Leaf, size=1, color='red')])
    with pytest.raises(ValueError, match=r"leaves\[0\]: Leaf has no argument 'color'\. Did you mean 'colour'\?"):
        build(config)
    with pytest.raises(ValueError, match=r"leaves\[0\]: Leaf needs 'size'\."):
        build(dict(type=Branch, leaves=[dict(type=Leaf)]))


def test_a_constructors_own_error_says_where():
    with pytest.raises(ValueError, match=r'by_name\.a: Leaf\.size must not be negative, got -1'):
        build(dict(type=Branch, leaves=[], by_name=dict(a=dict(type=Leaf, size=-1))))


def test_what_is_no_dict_with_a_type_is_refused():
    with pytest.raises(ValueError, match="a dict with the key 'type', got 3"):
        build(3)


def test_names_are_unique_over_kinds(register):
    register(TRANSFORMS, Leaf)
    with pytest.raises(KeyError, match="'Leaf' is already a transform .* choose another for this loss"):
        register(LOSSES, type('Leaf', (), {}))


def test_check_config_builds_nothing(register):
    built = []

    class Costly:
        def __init__(self, part=None) -> None:
            built.append(self)

    found = list(check_config(dict(type=Costly, part=dict(type=Costly)), 'model'))
    assert [where for where, _, _ in found] == ['model', 'model.part']
    assert built == []
    with pytest.raises(ValueError, match=r"model\.part: Costly has no argument 'x'"):
        list(check_config(dict(type=Costly, part=dict(type=Costly, x=1)), 'model'))


@pytest.mark.parametrize(
    ('argument', 'value', 'got'),
    [
        ('objective', dict(type='KLDivergence', weight=1), r'Training\.objective must be .*got the regulariser KLDiv'),
        (
            'corruptions',
            [dict(type='LocalCorrelation')],
            r'corruptions\[0\] must be .*the regulariser LocalCorrelation',
        ),
        ('penalties', [dict(type='LatentNoise', sigma=1)], r'penalties\[0\] must be .*got the regulariser LatentNoise'),
        ('penalties', [dict(type='Plain')], r'penalties\[0\] must be .*got the regulariser Plain'),
        ('penalties', [dict(type='Rotate')], r'penalties\[0\] must be .*got the transform Rotate'),
    ],
)
def test_objectives_corruptions_and_penalties_stand_in_their_own_places(argument, value, got):
    model = dict(
        type='AutoencoderTraining',
        autoencoder=dict(type='TinyAutoencoder'),
        objective=dict(type='Plain'),
        reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
        corruptions=[dict(type='LatentNoise', sigma=1), dict(type='LatentMask')],
        penalties=[
            dict(type='KLDivergence'),
            dict(type='FeatureAlignment', encoder=dict(type='EfficientNetLite0Tokens')),
        ],
    )
    list(check_config(model, 'model'))
    with pytest.raises(ValueError, match=got):
        list(check_config({**model, argument: value}, 'model'))


def test_every_kind_has_a_name_of_its_own():
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    assert DATASETS.names() == [
        'BucketedImageFolder',
        'BucketedShapes',
        'Clothes',
        'ImageFolder',
        'LatentStore',
        'LightningDiTLatents',
        'NpyLatents',
        'NpzImages',
        'Shapes',
    ]


@pytest.mark.parametrize('annotation', [Path, Path | None])
def test_text_becomes_the_path_that_a_users_component_asks_for(register, annotation):
    class Shelf:
        def __init__(self, root):
            self.root = root

    Shelf.__init__.__annotations__['root'] = annotation
    register(DATASETS, Shelf)
    assert build(dict(type='Shelf', root='data/x')).root == Path('data/x')


def test_text_stays_text_where_that_is_accepted(register):
    class Shelf:
        def __init__(self, root: str | Path):
            self.root = root

    register(DATASETS, Shelf)
    assert build(dict(type='Shelf', root='data/x')).root == 'data/x'
