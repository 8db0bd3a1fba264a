"""The latent-space laboratory: autoencoders on a few photographs, measured and shown on one page."""

from eqzoo.laboratory.colours import SharedBasis, align_basis, share_bases
from eqzoo.laboratory.examination import Cases, Examination, Model, choose_cases, examine, open_models
from eqzoo.laboratory.findings import Findings
from eqzoo.laboratory.page import write_laboratory
from eqzoo.laboratory.photographs import Photographs, Squares, crop_all, read_photographs

__all__ = [
    'Cases',
    'Examination',
    'Findings',
    'Model',
    'Photographs',
    'SharedBasis',
    'Squares',
    'align_basis',
    'choose_cases',
    'crop_all',
    'examine',
    'open_models',
    'read_photographs',
    'share_bases',
    'write_laboratory',
]
