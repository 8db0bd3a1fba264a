"""Encoder and decoder as two ONNX files, of any batch and size."""

import json
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from eqzoo.checkpoints.autoencoder import AutoencoderFile, fill_autoencoder, to_plain
from eqzoo.registry import build

ENCODER, DECODER = 'encoder.onnx', 'decoder.onnx'
ONNX_FILES = (ENCODER, DECODER)
"""The files that `write_onnx` writes."""

_EXAMPLE_CELLS = (3, 5)  # of the latents that the graphs are traced with; any others give the same graphs


def write_onnx(file: AutoencoderFile, folder: Path) -> list[str]:
    """Write `encoder.onnx` and `decoder.onnx`, in float32, and return notes about anything that they cannot express.

    `encoder.onnx` maps `images` (B, 3, H, W), in [-1, 1], to `latents` (B, C, h, w): the mean of the posterior, in raw
    units. `decoder.onnx` maps such `latents` to `images`, about [-1, 1]. B, h and w are free; H and W are multiples of
    the downsampling factor. Shift and scale of the normalisation are in the metadata of both, as JSON.

    Raises:
        ValueError: If onnx or onnxscript is not installed.
    """
    missing = [name for name in ('onnx', 'onnxscript') if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"convert --to onnx: needs {' and '.join(missing)}, not installed; expected: pip install 'eqzoo[onnx]'."
        )
    autoencoder = build(file.config).eval()
    fill_autoencoder(autoencoder, file, str(folder))
    height, width = _EXAMPLE_CELLS
    factor, channels = autoencoder.downsample_factor, autoencoder.latent_channels
    # in the metadata of each file, numbers as text: ONNX has no others
    notes = {
        'downsample_factor': str(factor),
        'normalization': json.dumps({key: each['values'] for key, each in to_plain(file.normalization).items()}),
    }
    rows, columns = torch.export.Dim('height'), torch.export.Dim('width')
    latents = torch.zeros(2, channels, height, width)
    images = torch.zeros(2, 3, factor * height, factor * width)
    _write(_Encode(autoencoder), images, (factor * rows, factor * columns), ('images', 'latents'), notes, folder)
    _write(_Decode(autoencoder), latents, (rows, columns), ('latents', 'images'), notes, folder)
    dtypes = {value.dtype for value in file.network.values() if value.is_floating_point()}
    unsaid = [] if dtypes == {torch.float32} else ['the weights are stored and computed in float32']
    if autoencoder.has_codebook:
        unsaid.append('decoder.onnx replaces latents by the nearest codes; neither file gives the indices of codes')
    elif autoencoder.has_posterior:
        unsaid.append('encoder.onnx gives the mean of the posterior, not its spread')
    return unsaid


class _Encode(nn.Module):
    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        """Return the means of the posteriors, (B, C, h, w)."""
        return self.autoencoder.encode(images).mean


class _Decode(nn.Module):
    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: Tensor) -> Tensor:
        """Return the images of raw latents, (B, 3, H, W)."""
        return self.autoencoder.decode(latents)


def _write(
    module: nn.Module,
    example: Tensor,
    sides: tuple[object, object],
    names: tuple[str, str],
    notes: dict[str, str],
    folder: Path,
) -> None:
    import torch.onnx

    free = {0: torch.export.Dim('batch'), 2: sides[0], 3: sides[1]}
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(free,),
            input_names=names[:1],
            output_names=names[1:],
            verbose=False,
        )
    program.model.metadata_props.update(notes)
    program.save(folder / (ENCODER if names[0] == 'images' else DECODER))
