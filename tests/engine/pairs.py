"""Run as a program: two processes train several small runs, whole and in shards; then the second dies.

    python pairs.py FOLDER PORT

The second is forked from the first, where torch is already imported; it prints to FOLDER/second.txt.
"""

import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import fault_hooks  # noqa: F401  registers them
import torch
from mmengine.config import Config

from eqzoo.commands.cli import run as run_command
from eqzoo.commands.train import train
from eqzoo.data import BucketedShapes, Shapes, build_eval_loader, build_train_loader
from eqzoo.distributed import close_distributed, init_distributed
from eqzoo.engine import StepRandomness, averaging
from eqzoo.engine.runner import EvaluationLoop, build_optimizers
from eqzoo.registry import build

LEAVES = {
    'autoencoder': 'configs/demo/rot_scale.py',
    'vq': 'configs/demo/vq_rot_scale.py',
    'dit': 'configs/dit/dit_tiny_shapes.py',
    'repa': 'configs/repa/repa_tiny_shapes.py',
    'repae': 'configs/repae/repae_tiny_shapes.py',
    'maskgit': 'configs/maskgit/maskgit_tiny_shapes.py',
}
SHARDED = ('dit', 'repa', 'maskgit')
# Adam makes steps of one size of whatever rounding leaves where a gradient is zero.
RATES = {'autoencoder': 1e-6, 'vq': 1e-2, 'dit': 1e-2, 'repa': 1e-2, 'repae': 1e-2, 'maskgit': 1e-2}
MOMENTA = {'repa': 0.0}  # an optimizer without state
NUM_PORTS = 13
averaging.SMALL_BYTES = 2**10  # so that some gradients of small networks are sent by themselves

SMALL = Config(
    dict(
        model=dict(
            type='AutoencoderTraining',
            autoencoder=dict(type='KLAutoencoder', block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
            objective=dict(type='ImplicitEquivariance', transform=dict(type='Rotate')),
            reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
            penalties=[dict(type='KLDivergence')],
            # without batch statistics, which stay per process
            adversarial_loss=dict(
                type='AdversarialLoss',
                discriminator=dict(type=torch.nn.Conv2d, in_channels=3, out_channels=1, kernel_size=4),
            ),
        ),
        optim_wrapper=dict(
            autoencoder=dict(optimizer=dict(type='SGD', lr=1e-5)),
            discriminator=dict(optimizer=dict(type='SGD', lr=1e-2)),
        ),
        evaluators=[dict(type='ReconstructionMetric'), dict(type='EquivarianceError'), dict(type='LatentStatistics')],
    )
)


def train_and_evaluate(rank: int, world_size: int) -> tuple[dict, dict]:
    """Train `SMALL` for four steps on buckets and evaluate seven images, an odd number; return weights and metrics."""
    torch.manual_seed(0)
    model = build(SMALL.model).train()
    optimizers = build_optimizers(model, SMALL)
    share = dict(num_workers=0, rank=rank, world_size=world_size)
    loader = build_train_loader(BucketedShapes(9, [(32, 32), (32, 64), (64, 32)]), batch_size=4, seed=0, **share)
    for step, batch in zip(range(4), loader, strict=False):
        model.train_step(batch, optimizers, StepRandomness(0, step))
    runner = SimpleNamespace(model=model, call_hook=lambda name, **arguments: None)
    loader = build_eval_loader(Shapes(num_images=7, size=32, seed=1), batch_size=2, **share)
    loop = EvaluationLoop(runner, loader, [build(each) for each in SMALL.evaluators])
    return model.state_dict(), loop.run()


def plain_descent(kind: str) -> list[str]:
    subjects = {'autoencoder': ['autoencoder'], 'vq': ['autoencoder'], 'repae': ['autoencoder', 'generator']}
    sgd = {'type': 'SGD', 'lr': RATES[kind], 'momentum': MOMENTA.get(kind, 0.9)}
    return [f'optim_wrapper.{subject}.optimizer={sgd}' for subject in subjects.get(kind, ['generator'])]


def run(kind: str, folder: Path, *overrides: str, resume: bool = False) -> None:
    train(LEAVES[kind], overrides=[f'work_dir={folder}', *plain_descent(kind), *overrides], smoke=True, resume=resume)


def lose_a_process(folder: Path) -> None:
    """Let process 1 be killed in step 4 of a run, and write the other's last message to `lost.txt`."""
    hook = "custom_hooks={'kill': {'type': 'KillRank', 'step': 4, 'rank': 1}}"
    try:
        run_command(train, [LEAVES['dit'], '--smoke', f'work_dir={folder / "lost"}', hook])
    except SystemExit as stopped:
        (folder / 'lost.txt').write_text(str(stopped.code))


def work(folder: Path, port: int, rank: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
    ports = iter(range(port, port + NUM_PORTS))

    def next_port() -> None:
        os.environ['MASTER_PORT'] = str(next(ports))

    next_port()
    init_distributed()
    torch.save(train_and_evaluate(rank, 2), folder / f'{rank}.pth')
    close_distributed()
    jobs = [(kind, folder / 'two' / kind, ()) for kind in LEAVES]
    jobs += [(kind, folder / 'sharded' / kind, ('sharding=full',)) for kind in SHARDED]
    for kind, place, words in jobs:
        next_port()
        run(kind, place, *words)
    # each resumes from the other's checkpoint of the second step
    for name, words in (('sharded', ()), ('two', ('sharding=full',))):
        next_port()
        place = folder / f'from_{name}'
        if rank == 0:
            shutil.copytree(folder / name / 'dit', place)
            (place / 'iter_4.pth').unlink()
            (folder / f'ready_{name}').touch()
        while not (folder / f'ready_{name}').exists():
            time.sleep(0.01)
        run('dit', place, *words, resume=True)
    next_port()
    lose_a_process(folder)


def main(folder: Path, port: int) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    second = os.fork()
    if second == 0:
        out = os.open(folder / 'second.txt', os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1)
        os.dup2(out, 2)
    try:
        work(folder, port, rank=int(second == 0))
    except BaseException:
        traceback.print_exc()
        if second:
            os.kill(second, signal.SIGKILL)  # it waits for the first
        os._exit(1)
    killed = second and os.WTERMSIG(os.waitpid(second, 0)[1]) == signal.SIGKILL
    sys.stdout.flush()
    os._exit(0 if killed else 1)  # without Python's clean-up: gloo may abort a process whose group is broken


if __name__ == '__main__':
    main(Path(sys.argv[1]), int(sys.argv[2]))
