"""`eqzoo.load`: an autoencoder by its name in the zoo, or from a file, folder or URL."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqzoo.config import configs_folder
from eqzoo.zoo.download import fetch, is_remote
from eqzoo.zoo.index import find, models

if TYPE_CHECKING:
    from eqzoo.autoencoders import Autoencoder


def load(source: str | Path) -> 'Autoencoder':
    """Return a ready autoencoder, in eval mode, on the CPU; its weights are downloaded if they are not here.

    Args:
        source: A name of the zoo (`python tools/download.py --list`); or a checkpoint, a
            weights file or a diffusers folder, as a path or a URL.

    Raises:
        ValueError: If it is neither, or the file does not fit.
        OSError: If it cannot be downloaded or is not there.
    """
    from eqzoo.checkpoints import load_autoencoder

    if str(source) in models() or not (is_remote(source) or Path(source).exists() or _looks_like_a_path(source)):
        return _load_released(str(source))
    return load_autoencoder(fetch(source))


def autoencoder_config(path: str | Path) -> dict[str, Any]:
    """Return the config of the autoencoder in a config file, a base's or a run's.

    Raises:
        ValueError: If it has none.
    """
    from eqzoo.config import find_config, read_config

    config = read_config(find_config(path), import_custom=True)
    found = config.get('autoencoder') or config.get('model', {}).get('autoencoder')
    if found is None:
        raise ValueError(f'{path} has no autoencoder; accepted is a config with `autoencoder` or `model.autoencoder`.')
    return found.to_dict()


def released_config(name: str) -> dict[str, Any]:
    """Return the config of the zoo's autoencoder `name`.

    Raises:
        ValueError: If there is none of that name, or it is no autoencoder.
    """
    path = configs_folder().parent / find(name).config
    if _is_of_a_generator(path):
        raise ValueError(f'{name} is a generator; draw samples of it: python tools/sample.py {find(name).config}.')
    return autoencoder_config(path)


def _load_released(name: str) -> 'Autoencoder':
    from eqzoo.registry import build

    model = find(name)
    config = released_config(name)  # told before a long download, not after
    paths = [fetch(f'eqzoo://{name}/{file.name}') for file in model.files]
    return build({**config, 'weights': paths[0] if len(paths) == 1 else paths}).eval()


def _is_of_a_generator(path: Path) -> bool:
    from eqzoo.config import Config

    return 'generator' in Config.fromfile(path).get('model', {})


def _looks_like_a_path(source: str | Path) -> bool:
    return isinstance(source, Path) or '/' in source or '.' in source
