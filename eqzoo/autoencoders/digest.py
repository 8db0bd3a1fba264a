"""The hash that tells autoencoders apart by what they make of an image."""

import hashlib

import torch
from torch import Tensor, nn

_NORMALIZATION = 'normalization.'


def autoencoder_digest(autoencoder: nn.Module) -> str:
    """Return a sha256 over names, dtypes, shapes and bytes of the weights, and over padding and groups of norms.

    The normalisation is left out: raw latents do not depend on it. Padding and groups change
    outputs, but no weight's name or shape.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> before = autoencoder_digest(layer)
        >>> layer.bias.data[0] += 1
        >>> autoencoder_digest(layer) == before
        False
    """
    hashed = hashlib.sha256()
    norms = (module.num_groups for module in autoencoder.modules() if isinstance(module, nn.GroupNorm))
    settings = dict(padding_mode=getattr(autoencoder, 'padding_mode', None), norm_num_groups=next(norms, None))
    hashed.update(f'{settings}\n'.encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        if not name.startswith(_NORMALIZATION):
            hashed.update(f'{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\n'.encode())
            hashed.update(_bytes_of(tensor))
    return hashed.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
