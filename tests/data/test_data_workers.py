"""Processes of loaders: as many as there are cores, and deaf to signals that are meant for the main process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eqzoo.data import Shapes, build_train_loader, workers


def test_their_number_is_capped_to_the_cores_and_said_once(monkeypatch, capsys):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1}, raising=False)
    workers._say_cap.cache_clear()
    assert [workers.worker_options(asked)['num_workers'] for asked in (0, 2, 8, 8)] == [0, 2, 2, 2]
    assert capsys.readouterr().out == 'num_workers: 8 asked for, 2 used, one for each core of this process.\n'
    loader = build_train_loader(Shapes(4, 16), batch_size=2, num_workers=8, seed=0)
    assert loader.num_workers == 2


def _wait(is_ready):
    workers.leave_signals()
    is_ready.set()
    time.sleep(60)


def _threads_without_block(pid):
    """Return the names of a process's threads that a SIGTERM would reach; one is enough to end it."""
    found = []
    for task in Path(f'/proc/{pid}/task').iterdir():
        lines = dict(line.split(':', 1) for line in (task / 'status').read_text().splitlines())
        waits = 'sigtimedwait' in (task / 'wchan').read_text()
        if not waits and not int(lines['SigBlk'], 16) >> (signal.SIGTERM - 1) & 1:
            found.append(lines['Name'].strip())
    return found


@pytest.mark.skipif(not hasattr(signal, 'sigwaitinfo'), reason='this system cannot ask for the sender of a signal')
def test_they_outlive_signals_of_others_and_end_when_their_parent_wants():
    context = multiprocessing.get_context('fork')
    is_ready = context.Event()
    worker = context.Process(target=_wait, args=(is_ready,), daemon=True)
    worker.start()
    assert is_ready.wait(20)
    assert _threads_without_block(worker.pid) == []
    for name in ('SIGINT', 'SIGUSR1'):
        os.kill(worker.pid, getattr(signal, name))
    subprocess.run([sys.executable, '-c', f'import os; os.kill({worker.pid}, {int(signal.SIGTERM)})'], check=True)
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
