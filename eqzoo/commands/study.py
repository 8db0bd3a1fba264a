"""`tools/study.py`: train and measure a grid of autoencoders and generators over seeds, and write one table."""

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from eqzoo.commands.cli import COMMANDS, advice
from eqzoo.registry.ranges import PositiveInt

if TYPE_CHECKING:
    from eqzoo.studies import StageCommand, Study, StudyPlan


def study(
    config_file: str,
    *,
    overrides: list[str],
    seeds: PositiveInt = 3,
    resume: bool = False,
    dry_run: bool = False,
    jobs: PositiveInt | None = None,
    work_dir: str = 'work_dirs/studies',
    out: str | None = None,
    into: str | None = None,
) -> None:
    """Run a study: fine-tune autoencoders, train generators on their latents, measure both, and write a table.

    Stages that several studies or arms share run once. A study can be stopped at any time;
    finished stages are kept, and the same command with --resume continues.

    Args:
        config_file: A study's config, such as configs/studies/autoencoders_shapes.py.
        overrides: Keys to set, as key=value, in all configs of the study that have them.
        seeds: Number of seeds, from 0 or the study's `first_seed` on; the table has means and standard deviations over
            them.
        resume: Continue this study, or write its table again.
        dry_run: Print every command of the study, and run none.
        jobs: Number of stages to run at the same time; by default one per GPU, otherwise one per core, at most four.
        work_dir: The folder for the stages of all studies.
        out: The folder for table, numbers and plots; by default a folder with the study's name in the work directory.
        into: A Markdown file in which the table replaces the part between `<!-- study: NAME -->` and
            `<!-- end of study -->`.
    """
    from eqzoo.engine.work_dir import own_folder
    from eqzoo.studies import load_study, plan_study, run_stages
    from eqzoo.studies.criterion import write_down
    from eqzoo.studies.gates import Gatekeeper
    from eqzoo.studies.preflight import missing_of
    from eqzoo.studies.report import report_study
    from eqzoo.studies.stages import StageError, default_jobs

    the_study, root = load_study(config_file), Path(work_dir)
    plan = plan_study(the_study, the_study.seeds(seeds), root / 'stages', overrides)
    folder = Path(out) if out is not None else root / the_study.name
    if dry_run:
        print(_format_plan(the_study, plan, seeds))
        if lacks := missing_of(the_study, plan):
            print(f'\n{advice(lacks)}')
        return
    marker = root / f'{the_study.name}.begun'
    if marker.exists() and not resume:
        raise ValueError(
            f'{the_study.name} has already been started in {root}; continue it, or write its table again, with '
            '--resume, or choose another --work-dir. Finished stages are kept either way.'
        )
    if lacks := missing_of(the_study, plan):
        raise ValueError(lacks)
    with own_folder(root, '--work-dir'):
        record = write_down(the_study, config_file, marker, overrides)
        done = sum(stage.record() is not None for stage in plan.stages.values())
        jobs = jobs or default_jobs()
        print(f'{the_study.title}\n{len(plan.stages)} stages, {done} of them done; {jobs} at a time', flush=True)
        criterion = the_study.criterion
        if criterion is not None and seeds < criterion.of_seeds:
            print(f'The criterion asks for {criterion.of_seeds} seeds; {seeds} may not decide it.', flush=True)
        keeper = Gatekeeper(the_study, plan, report=lambda line: print(line, flush=True))
        given = dict(words=[config_file, *overrides], record=record)
        try:
            run_stages(plan.stages.values(), run_command, jobs=jobs, configs=plan.configs(), admits=keeper.admits)
        except StageError as error:  # one arm that diverges does not take the page from all others
            report_study(the_study, plan, the_study.seeds(seeds), folder, **given, failures=error.failures)
            raise
        report_study(the_study, plan, the_study.seeds(seeds), folder, **given, into=into)


def run_command(command: 'StageCommand') -> None:
    """Run a stage's command in this process, by its name in the table of commands."""
    function = COMMANDS[command.tool.replace('_', '-')].load()
    # `convert` reads no config and takes no overrides
    overrides = {'overrides': list(command.overrides)} if 'overrides' in signature(function).parameters else {}
    function(*command.words, **dict(command.options), **overrides)


def _format_plan(the_study: 'Study', plan: 'StudyPlan', seeds: int) -> str:
    lines = [f'{the_study.title}: {len(plan.stages)} stages over {seeds} seed(s)']
    for stage in plan.stages.values():
        kinds = {each.of for each in plan.gated.get(stage.folder, ())}
        gates = [
            gate.name for gate in the_study.gates.values() if gate.stops and (gate.of == 'start' or 'arm' in kinds)
        ]
        behind = f' (if passed: {", ".join(gates)})' if kinds and gates else ''
        lines.append(f'\n# {stage.name}{behind if stage.record() is None else " (done)"}')
        lines += [str(command) for command in stage.commands]
    return '\n'.join(lines)
