"""A comparison as a self-contained HTML page."""

from pathlib import Path

from eqzoo.report.charts import draw_chart
from eqzoo.report.comparison import Comparison
from eqzoo.report.pages import write_page


def write_comparison_page(path: str | Path, comparison: Comparison) -> None:
    """Write a comparison's table, footnotes and curves, and what was measured, as one page."""
    values = dict(
        title='Comparison: ' + ', '.join(comparison.runs),
        comparison=comparison,
        charts=[draw_chart(curve, number) for number, curve in enumerate(comparison.curves)],
    )
    write_page(path, 'comparison.html', values)
