"""What readers of other projects' latents share."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from eqzoo.data.latent_dataset import LatentDataset
from eqzoo.registry import Requirement


class ForeignLatents(LatentDataset):
    """Latents that another project drew once from their posteriors: there is no std, no checksum, no autoencoder."""

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return what keeps the latents from being read."""
        root = arguments.get('root')
        remedy = f'Set root=FOLDER of this {cls.__name__}.'
        if not root:
            return [Requirement(f'{cls.__name__}: no root is given.', 'the config', remedy)]
        try:
            cls(**arguments)
        except (OSError, ValueError) as error:
            return [Requirement(f'{cls.__name__}: {error}', str(root), remedy)]
        return []

    def _check_label(self, label: int, place: str) -> int:
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f'{place}: label {label}; accepted are 0 to {self.num_classes - 1}; set num_classes of this '
                f'{type(self).__name__} to more, or restore the file.'
            )
        return label


def class_names(where: str, num_classes: int) -> list[str]:
    """Return the labels' names, which are their numbers.

    Raises:
        ValueError: If there is not one.
    """
    if num_classes < 1:
        raise ValueError(f'{where}.num_classes must be at least 1, got {num_classes}.')
    return [str(label) for label in range(num_classes)]


def listing_digest(lines: Iterable[str]) -> str:
    """Return a sha256 over lines of text."""
    listing = hashlib.sha256()
    for line in lines:
        listing.update(f'{line}\n'.encode(errors='surrogateescape'))
    return listing.hexdigest()
