"""The latent-space laboratory: what autoencoders do to photographs, on one page."""

from eqzoo.laboratory.colours import SharedBasis, align, share_bases
from eqzoo.laboratory.examination import Cases, Examination, Model, choose_cases, examine, open_models
from eqzoo.laboratory.page import Findings, write_laboratory
from eqzoo.laboratory.photographs import Photographs, Squares, crop_all, read_photographs

__all__ = [
    'Cases',
    'Examination',
    'Findings',
    'Model',
    'Photographs',
    'SharedBasis',
    'Squares',
    'align',
    'choose_cases',
    'crop_all',
    'examine',
    'open_models',
    'read_photographs',
    'share_bases',
    'write_laboratory',
]
