"""Samplers: drawing latents or codes with a trained generator."""

from eqzoo.generators.samplers.base import Sampler
from eqzoo.generators.samplers.codes import CodeSampler, Confidence, Halton
from eqzoo.generators.samplers.ode import ODE, ShiftedODE
from eqzoo.generators.samplers.scheduled import DDIM, DDPM, DPMSolver
from eqzoo.generators.samplers.sde import SDE

__all__ = ['DDIM', 'DDPM', 'ODE', 'SDE', 'CodeSampler', 'Confidence', 'DPMSolver', 'Halton', 'Sampler', 'ShiftedODE']
