"""The latent-space laboratory: what autoencoders do to photographs, on one page."""

from eqzoo.laboratory.cases import Cases, choose_cases
from eqzoo.laboratory.colours import SharedBasis, align, share_bases
from eqzoo.laboratory.examination import Examination, examine
from eqzoo.laboratory.findings import Findings
from eqzoo.laboratory.models import Model, open_models
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
    'align',
    'choose_cases',
    'crop_all',
    'examine',
    'open_models',
    'read_photographs',
    'share_bases',
    'write_laboratory',
]
