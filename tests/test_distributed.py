"""Joining a group of processes."""

import pytest
import torch

from eqzoo import distributed


def test_a_process_without_a_gpu_of_its_own_is_one_message(monkeypatch):
    monkeypatch.setenv('RANK', '4')
    monkeypatch.setenv('LOCAL_RANK', '4')
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    with pytest.raises(
        ValueError, match='process 4 of this machine has no GPU of its own, 4 GPUs can be seen; set --np'
    ):
        distributed.init_distributed()
