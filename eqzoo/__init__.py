"""eqzoo: equivariant autoencoders for latent generators (EQ-VAE, arXiv 2502.09509)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqzoo.autoencoders import Autoencoder
    from eqzoo.generators.base import Generator

__version__ = '0.2.0'

# In a source checkout that is not installed, registry/ is beside eqzoo/, not inside.
_HERE = Path(__file__).resolve().parent
if not (_HERE / 'registry').exists() and (_HERE.parent / 'registry' / '__init__.py').is_file():
    __path__.append(str(_HERE.parent))


def load(
    source: str | Path | Sequence[str | Path], *, config: str | Path | Mapping[str, Any] | None = None
) -> 'Autoencoder | Generator':
    """Return an autoencoder or a generator, in eval mode, from the zoo, a file, a folder or a URL.

    Args:
        source: A name of the zoo, a checkpoint or weights file, a diffusers folder, a work directory,
            a URL, `hf://org/repository/file`, or the pair 'ENCODER,DECODER'.
        config: The config to build from, if neither the zoo nor the file has one.

    Raises:
        ValueError: If there is no such name, or the file cannot be read safely or does not fit.
        OSError: If a file is not there, or cannot be downloaded.
    """
    from eqzoo.loading import load_component  # here, since `import eqzoo` is for everyone, and this imports torch

    return load_component(source, config=config)
