"""Plots of a study: groups of panels, axes from 0, and a width at which text is readable on a page."""

import pytest

from eqzoo.studies.plots import plot_curves, plot_metrics
from eqzoo.studies.scores import Score
from eqzoo.studies.study import AutoencoderArm, GeneratorArm, Study


@pytest.fixture
def study():
    columns = dict(autoencoder=('psnr', 'eq_err/scale', 'eq_err/flip', 'lds', 'not_there'), generator=('fd',))
    arms = {name: AutoencoderArm(name, 'c.py') for name in ('plain', 'EQ', 'not run')}
    generators = {name: GeneratorArm(name, 'd.py', (0.5, 1.0)) for name in ('DiT', 'SiT', 'REPA')}
    return Study('s', 'S', '', arms, generators, columns, 'fd', '')


@pytest.fixture
def scores():
    found = []
    for number, name in enumerate(('plain', 'EQ')):
        for seed in range(2):
            values = {'psnr': 20.0 + number + seed, 'eq_err/scale': 0.4 - 0.1 * number, 'eq_err/flip': 0.1, 'lds': -0.2}
            found.append(Score(name, seed, None, None, values, {}))
            for generator in ('DiT', 'SiT', 'REPA'):
                found += [Score(name, seed, generator, step, {'fd': 900.0 - step}, {}) for step in (200, 400)]
    return found


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """A function (plot, …) → the figure that it would save."""
    drawn = []
    monkeypatch.setattr('eqzoo.studies.plots.save_svg', lambda figure, file: drawn.append(figure))

    def function(plot, *arguments):
        assert plot(*arguments, tmp_path / 'p.svg')
        return drawn.pop()

    return function


def test_panels_stand_in_groups(study, scores, figure):
    drawn = figure(plot_metrics, study, scores)
    groups = {part.get_suptitle(): [panel.get_title() for panel in part.axes] for part in drawn.subfigs}
    assert groups == {
        'Reconstruction': ['psnr ↑', '', ''],
        'Equivariance': ['error: scale ↓', 'error: flip ↓', ''],
        'Latents': ['lds ↑', '', ''],
        'Generators': ['fd ↓ of DiT', 'fd ↓ of SiT', 'fd ↓ of REPA'],
    }
    (names,) = {tuple(label.get_text() for label in part.axes[0].get_yticklabels()) for part in drawn.subfigs}
    assert names == ('plain', 'EQ')  # an autoencoder without any test has no line


def test_axes_begin_at_0_and_means_are_written(study, scores, figure):
    panels = {panel.get_title(): panel for panel in figure(plot_metrics, study, scores).axes}
    assert panels['psnr ↑'].get_xlim() == pytest.approx((0, 1.35 * (21.5 + 0.5**0.5)))
    assert [text.get_text() for text in panels['psnr ↑'].texts] == ['20.50', '21.50']
    low, high = panels['lds ↑'].get_xlim()  # below 0
    assert low < -0.2
    assert high >= 0
    for panel in figure(plot_curves, study, scores).axes[:3]:
        assert panel.get_xlim()[0] == 0
        assert [*panel.get_xticks()] == [0, 200, 400]


def test_pages_show_plots_in_their_own_size(study, scores, figure):
    """The column of a page of 1,280 pixels is 748 pixels wide; text of 10 points has 13 pixels there."""
    for plot in (plot_metrics, plot_curves):
        drawn = figure(plot, study, scores)
        assert drawn.get_size_inches()[0] * 96 <= 750
    sizes = {text.get_fontsize() for panel in drawn.axes for text in panel.get_xticklabels()}
    assert min(sizes) >= 9
