"""`tools/score.py`: compare a set of samples with a reference."""

from pathlib import Path
from typing import Annotated, Any, Literal

from eqzoo.files import did_you_mean
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt, Range

_METRICS = ('fd', 'sfd', 'is', 'pr', 'kid', 'swd')


def score(
    samples: str,
    reference: str,
    *,
    extractor: str = 'FIDInception',
    weights: str | None = None,
    dtype: Literal['float32', 'bfloat16'] = 'float32',
    metrics: str | None = None,
    min_images: Annotated[int, Range(at_least=2)] | None = None,
    crop: str | None = None,
    batch_size: PositiveInt = 64,
    num_workers: NonNegativeInt = 0,
    out: str | None = None,
) -> dict[str, Any]:
    """Compare a set of samples with a reference set; write metrics.json and report.html.

    Args:
        samples: A folder, zip, tars or table (docs/data.md) of images of one size, or an npz file of samples in ADM's
            layout.
        reference: An npz file of statistics (ADM's, or from tools/reference.py), or images: in
            the same forms as samples; their statistics are then measured and kept in OUT.
        extractor: FIDInception for FID and published numbers; EfficientNetLite0 needs no download.
        weights: A file of the extractor's weights. Default: the published one; other weights change the metrics' names.
        dtype: Data type of the extractor: bfloat16 is faster on GPUs, and its metrics have other names, such as
            fid_bf16.
        metrics: fd, sfd, is, pr, kid, swd, separated by commas. Default: all that extractor and reference allow.
        min_images: With fewer samples the command stops. Default: one more than there are features.
        crop: How images of a reference are cropped to squares. Default: center; a file of statistics states its own.
        batch_size: Images per batch, over all processes.
        num_workers: Processes that read images.
        out: The folder for results. Default: work_dirs/score/SAMPLES.
    """
    from eqzoo.data import build_eval_loader
    from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size
    from eqzoo.engine.evaluation import evaluate, sample_view
    from eqzoo.engine.references import build_extractor, open_samples
    from eqzoo.engine.work_dir import REPORT_LOCK, own_folder
    from eqzoo.evaluators.reference import Reference, read_reference
    from eqzoo.report.page import save_result

    name = _name_of(samples)
    folder = Path(out or Path('work_dirs/score') / name)
    if out is None:
        _check_unused(folder, samples)
    # all that can be wrong is found before anything is measured
    chosen = _chosen(metrics)
    data = open_samples(samples)
    source = _open_reference(reference, data.size, crop)
    network = build_extractor(extractor, weights=weights, dtype=dtype)
    chosen = _possible(chosen, network, len(data), source, min_images)
    init_distributed()
    with own_folder(folder, '--out', REPORT_LOCK):
        statistics = source
        if not isinstance(source, Reference):
            statistics = read_reference(_measured(source, network, folder, chosen, (batch_size, num_workers)))
        evaluators = _evaluators(network, statistics, chosen, min_images)
        rank, world_size = rank_and_world_size()
        loader = build_eval_loader(
            data, batch_size=batch_size, num_workers=num_workers, rank=rank, world_size=world_size
        )
        result = evaluate(evaluators, loader, sample_view)
        result['card'] = {'samples': samples, **result['card']}
        if rank == 0:
            save_result(result, {'Samples': _grid(data)}, folder, name)
    close_distributed()
    return result


def _chosen(metrics: str | None) -> list[str] | None:
    """Return the names in `--metrics`; None for all."""
    if metrics is None:
        return None
    names = [name.strip() for name in metrics.split(',')]
    for name in names:
        if name not in _METRICS:
            raise ValueError(
                f'--metrics: there is no {name!r}.{did_you_mean(name, _METRICS)} Expected any of '
                f'{", ".join(_METRICS)}, separated by commas.'
            )
    return names


def _open_reference(path: str, size: int, crop: str | None) -> Any:
    """Return the `Reference` of statistics at `path`, or the data set of its images."""
    from eqzoo.engine.references import open_images
    from eqzoo.evaluators.reference import read_reference
    from eqzoo.npz import NpzArchive

    if Path(path).suffix == '.npz' and 'mu' in NpzArchive(path):
        statistics = read_reference(path)
        statistics.check_images(size, crop)  # of the option --crop, which it would otherwise ignore
        return statistics
    return open_images(path, size, crop or 'center')


