"""Reports: one self-contained page for a test run, tables that compare several."""

from eqzoo.report.comparison import Comparison, compare_results, to_csv, to_markdown, to_text, write_comparison_page
from eqzoo.report.page import write_report
from eqzoo.report.results import Result, read_result, run_names

__all__ = [
    'Comparison',
    'Result',
    'compare_results',
    'read_result',
    'run_names',
    'to_csv',
    'to_markdown',
    'to_text',
    'write_comparison_page',
    'write_report',
]
