"""Run as a program: does work in processes that are killed at random moments, until one of them finishes.

    python kills.py FOLDER SEED KIND=KILLS...

The work of each kind is done in FOLDER/KIND/killed, and once without kills in FOLDER/KIND/whole. It is
forked from here, where torch is already imported, so that a kill costs a second and not ten.
"""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from eqzoo.commands.cache_latents import cache_latents
from eqzoo.commands.sample import sample
from eqzoo.commands.train import train as run_training
from eqzoo.config import load_config
from eqzoo.engine import build_runner, shrink
from eqzoo.engine.work_dir import own_folder

EMA = "custom_hooks={'ema': {'type': 'EMAHook', 'decay': 0.5}, 'pictures': {'type': 'PictureHook', 'interval': 4}}"
SDXL = ('configs/eqvae/sdxl_rot_scale.py', EMA, 'model.reconstruction_loss.learn_log_variance=True')
TRAININGS = {
    # discriminator, two optimizers, average, log-variance
    'autoencoder': (*SDXL, 'model.reconstruction_loss.perceptual=None'),
    'lpips': SDXL,
    'vq': ('configs/demo/vq_pretrain.py',),
    'repa': ('configs/repa/repa_tiny_shapes.py',),
    'maskgit': ('configs/maskgit/maskgit_base_vqgan.py',),
}
STEPS = 8
DIT = 'configs/dit/dit_tiny_shapes.py'


def train(kind: str, folder: Path) -> None:
    leaf, *overrides = TRAININGS[kind]
    config = shrink(load_config(leaf, [f'work_dir={folder}', *overrides]))
    config.train_cfg.max_iters = STEPS
    config.default_hooks.checkpoint.interval = 2
    config.default_hooks.logger.interval = 3
    config.resume = 'auto'
    if config.get('val_dataloader') is not None:
        config.train_cfg.val_interval = 4
    with own_folder(folder):
        build_runner(config).train()


def cache(kind: str, folder: Path) -> None:
    words = [f'work_dir={folder}', 'cache_dataloader.batch_size=2']
    cache_latents(DIT, overrides=words, smoke=True, out=str(folder / 'latents'))


def draw(kind: str, folder: Path) -> None:
    words = [f'work_dir={folder.parent}', 'sampling.batch_size=2']
    sample(DIT, overrides=words, smoke=True, out=str(folder / 'samples.npz'), num=30)


def forked(work: Callable[[], None], kill_after: float | None = None) -> bool:
    """Do `work` in a process of its own, killed after so many seconds; return whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)  # a process that has ended is not hurt: it is waited for below
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f'the work failed after {kill_after} s')
    return os.WIFEXITED(status)


def survive(kind: str, folder: Path, kills: int, rng: random.Random) -> int:
    """Do the work of `kind` with and without kills; return how many processes were killed."""
    work = {'cache': cache, 'sample': draw}.get(kind, train)
    if kind == 'sample':
        forked(lambda: run_training(DIT, overrides=[f'work_dir={folder}'], smoke=True))
    started = time.monotonic()
    forked(lambda: work(kind, folder / 'whole'))
    duration = time.monotonic() - started
    survived = 0

    def moment() -> float | None:
        """Return when to kill: the first early, since other work on the machine may have slowed the whole run."""
        return rng.uniform(0, 0.7 * duration * (survived + 1) / kills) if survived < kills else None

    while not forked(lambda: work(kind, folder / 'killed'), moment()):
        survived += 1
    return survived


def main(folder: Path, seed: int, jobs: list[str]) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    for job in jobs:
        kind, kills = job.split('=')
        print(f'{kind}: {survive(kind, folder / kind, int(kills), random.Random(seed))} kills survived')


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
