"""Studies: a grid of autoencoders and generators, trained and measured over seeds, with one table at the end."""

from eqzoo.studies.plan import Plan, make_plan
from eqzoo.studies.stages import Stage
from eqzoo.studies.study import Study, load_study

__all__ = ['Plan', 'Stage', 'Study', 'load_study', 'make_plan']
