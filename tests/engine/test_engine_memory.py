"""The memory that a step needs: against what a real pass keeps, and the refusal of a batch that does not fit."""

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder, VQAutoencoder
from eqzoo.config import load_config
from eqzoo.data import Shapes, build_eval_loader
from eqzoo.engine import training
from eqzoo.engine.autoencoder_training import _ThereAndBack
from eqzoo.engine.runner import rehearse
from eqzoo.engine.training import bytes_kept
from eqzoo.generators.mask_transformer import MaskTransformer
from eqzoo.generators.transformer import DiffusionTransformer

AUTOENCODERS = {
    'KL': lambda: KLAutoencoder(4, (16, 32), norm_num_groups=8, layers_per_block=1),
    'VQ': lambda: VQAutoencoder(8, 16, (16, 32), norm_num_groups=8, attention_levels=()),
    'tiny': lambda: TinyAutoencoder(4, (1, 1)),
}
NETWORKS = {
    'DiT': lambda: DiffusionTransformer((2, 32, 2), latent_size=8),
    'DiT, checkpointing': lambda: DiffusionTransformer((2, 32, 2), latent_size=8, checkpointing=True),
    'MaskGIT': lambda: MaskTransformer((2, 32, 2), num_codes=16, grid=8),
}


def really_kept(network, *inputs):
    weights = {each.untyped_storage().data_ptr() for each in (*network.parameters(), *network.buffers())}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(*inputs)
    total = sum(each.untyped_storage().nbytes() for place, each in kept.items() if place not in weights)
    del output
    return total


@pytest.mark.parametrize('name', [*AUTOENCODERS, *NETWORKS])
def test_the_estimate_is_a_close_lower_bound_and_changes_nothing(name):
    if name in NETWORKS:
        network = NETWORKS[name]().train()
        inputs = network.example_inputs()
    else:
        network, inputs = _ThereAndBack(AUTOENCODERS[name]()).train(), (torch.zeros(1, 3, 32, 32),)
    before, state = torch.get_rng_state(), {key: value.clone() for key, value in network.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        estimate = bytes_kept(network, *(each.to('meta') for each in inputs))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    real = really_kept(network, *inputs)
    assert 0.6 * real < estimate <= real  # of attention, what all kernels keep


def test_a_batch_that_does_not_fit_is_refused_with_what_it_needs(monkeypatch):
    words = ['train_dataloader.batch_size=64', 'custom_hooks={}', 'evaluators=[]', 'train_dataloader.dataset.size=16']
    config = load_config('configs/demo/pretrain.py', words)
    each = rehearse(config).kept_bytes(Shapes(1, 16))
    assert each > 16 * 16 * 16 * 4  # the first layer alone
    monkeypatch.setattr(training, 'total_memory', lambda: 10 * each)
    with pytest.raises(
        ValueError, match=r'batch_size: 64 samples at once need more than .* GiB, cpu has .* at most 10'
    ):
        rehearse(config)
    config.model.micro_batch_size = 10
    rehearse(config)
    config.model.update(micro_batch_size=20, precision='bf16')
    rehearse(config)


def test_images_that_memory_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r'batch_size: 8 images of 100,000 x 100,000 pixels take 1,117.6 GiB'):
        build_eval_loader(Shapes(8, 100_000), batch_size=8, num_workers=0)
