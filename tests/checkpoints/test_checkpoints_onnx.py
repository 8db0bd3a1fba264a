"""ONNX graphs of encoder and decoder give what torch gives, for any batch and size."""

import importlib.util
import json

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder, VQAutoencoder
from eqzoo.checkpoints import onnx
from eqzoo.checkpoints.autoencoder import AutoencoderFile
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.write import export

SMALL = dict(block_out_channels=(4, 4), layers_per_block=1, norm_num_groups=2)


def autoencoder_file(cls, arguments):
    model = cls(**arguments).eval()
    return model, AutoencoderFile(model.state_dict(), config=plain_config(dict(type=cls.__name__, **arguments)))


@pytest.mark.parametrize(
    ('cls', 'arguments', 'note'),
    [
        (TinyAutoencoder, dict(num_blocks=(1, 1), width=8), None),
        # each graph takes seconds to trace; one is enough to see that the files work
        pytest.param(KLAutoencoder, dict(SMALL, padding_mode='reflect', scale=0.5), 'the mean', marks=pytest.mark.slow),
        pytest.param(
            VQAutoencoder, dict(SMALL, attention_levels=[1], num_codes=16), 'nearest codes', marks=pytest.mark.slow
        ),
        pytest.param(TinyAutoencoder, dict(num_blocks=(1, 1), width=8, pooled=True), None, marks=pytest.mark.slow),
    ],
)
def test_parity_with_torch(cls, arguments, note, tmp_path):
    pytest.importorskip('onnxscript')
    runtime = pytest.importorskip('onnxruntime')
    model, file = autoencoder_file(cls, arguments)
    notes = export(file, tmp_path / 'out', to='onnx')
    assert [note in each for each in notes] == [True] * (note is not None)
    encoder, decoder = (runtime.InferenceSession(tmp_path / 'out' / f'{name}.onnx') for name in ('encoder', 'decoder'))
    for batch, height, width in ((2, 6, 10), (1, 16, 8), (3, 4, 4)):  # none of them that of the tracing
        images = torch.rand(batch, 3, height, width) * 2 - 1
        with torch.no_grad():
            latents = model.encode(images).mean
            decoded = model.decode(latents)
        (theirs,) = encoder.run(['latents'], {'images': images.numpy()})
        torch.testing.assert_close(torch.from_numpy(theirs), latents, rtol=1e-5, atol=1e-5)
        (theirs,) = decoder.run(['images'], {'latents': latents.numpy()})
        torch.testing.assert_close(torch.from_numpy(theirs), decoded, rtol=1e-5, atol=1e-5)
    metadata = decoder.get_modelmeta().custom_metadata_map
    assert metadata['downsample_factor'] == '2'
    scale = json.loads(metadata['normalization'])['scale']
    assert scale == [arguments.get('scale', 1.0)] * model.latent_channels


def test_without_the_packages_it_is_one_message(tmp_path, monkeypatch):
    _, file = autoencoder_file(TinyAutoencoder, dict(num_blocks=(1, 1), width=8))
    find = importlib.util.find_spec
    monkeypatch.setattr(onnx, 'find_spec', lambda name: None if name == 'onnxscript' else find(name))
    with pytest.raises(ValueError, match=r"needs onnxscript, not installed; expected: pip install 'eqzoo\[onnx\]'"):
        export(file, tmp_path / 'out', to='onnx')
    assert list(tmp_path.iterdir()) == []
