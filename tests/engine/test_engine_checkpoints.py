"""Checkpoints: written whole or not at all, and found again."""

import errno
import os
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eqzoo.engine.checkpoints import (
    AtomicLocalBackend,
    PlainCheckpointHook,
    latest_checkpoint,
    latest_whole_checkpoint,
    read_checkpoint,
)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'iter_1.pth'
    AtomicLocalBackend().put(b'old', path)
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(OSError, match=r'iter_1.pth: cannot be written .No space left on device.'):
        AtomicLocalBackend().put(b'new', path)
    assert path.read_bytes() == b'old'
    assert [each.name for each in tmp_path.iterdir()] == ['iter_1.pth']


def test_mmengine_writes_through_it(tmp_path):
    from mmengine.fileio import get_file_backend

    assert isinstance(get_file_backend(str(tmp_path)), AtomicLocalBackend)


def test_the_latest_has_the_highest_number(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ('iter_9.pth', 'iter_10.pth', 'best_x_iter_11.pth', 'iter_old.pth'):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    for step in (1, 2, 3):
        torch.save({'state_dict': {'weight': torch.arange(1000.0) + step}}, tmp_path / f'iter_{step}.pth')
    assert latest_whole_checkpoint(tmp_path) == (tmp_path / 'iter_3.pth', [])
    file = tmp_path / 'iter_3.pth'
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1  # one bit, in the weights
    file.write_bytes(content)
    whole, damage = latest_whole_checkpoint(tmp_path)
    assert whole.name == 'iter_2.pth'
    assert len(damage) == 1
    assert re.fullmatch(r'iter_3.pth: the checksum of .*/data/0 fails', damage[0])
    (tmp_path / 'iter_2.pth').write_bytes((tmp_path / 'iter_2.pth').read_bytes()[:1000])
    whole, damage = latest_whole_checkpoint(tmp_path)
    assert whole.name == 'iter_1.pth'
    assert 'iter_2.pth: BadZipFile' in damage[1]
    (tmp_path / 'iter_1.pth').write_bytes(b'')
    assert latest_whole_checkpoint(tmp_path)[0] is None


def test_numpy_values_become_plain(tmp_path):
    checkpoint = {
        'state_dict': {},
        'meta': {'eta': np.float64(1.5), 'list': [np.int64(3)], 'array': np.arange(3)},
        'message_hub': {'log_scalars': {'loss': object()}, 'resumed_keys': {'loss': True, 'iter': True}},
    }
    PlainCheckpointHook().before_save_checkpoint(
        SimpleNamespace(message_hub=SimpleNamespace(log_scalars={})), checkpoint
    )
    torch.save(checkpoint, tmp_path / 'c.pth')
    loaded = read_checkpoint(tmp_path / 'c.pth')
    assert loaded['meta']['eta'] == 1.5
    assert loaded['meta']['list'] == [3]
    assert loaded['meta']['array'].tolist() == [0, 1, 2]
    assert dict(loaded['message_hub']['resumed_keys']) == {'iter': True}
    assert not loaded['message_hub']['log_scalars']


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({'state_dict': print}, tmp_path / 'c.pth')
    with pytest.raises(pickle.UnpicklingError):
        read_checkpoint(tmp_path / 'c.pth')
