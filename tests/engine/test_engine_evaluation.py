"""Evaluation: labels reach the evaluators, and data sets without classes are refused before the first image."""

from types import SimpleNamespace

import pytest
import torch

from eqzoo.config import load_config
from eqzoo.data import Shapes, build_eval_loader, collate
from eqzoo.engine import shrink
from eqzoo.engine.evaluation import check_evaluators
from eqzoo.engine.runner import EvaluationLoop, build_evaluators
from eqzoo.evaluators import NeighborConsistency, VelocityVariance
from eqzoo.registry import build

MODEL = dict(
    type='AutoencoderTraining',
    autoencoder=dict(type='KLAutoencoder', block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
    objective=dict(type='Plain'),
    reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(MODEL).eval()


class Unlabelled:
    """A data set that knows nothing of classes."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count


def test_views_of_a_validation_have_the_batchs_labels(model):
    data = Shapes(6, 32, num_classes=4)
    batch = collate([data[index] for index in (5, 0, 2)])
    view = model.val_step(batch)
    assert view.labels.tolist() == [1, 0, 2]
    assert view.numbers.tolist() == [5, 0, 2]
    del batch['labels']
    assert model.val_step(batch).labels is None


def test_a_validation_measures_by_class(model):
    loader = build_eval_loader(Shapes(12, 32, num_classes=3), batch_size=5, num_workers=0)
    runner = SimpleNamespace(model=model, call_hook=lambda name, **arguments: None)
    evaluators = [VelocityVariance(), NeighborConsistency((2,))]
    metrics = EvaluationLoop(runner, loader, evaluators).run()
    assert evaluators[0].card()['images_per_class'] == '4 to 4'
    assert 0 < metrics['viv'] < 1.6
    assert 0 <= metrics['lnc@2'] <= 1
    with pytest.raises(ValueError, match='the data set has one class'):
        EvaluationLoop(
            runner, build_eval_loader(Shapes(12, 32, num_classes=1), batch_size=4, num_workers=0), evaluators
        )


def test_sets_without_classes_serve_where_none_are_needed():
    check_evaluators([VelocityVariance()], Unlabelled(4))
    with pytest.raises(ValueError, match='the data set has no classes'):
        check_evaluators([NeighborConsistency()], Unlabelled(20))
    with pytest.raises(ValueError, match='lnc@10: 4 images'):  # the size first
        check_evaluators([NeighborConsistency()], Unlabelled(4))


def test_predictors_shrink_to_the_images_of_a_smoke_run():
    names = ('LatentSpectrum', 'EffectiveRank', 'SpatialStructure', 'VelocityVariance', 'NeighborConsistency')
    interpolation = dict(
        type='InterpolationFrechet',
        extractor=dict(type='EfficientNetLite0', size=32),
        reference=dict(type='ImageFolder', root='no/images', size=256),
    )
    evaluators = [*(dict(type=name) for name in names), interpolation]
    small = shrink(load_config('configs/demo/plain.py', [f'evaluators={evaluators!r}']))
    built = build_evaluators(small.evaluators)
    check_evaluators(built, build(small.test_dataloader.dataset))
    assert [type(each).__name__ for each in built] == [*names, 'InterpolationFrechet']
    assert built[-1].reference.identity()['kind'] == 'Shapes'


def test_data_sets_that_are_open_are_not_built_again():
    opened = Shapes(30, 32)
    evaluator = dict(
        type='InterpolationFrechet', extractor=dict(type='EfficientNetLite0', size=32), reference=dict(type='Shapes')
    )
    place = 'test_evaluators[1].reference'
    first, second = build_evaluators([evaluator, evaluator], {place: opened}, 'test_evaluators')
    assert second.reference is opened
    assert len(first.reference) == 10_000
