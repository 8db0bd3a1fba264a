"""Run as a program, two processes at once: trains several small runs, whole and in shards.

python pairs.py FOLDER PORT RANK
"""

import os
import shutil
import sys
from pathlib import Path

import torch

from eqzoo.commands.train import train

LEAVES = {
    'autoencoder': 'configs/demo/rot_scale.py',
    'vq': 'configs/demo/vq_rot_scale.py',
    'dit': 'configs/dit/dit_tiny_shapes.py',
    'repa': 'configs/repa/repa_tiny_shapes.py',
    'maskgit': 'configs/maskgit/maskgit_tiny_shapes.py',
}
SHARDED = ('dit', 'repa', 'maskgit')
# Adam makes steps of one size of whatever rounding leaves where a gradient is zero.
RATES = {'autoencoder': 1e-6, 'vq': 1e-2, 'dit': 1e-2, 'repa': 1e-2, 'maskgit': 1e-2}


def plain_descent(kind: str) -> str:
    subject = 'autoencoder' if kind in ('autoencoder', 'vq') else 'generator'
    return f"optim_wrapper.{subject}.optimizer={{'type': 'SGD', 'lr': {RATES[kind]}, 'momentum': 0.9}}"


def run(kind: str, folder: Path, *overrides: str, resume: bool = False) -> None:
    train(LEAVES[kind], overrides=[f'work_dir={folder}', plain_descent(kind), *overrides], smoke=True, resume=resume)


def main(folder: Path, port: int, rank: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
    jobs = [(kind, folder / 'two' / kind, ()) for kind in LEAVES]
    jobs += [(kind, folder / 'sharded' / kind, ('sharding=full',)) for kind in SHARDED]
    for number, (kind, place, words) in enumerate(jobs):
        os.environ['MASTER_PORT'] = str(port + number)
        run(kind, place, *words)
    # each goes on from the other's checkpoint, of the second step
    for number, (name, words) in enumerate((('sharded', ()), ('two', ('sharding=full',)))):
        os.environ['MASTER_PORT'] = str(port + len(jobs) + number)
        place = folder / f'from_{name}'
        if rank == 0:
            shutil.copytree(folder / name / 'dit', place)
            (place / 'iter_4.pth').unlink()
            (folder / f'ready_{name}').touch()
        while not (folder / f'ready_{name}').exists():
            pass
        run('dit', place, *words, resume=True)


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
