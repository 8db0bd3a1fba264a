"""Latent generators: networks, the processes that they learn, guidance and samplers."""

from eqzoo.generators.base import Generator
from eqzoo.generators.diffusion import DiT, GaussianDiffusion
from eqzoo.generators.guidance import AutoGuidance, ClassifierFree
from eqzoo.generators.halton_transformer import HaltonTransformer
from eqzoo.generators.interpolant import Interpolant, SiT
from eqzoo.generators.mask_transformer import MaskTransformer
from eqzoo.generators.maskgit import MaskGIT
from eqzoo.generators.repa import REPA, AlignedTransformer
from eqzoo.generators.samplers import (
    DDIM,
    DDPM,
    ODE,
    SDE,
    CodeSampler,
    Confidence,
    DPMSolver,
    Halton,
    Sampler,
    ShiftedODE,
)
from eqzoo.generators.transformer import DiffusionTransformer

__all__ = [
    'DDIM',
    'DDPM',
    'ODE',
    'REPA',
    'SDE',
    'AlignedTransformer',
    'AutoGuidance',
    'ClassifierFree',
    'CodeSampler',
    'Confidence',
    'DPMSolver',
    'DiT',
    'DiffusionTransformer',
    'GaussianDiffusion',
    'Generator',
    'Halton',
    'HaltonTransformer',
    'Interpolant',
    'MaskGIT',
    'MaskTransformer',
    'Sampler',
    'ShiftedODE',
    'SiT',
]
