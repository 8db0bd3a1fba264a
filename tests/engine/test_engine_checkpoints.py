"""Checkpoints: written whole or not at all, and found again."""

import pickle

import numpy as np
import pytest
import torch

from eqzoo.engine.checkpoints import AtomicLocalBackend, PlainCheckpointHook, latest_checkpoint, read_checkpoint


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'iter_1.pth'
    AtomicLocalBackend().put(b'old', path)
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError('No space left on device')))
    with pytest.raises(OSError, match='No space left'):
        AtomicLocalBackend().put(b'new', path)
    assert path.read_bytes() == b'old'
    assert [each.name for each in tmp_path.iterdir()] == ['iter_1.pth']


def test_mmengine_writes_through_it(tmp_path):
    from mmengine.fileio import get_file_backend

    assert isinstance(get_file_backend(str(tmp_path)), AtomicLocalBackend)


def test_the_latest_is_the_pointers_else_the_highest_number(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ('iter_9.pth', 'iter_10.pth', 'best_x_iter_11.pth'):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_9.pth')  # the folder was moved
    assert latest_checkpoint(tmp_path).name == 'iter_9.pth'
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_12.pth')  # deleted since
    assert latest_checkpoint(tmp_path).name == 'iter_10.pth'


def test_numpy_values_become_plain(tmp_path):
    checkpoint = {
        'state_dict': {},
        'meta': {'eta': np.float64(1.5), 'list': [np.int64(3)], 'array': np.arange(3)},
        'message_hub': {'log_scalars': {'loss': object()}, 'resumed_keys': {'loss': True, 'iter': True}},
    }
    PlainCheckpointHook().before_save_checkpoint(None, checkpoint)
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
