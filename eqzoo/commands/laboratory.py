"""`tools/laboratory.py`: a page about the latent spaces of autoencoders."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqzoo.files import write_json
from eqzoo.registry.ranges import PositiveInt


def laboratory(
    models_and_images: list[str],
    *,
    out: str,
    names: str | None = None,
    config: str | None = None,
    size: PositiveInt = 256,
    limit: PositiveInt = 8,
    shown: PositiveInt = 4,
    angles: str = '5,15,30,45,90,180',
    scales: str = '0.25,0.5,0.75',
    device: str = 'auto',
) -> dict[str, Any]:
    """Show the latent spaces of autoencoders side by side; write index.html and laboratory.json to a folder.

    Args:
        models_and_images: MODEL [MODEL ...] IMAGES. A model is a name of the zoo, a checkpoint, a weights file or a
            diffusers folder, as a path or a URL, or a pair ENCODER,DECODER; images are one or more image files, or a
            folder, a zip, tars or a table (docs/data.md).
        out: The folder to write to.
        names: Names of the models, separated by commas; by default the parts of their paths that differ.
        config: A config whose `custom_imports` have the classes of models of your own; the rest is ignored.
        size: The largest side in pixels; images are cropped to squares.
        limit: Measure at most this many images of a folder, zip, tars or table.
        shown: Show at most this many images.
        angles: Angles in degrees, separated by commas.
        scales: Scales between 0 and 1, separated by commas; rounded to whole cells of the latents.
        device: 'auto' (a GPU if there is one), 'cpu' or 'cuda'.
    """
    wanted = _numbers('angles', angles), _numbers('scales', scales)

    from eqzoo.config import read_with_imports
    from eqzoo.distributed import get_device, use_device
    from eqzoo.engine.work_dir import REPORT_LOCK, own_folder
    from eqzoo.laboratory import (
        Findings,
        choose_cases,
        crop_all,
        examine,
        open_models,
        read_photographs,
        write_laboratory,
    )
    from eqzoo.report.table import format_table
    from eqzoo.text import printable

    use_device(device)
    if config is not None:
        read_with_imports(config)
    sources, places = _split(models_and_images)
    photographs = read_photographs(places, limit)
    models = open_models(sources, names.split(',') if names else None)
    images = crop_all(photographs, size, [model.autoencoder.downsample_factor for model in models])
    cases = choose_cases(*wanted, [model.autoencoder.grid(*images.pixels.shape[2:]) for model in models])
    folder = Path(out)
    with own_folder(folder, '--out', REPORT_LOCK):  # an unwritable folder is an error now, not at the end
        found = {}
        for model in models:
            started = time.monotonic()
            found[model.name] = examine(model.autoencoder, images.pixels, cases, shown=shown, device=get_device())
            print(
                f'{printable(model.name)}: {len(images.names)} images in {time.monotonic() - started:.0f} s', flush=True
            )
        findings = Findings(models, images, cases, found)
        summary = findings.summary()
        write_json(folder / 'laboratory.json', summary)
        write_laboratory(folder / 'index.html', findings)
        print('\n'.join(['', format_table({name: each.metrics for name, each in found.items()}), '']))
        print('\n'.join(map(printable, findings.remarks)))
        print(f'Written: {folder}/index.html and {folder}/laboratory.json')
    return summary


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the models and the images: all words that are image files, or the last word, a folder or a zip."""
    from eqzoo.data.sources import EXTENSIONS
    from eqzoo.zoo import models as known_models

    places = [word for word in words if Path(word).suffix.lower() in EXTENSIONS]
    models = [word for word in words if word not in places]
    if not places:
        *models, place = words
        places = [place]
    if any(place in known_models() and not Path(place).exists() for place in places):
        raise ValueError(f'laboratory: got {" ".join(words)}; images come last: MODEL [MODEL ...] IMAGES.')
    for model in models:
        if _has_only_images(Path(model)):
            raise ValueError(
                f'laboratory: {model} is a folder of images; only the last word can be one: MODEL [MODEL ...] IMAGES.'
            )
    if not models:
        raise ValueError(
            f'laboratory: got only {" ".join(words)}; give one or more models, then images: a folder, a zip or files '
            f'({", ".join(EXTENSIONS)}).'
        )
    return models, places


def _has_only_images(place: Path) -> bool:
    from eqzoo.data.sources import EXTENSIONS

    files = [each.suffix.lower() for each in place.iterdir() if each.is_file()] if place.is_dir() else []
    return bool(files) and all(each in EXTENSIONS for each in files)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(',')]
    except ValueError:
        raise ValueError(f'--{option}: got {text!r}; expected numbers separated by commas.') from None
