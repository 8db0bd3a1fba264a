"""`tools/compare.py`: results of several tests side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eqzoo.report import ResultComparison


def compare(
    results: list[str], *, out: str = 'work_dirs/comparison', allow_unlike: bool = False, cases: bool = False
) -> 'ResultComparison':
    """Compare test results side by side; write comparison.md, comparison.csv and comparison.html.

    If the cards of a metric differ, its values were measured in different ways, and the command stops.

    Args:
        results: The metrics.json of each test, or its folder.
        out: The folder to write to.
        allow_unlike: Instead of stopping, mark values that were measured in different ways with footnotes.
        cases: Also show single cases, such as one angle.
    """
    from eqzoo.engine.work_dir import REPORT_LOCK, own_folder
    from eqzoo.files import replacing
    from eqzoo.report import (
        compare_results,
        read_result,
        run_names,
        to_csv,
        to_markdown,
        to_text,
        write_comparison_page,
    )
    from eqzoo.text import printable

    read = [read_result(each) for each in results]
    named = dict(zip(run_names([each.path for each in read]), read, strict=True))
    comparison = compare_results(named, allow_unlike=allow_unlike, with_cases=cases)
    folder = Path(out)
    with own_folder(folder, '--out', REPORT_LOCK):
        for name, text in (('comparison.md', to_markdown(comparison)), ('comparison.csv', to_csv(comparison))):
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding='utf-8', errors='backslashreplace')
        write_comparison_page(folder / 'comparison.html', comparison)
    print(printable(to_text(comparison), lines=True))
    print(f'\nWritten: {folder}/comparison.md, comparison.csv and comparison.html')
    return comparison
