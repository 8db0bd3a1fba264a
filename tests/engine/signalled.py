"""Run as a program: trainings with two loader processes, each in a process group of its own that gets signals.

    python signalled.py FOLDER

Each is forked from here, where torch is already imported. FOLDER/NAME has its checkpoints, FOLDER/NAME.txt what it
printed and, in its last line, its exit status.
"""

import os
import signal
import sys
from pathlib import Path

import fault_hooks  # noqa: F401  registers them
import torch

from eqzoo import engine
from eqzoo.commands.cli import main as command_line
from eqzoo.data import workers

SMALL = (
    'configs/demo/plain.py',
    'model.autoencoder.weights=none',
    'model.autoencoder.block_out_channels=(8,8)',
    'model.autoencoder.norm_num_groups=4',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.size=16',
    'train_dataloader.num_workers=2',
    'val_dataloader=none',
    'visualizer=none',
    'default_hooks.checkpoint.save_best=none',
    'default_hooks.logger.interval=1',
)
SIGNALS = {
    'term': ['SIGTERM'],
    'usr1': ['SIGUSR1'],
    'int': ['SIGINT'],
    'int_twice': ['SIGINT', 'SIGINT'],
    'background': ['SIGINT'],
    'unsaved': ['SIGTERM'],
}
CASES = (*SIGNALS, 'start', 'failure')


def work(name: str, folder: Path) -> None:
    hook = dict(type='SignalGroup', step=3, names=SIGNALS.get(name, []))
    if name == 'failure':
        hook = dict(type='PoisonWeights', step=3)
    if name == 'start':  # while the run is built
        engine.build_runner = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
    more = []
    if name == 'background':
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        more = ['train_cfg.max_iters=4']
    if name == 'unsaved':
        more = ['default_hooks.checkpoint=none']
    workers.os.sched_getaffinity = lambda _: {0, 1}  # two cores, whatever machine this is
    command_line(['train', *SMALL, f'work_dir={folder / name}', f'custom_hooks={dict(fault=hook)!r}', *more])


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    # as from a terminal: a shell's background jobs, such as CI's, start with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in CASES:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            out = os.open(folder / f'{name}.txt', os.O_WRONLY | os.O_CREAT)
            os.dup2(out, 1)
            os.dup2(out, 2)
            work(name, folder)
            return
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with (folder / f'{name}.txt').open('a') as file:
            file.write(f'{status}\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
