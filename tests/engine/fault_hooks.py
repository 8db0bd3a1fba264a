"""Hooks that do harm, for tests."""

import os
import resource
import signal
import time
from pathlib import Path

import torch
from mmengine.hooks import Hook

from eqzoo.distributed import rank_and_world_size
from eqzoo.registry import HOOKS


class _At(Hook):
    priority = 'VERY_HIGH'

    def __init__(self, step, **arguments):
        self.step, self.arguments = step, arguments

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.step:
            self.harm(runner, data_batch, **self.arguments)


@HOOKS.register_module()
class PoisonWeights(_At):
    @torch.no_grad()
    def harm(self, runner, batch):
        next(iter(runner.model.parameter_groups().values()))[0].fill_(torch.nan)


@HOOKS.register_module()
class PoisonBatch(_At):
    def harm(self, runner, batch):
        batch['mean'][0] = torch.inf


@HOOKS.register_module()
class SendSignal(_At):
    def harm(self, runner, batch, name):
        os.kill(os.getpid(), getattr(signal, name))


@HOOKS.register_module()
class FillDisk(_At):
    """Files can grow no further than this, whatever is written to them."""

    def harm(self, runner, batch, size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@HOOKS.register_module()
class KillRank(_At):
    def harm(self, runner, batch, rank):
        if rank_and_world_size()[0] == rank:
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class DeleteImages(_At):
    """What a clean-up job does to a data folder."""

    def harm(self, runner, batch, folder, keep, every=1):
        for file in sorted(Path(folder).rglob('*.png'))[keep::every]:
            file.unlink()


@HOOKS.register_module()
class SignalGroup(_At):
    """Signals to the whole process group, as a terminal, SLURM and torchrun send them."""

    def harm(self, runner, batch, names):
        for name in names:
            os.killpg(os.getpgid(0), getattr(signal, name))
            time.sleep(0.2)  # until it has arrived, here and in the processes of the loader
