"""eqzoo: equivariant autoencoders for latent generators (EQ-VAE, arXiv 2502.09509)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eqzoo.autoencoders import Autoencoder

__version__ = '0.1.0'

# In a source checkout that is not installed, registry/ sits beside eqzoo/, not in it.
_HERE = Path(__file__).resolve().parent
if not (_HERE / 'registry').exists() and (_HERE.parent / 'registry' / '__init__.py').is_file():
    __path__.append(str(_HERE.parent))


def load(source: 'str | Path') -> 'Autoencoder':
    """Return a ready autoencoder, in eval mode: by its name in the zoo, or from a file; see `eqzoo.loading.load`."""
    from eqzoo.loading import load as load_from_zoo

    return load_from_zoo(source)
