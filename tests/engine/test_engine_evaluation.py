"""Evaluation: labels reach the evaluators, and data sets without classes are refused before the first image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from eqzoo.config import load_config
from eqzoo.data import ImageFolder, Shapes, build_eval_loader, collate
from eqzoo.engine import shrink
from eqzoo.engine.evaluation import check_evaluators, evaluate
from eqzoo.engine.runner import EvaluationLoop, build_evaluators
from eqzoo.evaluators import NeighborConsistency, ReconstructionMetric, VelocityVariance
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


def test_a_batch_without_a_readable_image_is_passed_over(model, tmp_path, capsys):
    """The fifth of five images in batches of two, alone in its batch and damaged, leaves the values of four."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    for number in range(5):
        Image.fromarray(pixels[number]).save(tmp_path / f'{number}.png')
    runner = SimpleNamespace(model=model, call_hook=lambda name, **arguments: None)

    def measured():
        loader = build_eval_loader(ImageFolder(tmp_path, 32), batch_size=2, num_workers=0)
        result = evaluate([ReconstructionMetric()], loader, model.val_step)
        assert EvaluationLoop(runner, loader, [ReconstructionMetric()]).run()['psnr'] == result['metrics']['psnr']
        return result

    whole = tmp_path / '4.png'
    content = whole.read_bytes()
    whole.unlink()
    expected = measured()
    whole.write_bytes(content[:60])
    result = measured()
    assert result['metrics'] == expected['metrics']
    assert (result['card']['num_images'], result['card']['unreadable']) == (4, ['4.png'])
    assert '1 unreadable images are left out: 4.png (' in capsys.readouterr().err
    for number in range(5):
        (tmp_path / f'{number}.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'No image can be read: 0.png \(the file is empty\), .*; replace these files'):
        measured()


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
