"""Processes of loaders: as many as there are cores, and deaf to signals that are meant for the main process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from eqzoo.data import Shapes, build_train_loader, workers


def test_their_number_is_capped_to_the_cores_and_said_once(monkeypatch, capsys):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1}, raising=False)
    workers._say_cap.cache_clear()
    assert [workers.worker_options(asked)['num_workers'] for asked in (0, 2, 8, 8)] == [0, 2, 2, 2]
    assert capsys.readouterr().out == 'num_workers: 8 asked for, 2 used, one for each core of this process.\n'
    loader = build_train_loader(Shapes(4, 16), batch_size=2, num_workers=8, seed=0)
    assert loader.num_workers == 2


def test_rows_of_one_size_lie_one_behind_the_other():
    rows = workers.BatchRows(3)
    taken = [rows.take(*size) for size in ((2, 5), (5, 2), (2, 5), (2, 5), (2, 5))]
    for value, row in enumerate(taken):
        row.fill_(value)
    assert [row.unique().tolist() for row in taken] == [[0], [1], [2], [3], [4]]  # none in the place of another
    first, other, second, third, further = taken
    batch = workers.joined([first, second, third])
    assert batch.shape == (3, 3, 2, 5)
    assert batch[:, 1, 1, 4].tolist() == [0, 2, 3]
    assert batch.data_ptr() == first.data_ptr()
    assert workers.joined([second, third]).data_ptr() == second.data_ptr()
    for apart in ([first, third], [second, first], [third, further], [first, first], [first.mT, second.mT]):
        assert workers.joined(apart) is None
    assert tuple(other.shape) == (3, 5, 2)


def _wait(is_ready):
    workers.leave_signals()
    is_ready.set()
    time.sleep(60)


@pytest.mark.skipif(not hasattr(signal, 'sigwaitinfo'), reason='this system cannot ask for the sender of a signal')
def test_they_outlive_signals_of_others_and_end_when_their_parent_wants():
    is_ready = workers.CONTEXT.Event()
    worker = workers.CONTEXT.Process(target=_wait, args=(is_ready,), daemon=True)
    worker.start()
    assert is_ready.wait(20)
    for name in ('SIGINT', 'SIGUSR1'):
        os.kill(worker.pid, getattr(signal, name))
    subprocess.run([sys.executable, '-c', f'import os; os.kill({worker.pid}, {int(signal.SIGTERM)})'], check=True)
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


WITH_THREADS_OF_A_LIBRARY = """
import multiprocessing, os, signal, sys, threading, time
from eqzoo.data import workers

os.register_at_fork(after_in_child=lambda: threading.Thread(target=time.sleep, args=(60,), daemon=True).start())

def wait(is_ready):
    workers.leave_signals()
    is_ready.set()
    time.sleep(60)

for context in (multiprocessing.get_context('fork'), workers.CONTEXT):
    is_ready = context.Event()
    worker = context.Process(target=wait, args=(is_ready,), daemon=True)
    worker.start()
    is_ready.wait(20)
    os.system(f'kill -TERM {worker.pid}')
    worker.join(0.5)
    print(worker.is_alive(), worker.exitcode)
    worker.kill()
"""


@pytest.mark.skipif(not hasattr(signal, 'sigwaitinfo'), reason='this system cannot ask for the sender of a signal')
def test_threads_that_libraries_make_in_a_fork_do_not_end_it():
    done = subprocess.run([sys.executable, '-c', WITH_THREADS_OF_A_LIBRARY], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ['False -15', 'True None']


def test_loaders_take_their_processes_from_there():
    loader = build_train_loader(Shapes(4, 16), batch_size=2, num_workers=1, seed=0)
    assert loader.multiprocessing_context is workers.CONTEXT
    assert build_train_loader(Shapes(4, 16), batch_size=2, num_workers=0, seed=0).multiprocessing_context is None
