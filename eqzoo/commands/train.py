"""`tools/train.py`: train an autoencoder or a generator."""

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from eqzoo.config import Config, load_config, require, to_python, trains_autoencoder
from eqzoo.registry import build
from eqzoo.text import printable, shell_word

if TYPE_CHECKING:
    from eqzoo.engine.phases import Phase


def train(
    config_file: str,
    *,
    overrides: list[str],
    smoke: bool = False,
    dry_run: bool = False,
    resume: bool = False,
    show: bool = False,
) -> None:
    """Train the autoencoder or the generator of a config.

    Args:
        config_file: A Python config, such as configs/eqvae/sdxl_rot_scale.py.
        overrides: Keys of the config to set, as key=value.
        smoke: Shrink the run to seconds: tiny network, built-in data, no weights, a few steps.
        dry_run: Check everything and describe the run, without training.
        resume: Continue from the newest checkpoint in the work directory.
        show: Print the config with its bases and overrides merged, as a complete config file, and stop.
    """
    config = load_config(config_file, overrides)
    if show:
        print(to_python(config), end='')
        return
    require(config, 'training', 'model', 'train_dataloader', 'optim_wrapper', 'train_cfg')

    from eqzoo.distributed import (
        close_distributed,
        failures_of_others,
        init_distributed,
        rank_and_world_size,
        use_device,
        wait_for_all,
    )
    from eqzoo.engine import shrink
    from eqzoo.engine.phases import phases_of
    from eqzoo.engine.runner import rehearse
    from eqzoo.engine.smoke import MARK
    from eqzoo.engine.work_dir import empty_of_earlier_runs, own_folder
    from eqzoo.precision import use_backends

    use_device(config.device)
    use_backends(config.get('gpu'))
    phases = phases_of(config, shrink) if smoke else phases_of(config)
    datasets = _check(phases, f'python tools/train.py {shell_word(config_file)}')
    init_distributed()
    if dry_run:
        with failures_of_others():
            for phase, own in zip(phases, datasets, strict=True):
                resumes = resume and _has_begun(phases, phase)
                if resumes:
                    phase.begin()
                announce = partial(_announce, phase, own, with_memory=True)
                # the memory of a model in shards cannot be counted: it is described before it is cut
                early = announce if phase.config.get('sharding') else None
                model = rehearse(phase.config, own, resume=None if smoke and not resume else resumes, announce=early)
                if early is None and rank_and_world_size()[0] == 0:
                    announce(model)
            if rank_and_world_size()[0] == 0:
                print('Nothing is missing.')
            close_distributed()
        return
    with failures_of_others(), own_folder(phases[-1].config.work_dir):
        if smoke and not resume:
            if rank_and_world_size()[0] == 0:
                lengths = {phase.config.work_dir: phase.config.train_cfg.max_iters for phase in phases}
                empty_of_earlier_runs(lengths, MARK)
            wait_for_all()
        stopped = _run(phases, datasets, resume=resume)
        close_distributed()
    if stopped:
        sys.exit(128 + stopped)  # a shell's exit status for a process ended by a signal


def _memory(config: Config, data: Any, model: Any) -> str:
    """Return the memory of a step of one process, in words."""
    from eqzoo.data.loaders import image_sizes
    from eqzoo.distributed import get_device, rank_and_world_size, total_memory
    from eqzoo.engine.memory import step_memory

    sizes = image_sizes(data) if trains_autoencoder(config.model) else []
    size = max(sizes, key=math.prod) if sizes else None
    processes = rank_and_world_size()[1]
    samples = config.train_dataloader.batch_size // processes
    samples = min(model.micro_batch_size or samples, samples)
    try:
        needed = step_memory(model, config, size, samples)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # of a user's own part
        return f'not known: {str(error).splitlines()[0]}'
    parts = sorted(needed.parts.items(), key=lambda item: -item[1])
    parts = ', '.join(f'{name} {value / 2**30:.2f}' for name, value in parts if value >= 0.005 * 2**30)
    each = f' on each of {processes} processes' if processes > 1 else ''
    cut = f'; sharding cuts weights, gradients, optimizer and average into {processes}' if processes > 1 else ''
    cut = cut if config.get('sharding') else ''
    return (
        f'{needed.peak / 2**30:.2f} GiB at the peak of a step with {samples} samples at once{each} ({parts}){cut}; '
        f'{get_device()} has {total_memory() / 2**30:.1f} GiB'
    )


