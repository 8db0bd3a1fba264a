"""The digest changes with all that changes a latent, and with nothing else."""

import copy

import torch

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.checkpoints.autoencoder import autoencoder_digest


def build(**options):
    torch.manual_seed(0)
    return KLAutoencoder(2, (8, 8), **{'layers_per_block': 1, 'norm_num_groups': 4, **options})


def test_the_same_weights_have_the_same_digest():
    network = build()
    assert autoencoder_digest(network) == autoencoder_digest(build(scale=2.0, shift=1.0))
    assert autoencoder_digest(network) == autoencoder_digest(copy.deepcopy(network).eval())
    assert autoencoder_digest(network) == autoencoder_digest(network.to(memory_format=torch.channels_last))


def test_each_weight_counts_and_so_do_padding_groups_and_type():
    network = build()
    digests = {autoencoder_digest(network)}
    for name, tensor in network.state_dict().items():
        if not name.startswith('normalization.'):
            changed = copy.deepcopy(network)
            changed.state_dict()[name].view(-1)[-1] += 1
            digests.add(autoencoder_digest(changed))
            assert tensor.numel() > 0
    assert len(digests) == 1 + len(network.state_dict()) - 2
    for other in (build(padding_mode='reflect'), build(norm_num_groups=2), build().half()):
        assert autoencoder_digest(other) not in digests
