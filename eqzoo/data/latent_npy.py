"""Latents in fast-DiT's and EQ-VAE's layout, one `.npy` an image, as a dataset."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqzoo.data.latent_foreign import ForeignLatents, class_names, listing_digest
from eqzoo.registry import DATASETS

_FEATURES, _LABELS = '_features', '_labels'


@DATASETS.register_module()
class NpyLatents(ForeignLatents):
    """Folders as fast-DiT's and EQ-VAE's `extract_features.py` write them.

    `imagenet256_features/{step}.npy` (1, C, h, w), or `{rank}-{step}.npy`, drawn once from
    their posteriors and scaled already, one frozen flip in them; and
    `imagenet256_labels/` with files (1,) of the same names. Images are in the order of the
    numbers in the names. Many small files are slow; `tools/cache_latents.py` writes a store.

    Args:
        root: The folder with the two, whose names may begin otherwise.
        num_classes: K; labels are 0 to K - 1.
        scale: The factor that is in the latents, which `autoencoder['normalization']` then
            states; both projects' default is SD-VAE's.

    Raises:
        FileNotFoundError: If there are no such folders, or files missing in one of them.
        ValueError: If there are several, or an argument is out of range.
    """

    def __init__(self, root: str, num_classes: int = 1000, *, scale: float = 0.18215) -> None:
        if not scale > 0:
            raise ValueError(f'NpyLatents.scale must be positive, got {scale}.')
        self.root = Path(root).expanduser()
        self._latents, self._labels_folder = _folders(self.root)
        self._names = _names(self._latents, self._labels_folder)
        shape = self._load(self._latents / self._names[0]).shape
        if len(shape) != 3:
            raise ValueError(
                f'{self._latents / self._names[0]}: latents (1, {", ".join(map(str, shape))}); accepted is '
                '(1, C, h, w); give the folder that extract_features.py wrote.'
            )
        super().__init__(
            [0.0] * shape[0],
            [scale] * shape[0],  # which the files have in them: `_read` leaves them as they are
            autoencoder={},
            latent_shape=shape,
            classes=class_names('NpyLatents', num_classes),
            flip=False,
            seed=0,
        )
        self.scale = scale

    def __len__(self) -> int:
        return len(self._names)

    def labels(self) -> list[int]:
        """Return each image's label; a small file is read for each."""
        return [self._label(name) for name in self._names]

    def identity(self) -> dict[str, Any]:
        """Return what tells these latents from others, for metric cards: the names and the scale."""
        return dict(
            kind='NpyLatents',
            root=self.root.name,
            num_images=len(self),
            normalization=self.autoencoder['normalization'],
            sha256=listing_digest(self._names),
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        shape = 'x'.join(map(str, self.latent_shape))
        return (
            f'NpyLatents: {len(self)} latents {shape} of {self.num_classes} classes from {self.root.name}, drawn once, '
            f'scaled by {self.scale:g}'
        )

    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        latents = np.empty((len(indices), *self.latent_shape), np.float32)
        for place, index in enumerate(indices):
            path = self._latents / self._names[index]
            latent = self._load(path)
            if latent.shape != self.latent_shape:
                raise ValueError(
                    f'{path}: {(1, *latent.shape)}; the first is {(1, *self.latent_shape)}; keep one kind.'
                )
            latents[place] = latent
        labels = [self._label(self._names[index]) for index in indices]
        return dict(mean=torch.from_numpy(latents), labels=torch.tensor(labels))

    def _label(self, name: str) -> int:
        return self._check_label(int(self._load(self._labels_folder / name)), str(self._labels_folder / name))

    @staticmethod
    def _load(path: Path) -> np.ndarray:
        """Return the one row of a file."""
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f'{path}: damaged or no .npy file ({error}); restore it.') from None
        if values.ndim < 1 or len(values) != 1:
            raise ValueError(f'{path}: shape {values.shape}; accepted is one image a file, (1, …).')
        return values[0]


def _folders(root: Path) -> tuple[Path, Path]:
    pairs = [
        (folder, folder.with_name(f'{folder.name.removesuffix(_FEATURES)}{_LABELS}'))
        for folder in sorted(root.glob(f'*{_FEATURES}'))
    ]
    pairs = [pair for pair in pairs if all(folder.is_dir() for folder in pair)]
    if not pairs:
        raise FileNotFoundError(
            f'{root}: no latents in .npy files: there is no pair of folders such as imagenet256_features and '
            'imagenet256_labels here.'
        )
    if len(pairs) > 1:
        found = ', '.join(latents.name for latents, _ in pairs)
        raise ValueError(f'{root}: several sets of latents: {found}; move each pair to a folder of its own.')
    return pairs[0]


def _names(latents: Path, labels: Path) -> list[str]:
    names, labelled = ({path.name for path in folder.glob('*.npy')} for folder in (latents, labels))
    if not names:
        raise FileNotFoundError(f'{latents}: no .npy files here.')
    lacking = sorted(names ^ labelled)
    if lacking:
        raise FileNotFoundError(
            f'{latents}: {len(lacking)} files have no partner of the same name in {labels.name}, or are missing here: '
            f'{lacking[0]}; restore them.'
        )
    return sorted(names, key=lambda name: ([int(number) for number in re.findall(r'\d+', name)], name))
