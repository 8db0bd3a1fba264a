"""`tools/reference.py`: measure a reference set, in the layout of ADM's evaluator."""

import inspect
from pathlib import Path
from typing import Any, Literal

from eqzoo.config import load_config
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt


def reference(
    images: str,
    out: str,
    *,
    overrides: list[str],
    extractor: str = 'FIDInception',
    weights: str | None = None,
    dtype: Literal['float32', 'bfloat16'] = 'float32',
    size: PositiveInt = 256,
    crop: str = 'center',
    limit: PositiveInt | None = None,
    num_stored: NonNegativeInt = 10_000,
    labels: str = 'balanced',
    batch_size: PositiveInt = 64,
    num_workers: NonNegativeInt = 0,
    reconstructions: bool = False,
    overwrite: bool = False,
) -> None:
    """Measure a reference set, and write its statistics and some of its images to an npz file.

    Args:
        images: A folder, a zip, tars, a table (docs/data.md) or an npz file of images; or a generator's config, whose
            test_evaluators name the data set and the extractor.
        out: The npz file to write.
        overrides: Keys of the config to set, as key=value.
        extractor: FIDInception for FID; EfficientNetLite0 needs no download. A config names its own.
        weights: A file of the extractor's weights. Default: the published one.
        dtype: Data type of the extractor: float32, or bfloat16 for scores with --dtype bfloat16.
        size: Pixels a side; must be the size of the samples that will be compared.
        crop: How images are cropped to squares: center is ADM's.
        limit: Use at most this many images.
        num_stored: Images to keep in the file, for precision, recall, KID and swd; 10,000 in ADM's files.
        labels: How to choose these images: balanced (an equal number per class, where available) or random.
        batch_size: Images per batch, over all processes.
        num_workers: Processes that read images.
        reconstructions: Measure the reconstructions of a config's reference by its autoencoder, for
            GenerationMetric(against='reconstructions'); no images are kept.
        overwrite: Replace OUT if it exists.
    """
    if Path(out).suffix != '.npz' or Path(out).is_dir():
        raise ValueError(f'OUT: got {out!r}; expected an npz file to write, such as reference.npz.')
    if labels not in ('balanced', 'random'):
        raise ValueError(f'--labels must be balanced or random, got {labels!r}.')
    if Path(out).exists() and not overwrite:
        raise ValueError(f'{out} exists already; --overwrite replaces it.')
    if images.endswith('.py'):
        _check_left_out(extractor=extractor, weights=weights, dtype=dtype, size=size, crop=crop, limit=limit)
    config = load_config(images, overrides) if images.endswith('.py') else None
    if reconstructions and config is None:
        raise ValueError(f'--reconstructions needs the config of a generator, which has an autoencoder, got {images}.')

    from eqzoo.distributed import close_distributed, get_device, init_distributed, rank_and_world_size, use_device
    from eqzoo.engine.references import build_extractor, make_reference, open_images, reference_of_config
    from eqzoo.engine.work_dir import own_file
    from eqzoo.precision import use_backends
    from eqzoo.registry import build

    if config is not None:
        use_device(config.device)
        use_backends(config.get('gpu'))
        data, network = reference_of_config(config, 'reconstructions' if reconstructions else 'images')
    elif overrides:
        raise ValueError(f'{overrides[0]}: keys can be set in a config only; {images} is no config; leave them out.')
    else:
        data, network = open_images(images, size, crop, limit), build_extractor(extractor, weights=weights, dtype=dtype)
    init_distributed()
    with own_file(out, 'OUT'):
        made = make_reference(
            data,
            network,
            Path(out),
            num_stored=num_stored,
            labels=labels,
            loading=(batch_size, num_workers),
            autoencoder=build(config.model.autoencoder).to(get_device()).eval() if reconstructions else None,
        )
    if rank_and_world_size()[0] == 0:
        print(data.describe())
        subject = 'reconstructions' if reconstructions else 'images'
        print(f'Written: {out}, statistics of {len(data)} {subject} on {network.key}; {made} images are kept in it.')
    close_distributed()


def _check_left_out(**options: Any) -> None:
    """Refuse options of images beside a config, which names its own images and extractor."""
    defaults = inspect.signature(reference).parameters
    for name, value in options.items():
        if value != defaults[name].default:
            raise ValueError(
                f'--{name}: the config names its images and extractor in test_evaluators; leave the option out, and '
                'set keys of the config as key=value.'
            )
