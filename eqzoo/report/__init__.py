"""Reports: a page for one test, tables that compare several."""

from eqzoo.report.comparison import (
    ResultComparison,
    compare_results,
    to_csv,
    to_markdown,
    to_text,
    write_comparison_page,
)
from eqzoo.report.page import write_report
from eqzoo.report.results import Result, read_result, run_names

__all__ = [
    'Result',
    'ResultComparison',
    'compare_results',
    'read_result',
    'run_names',
    'to_csv',
    'to_markdown',
    'to_text',
    'write_comparison_page',
    'write_report',
]