def _possible(
    chosen: list[str] | None, extractor: Any, num_samples: int, source: Any, min_images: int | None
) -> list[str] | None:
    """Return the metrics to measure: `chosen`, or without it None for all, or a list if KID has too few images.

    Raises:
        ValueError: If a chosen metric is not possible, or there are too few images.
    """
    from eqzoo.evaluators.gaussian import choose_min_images
    from eqzoo.evaluators.generation import KID_SUBSET_SIZE, impossible_metrics
    from eqzoo.evaluators.reference import Reference

    statistics = source if isinstance(source, Reference) else None
    counts = [('samples', num_samples)]
    if statistics is None:
        counts.append(('images in the reference', len(source)))
    if chosen is None or 'fd' in chosen:
        needed = choose_min_images(min_images, extractor.num_features)
        for name, count in counts:
            if count < needed:
                raise ValueError(
                    f'{extractor.frechet_key}: {count} {name}, but it needs {needed} or more for a covariance of full '
                    'rank; use more, or --min-images 2 for a number that is comparable at this number only.'
                )
    impossible = impossible_metrics(extractor, statistics)
    if statistics is not None and not statistics.has_images:
        impossible['swd'] = f'{statistics.path} has no images (arr_0)'
    for name in chosen or ():
        if name in impossible:
            raise ValueError(f'--metrics: {name}: {impossible[name]}; leave it out.')
    few = [f'{count} {name}' for name, count in counts if count < KID_SUBSET_SIZE]
    if few and chosen is not None and 'kid' in chosen:
        raise ValueError(
            f'--metrics: kid: it needs {KID_SUBSET_SIZE:,} images or more, and there are {" and ".join(few)}; leave it '
            'out.'
        )
    if not few or chosen is not None:
        return chosen
    if 'kid' not in impossible:
        print(f'kid is left out: it needs {KID_SUBSET_SIZE:,} images or more, and there are {" and ".join(few)}.')
    return [name for name in _METRICS if name != 'kid' and name not in impossible]


def _measured(data: Any, extractor: Any, folder: Path, chosen: list[str] | None, loading: tuple[int, int]) -> str:
    """Measure the reference's images, and return the file of their statistics."""
    from eqzoo.engine.references import make_reference

    made = folder / f'reference_{extractor.key}.npz'
    print(f'Measuring the reference, {len(data):,} images …')
    # images are kept for metrics that need them alone: keeping them takes a second reading of all
    needs_images = chosen is None or {'pr', 'kid', 'swd'} & set(chosen)
    make_reference(data, extractor, made, loading=loading, **({} if needs_images else {'num_stored': 0}))
    return str(made)


def _evaluators(extractor: Any, reference: Any, chosen: list[str] | None, min_images: int | None) -> list[Any]:
    from eqzoo.evaluators import GenerationMetric, GenerationSlicedWasserstein

    features = chosen if chosen is None else [name for name in chosen if name != 'swd']
    evaluators: list[Any] = []
    if features is None or features:
        evaluators.append(GenerationMetric(extractor, reference, features, min_images=min_images))
    if chosen is None or 'swd' in chosen:
        sliced = GenerationSlicedWasserstein(reference)
        if chosen is not None or sliced.reference.has_images:
            evaluators.append(sliced)
    return evaluators


def _grid(data: Any, columns: int = 8, rows: int = 4) -> Any:
    from eqzoo.engine.picture_hooks import example_images
    from eqzoo.pictures import PictureRow, draw_grid

    images = example_images(data, columns * rows)
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    full = [row for row in rows if len(row) == len(rows[0])]
    return draw_grid([PictureRow('', row) for row in full])


def _name_of(samples: str) -> str:
    """Return the name of a set of samples, without the ending of a file: cfg1.5 is a folder of its own."""
    place = Path(samples).resolve()
    return place.stem if place.suffix.lower() in ('.npz', '.zip', '.tar', '.parquet') else place.name


def _check_unused(folder: Path, samples: str) -> None:
    """Refuse a default folder that has the results of other samples with the same name."""
    from eqzoo.report import read_result

    file = folder / 'metrics.json'
    if file.is_file():
        theirs = read_result(file).card.get('samples')
        if theirs is not None and Path(theirs).resolve() != Path(samples).resolve():
            raise ValueError(
                f'{folder} has the results of {theirs}; give another folder for those of {samples}: --out.'
            )