def _check(phases: 'Sequence[Phase]', command: str) -> list[dict[str, Any]]:
    """Check all phases before the first one runs, and return each one's data sets; what several have is opened once."""
    from eqzoo.engine.phases import data_of_both
    from eqzoo.engine.preflight import check_training
    from eqzoo.engine.references import check_reference_sizes

    datasets: list[dict[str, Any]] = []
    for number, phase in enumerate(phases):
        check_reference_sizes(phase.config)  # after days of training, its test would refuse them
        opened = data_of_both(phases[number - 1].config, phase.config, datasets[-1]) if number else {}
        datasets.append(check_training(phase.config, command, opened))
    return datasets


def _run(phases: 'Sequence[Phase]', datasets: Sequence[Mapping[str, Any]], *, resume: bool) -> int | None:
    """Train all phases that are not done; return the number of the signal that stopped one, if any."""
    from eqzoo.distributed import rank_and_world_size, wait_for_all
    from eqzoo.engine import build_runner
    from eqzoo.engine.hooks import stopped_by

    is_first = rank_and_world_size()[0] == 0
    for phase, own in zip(phases, datasets, strict=True):
        if phase is not phases[-1] and (resume or phase.config.resume) and phase.is_done():
            if is_first:
                print(f'Phase {phase.name} is done: {phase.result}')
            continue
        phase.begin()
        announce = partial(_announce, phase, own)
        resumes = resume and _has_begun(phases, phase)
        runner = build_runner(phase.config, resume=resumes, datasets=own, announce=announce)
        runner.train()
        if stopped := stopped_by(runner):
            return stopped
        wait_for_all()  # until the first process has written the weights that the next phase starts from
    if is_first:
        print(f'Done. Checkpoints, logs and pictures are in {phases[-1].config.work_dir}.')
    return None


def _has_begun(phases: 'Sequence[Phase]', phase: 'Phase') -> bool:
    """Return whether a phase has a checkpoint to resume from; the first one must have, and a later one may start."""
    from eqzoo.engine import latest_checkpoint

    return phase is phases[0] or latest_checkpoint(phase.config.work_dir) is not None


def _announce(phase: 'Phase', datasets: Mapping[str, Any], model: Any, *, with_memory: bool = False) -> None:
    """Print what a run is about to do, before its first step."""
    described = describe(phase.config, datasets, model, with_memory=with_memory)
    print(printable((f'phase {phase.name}:\n' if phase.name else '') + described, lines=True), flush=True)


def describe(config: Config, datasets: Mapping[str, Any], model: Any = None, *, with_memory: bool = False) -> str:
    """Describe the run of `config` in a few lines.

    Args:
        config: The config of the run.
        datasets: The data sets that preflight opened, by their places in the config; others are built.
        model: The training module; if None, it is built from the config.
        with_memory: Count the memory of a step, which takes seconds.
    """
    from eqzoo.engine.optimizers import learning_rate

    model, data = build(config.model) if model is None else model, datasets.get('train_dataloader.dataset')
    data = build(config.train_dataloader.dataset) if data is None else data
    model.check_data(data)
    size = config.train_dataloader.batch_size
    lines = {
        'config': config.filename,
        'work_dir': config.work_dir,
        **model.describe(),
        'data': data.describe(),
        'steps': f'{config.train_cfg.max_iters:,} of {size} '
        f'({config.train_cfg.max_iters * size / len(data):.1f} passes over the data)',
        **{
            f'{name} optimizer': f'{config.optim_wrapper[name].optimizer.type}, '
            f'lr {"its own" if rate is None else f"{rate:g}"}, {sum(p.numel() for p in group):,} parameters'
            for name, group in model.parameter_groups().items()
            for rate in [learning_rate(config.optim_wrapper[name].optimizer)]
        },
    }
    if with_memory:
        lines['memory'] = _memory(config, data, model)
    width = max(map(len, lines))
    return '\n'.join(f'{name:<{width}}  {value}' for name, value in lines.items())
