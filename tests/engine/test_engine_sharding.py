"""Shards of one process: what the moving average computes with."""

import pytest
import torch
import torch.distributed as dist

from eqzoo.distributed import local_shard
from eqzoo.engine.sharding import reshard, shard_network
from eqzoo.generators import DiffusionTransformer


@pytest.fixture
def group():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures('group')
def test_an_average_that_was_used_goes_on_with_its_shards():
    """Without `reshard`, FSDP2 computes with the outermost weights that the first pass has gathered."""
    torch.manual_seed(0)
    network = DiffusionTransformer(size=(1, 8, 2), latent_size=4, num_classes=3, learn_sigma=False)
    network.requires_grad_(False)
    for each in network.parameters():
        each.normal_(std=0.3)
    shard_network(network, torch.device('cpu'))
    inputs = torch.randn(2, 4, 4, 4), torch.rand(2), torch.tensor([0, 1])
    before = network.eval()(*inputs)
    reshard(network)
    for each in network.parameters():
        local_shard(each).mul_(0.5)
    after = network(*inputs)
    network.state_dict()  # gathers anew
    assert torch.equal(after, network(*inputs))
    assert not torch.allclose(before, after, rtol=0.1)
