"""Studies: a grid of autoencoders and generators, trained and measured over seeds, with one table at the end."""

from eqzoo.studies.plan import StudyPlan, plan_study
from eqzoo.studies.stages import Stage, StageCommand, run_stages
from eqzoo.studies.study import Study, load_study

__all__ = ['Stage', 'StageCommand', 'Study', 'StudyPlan', 'load_study', 'plan_study', 'run_stages']
