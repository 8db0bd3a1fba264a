"""`tools/study.py`: a grid of autoencoders and generators, trained and measured over seeds, to one table."""

from pathlib import Path

from eqzoo.engine.work_dir import own_folder
from eqzoo.studies import Plan, Study, load_study, make_plan
from eqzoo.studies.report import report_study
from eqzoo.studies.stages import default_jobs, do_stages


def study(
    config_file: str,
    *,
    overrides: list[str],
    seeds: int = 3,
    resume: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    work_dir: str = 'work_dirs/studies',
    out: str | None = None,
    into: str | None = None,
) -> None:
    """Run a study: fine-tune its autoencoders, train its generators on their latents, measure, and write its table.

    What two studies, or two arms of one, need alike is made once. Each stage can be stopped at any
    time; what is done is kept, and the same command with --resume goes on.

    Args:
        config_file: A study's config, such as configs/studies/autoencoders_shapes.py.
        overrides: Keys to set, as key=value, in all configs of the study that have them.
        seeds: How many: 0, 1, …; means and spread are over them.
        resume: Go on with this study, or write its table anew; what is done is kept.
        dry_run: Say what would be done, command by command, and do nothing.
        jobs: Stages at once; by default one a GPU, or one a core, at most four.
        work_dir: Where all studies' stages are.
        out: Where table, numbers and plots go; by default the study's name in the work directory.
        into: A Markdown file whose part between `<!-- study: NAME -->` and `<!-- end of study -->` becomes the table.
    """
    if seeds < 1 or (jobs is not None and jobs < 1):
        raise ValueError(f'--seeds and --jobs must be at least 1, got {seeds} and {jobs}.')
    the_study, root = load_study(config_file), Path(work_dir)
    plan = make_plan(the_study, range(seeds), root / 'stages', overrides)
    folder = Path(out) if out is not None else root / the_study.name
    if dry_run:
        print(_described(the_study, plan, seeds))
        return
    marker = root / f'{the_study.name}.begun'
    if marker.exists() and not resume:
        raise ValueError(
            f'{the_study.name} has been begun in {root}; go on with it, or write its table anew, by --resume, or '
            'choose another --work-dir. What is done is kept either way.'
        )
    with own_folder(root, '--work-dir'):
        marker.touch()
        done = sum(stage.record() is not None for stage in plan.stages.values())
        jobs = jobs or default_jobs()
        print(f'{the_study.title}\n{len(plan.stages)} stages, {done} of them done; {jobs} at a time', flush=True)
        do_stages(plan.stages.values(), jobs=jobs)
        report_study(the_study, plan, range(seeds), folder, into=into)


def _described(the_study: Study, plan: Plan, seeds: int) -> str:
    lines = [f'{the_study.title}: {len(plan.stages)} stages over {seeds} seed(s)']
    for stage in plan.stages.values():
        lines.append(f'\n# {stage.name}{"" if stage.record() is None else " (done)"}')
        lines += [str(command) for command in stage.commands]
    return '\n'.join(lines)
