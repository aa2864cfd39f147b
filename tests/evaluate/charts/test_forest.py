import itertools

import pytest

from fedistill.evaluate.charts.axis import MOST_ROWS
from fedistill.evaluate.charts.joining import forest_plot
from fedistill.evaluate.metrics import Difference


@pytest.fixture
def comparisons(five_sites):
    return {name: site.everyone for name, site in five_sites.sites.items()}


@pytest.mark.parametrize("narrow", [False, True])
def test_intervals_lie_inside_the_plot_and_zero_between_losers_and_gainers(comparisons, narrow):
    plot = forest_plot(comparisons, name="everyone", narrow=narrow)
    assert [row.label for row in plot.rows][:2] == ["STMW", "SVHC"]
    for row in plot.rows:
        for gain in row.gains:
            assert plot.left <= gain.low < gain.x < gain.high <= plot.right
            assert plot.top < gain.y < plot.bottom < plot.height
            assert (gain.low > plot.zero or gain.high < plot.zero) == gain.clear
    heights = [gain.y for row in plot.rows for gain in row.gains]
    assert heights == sorted(heights)
    assert min(b - a for a, b in itertools.pairwise(heights)) > 12


def test_interval_reaches_1_96_standard_errors(comparisons):
    gain = Difference(value=0.1, standard_error=0.05)
    one = {"a": comparisons["STMW"].model_copy(update={"gain": gain, "gain_private": gain})}
    plot = forest_plot(one, name="everyone", narrow=False)
    drawn = plot.rows[0].gains[0]
    length = (plot.right - plot.left) / (plot.axis.high - plot.axis.low)
    assert drawn.high - drawn.x == pytest.approx(1.959964 * 0.05 * length)
    assert drawn.clear


def test_difference_without_error_is_a_mark_and_an_undefined_one_nothing(comparisons):
    bare = {
        "gain": Difference(value=0.1, standard_error=None),
        "gain_private": Difference(value=None, standard_error=None),
    }
    plot = forest_plot(
        {"a": comparisons["STMW"].model_copy(update=bare)}, name="everyone", narrow=False
    )
    plain, private = plot.rows[0].gains
    assert plain.x is not None
    assert plain.low is None
    assert not plain.clear
    assert private.x is None
    assert private.value == "n/a"


def test_nothing_is_drawn_where_nothing_is_defined(comparisons):
    none = dict.fromkeys(("gain", "gain_private"), Difference(value=None, standard_error=None))
    bare = {"a": comparisons["STMW"].model_copy(update=none)}
    assert forest_plot(bare, name="everyone", narrow=False) is None
    assert forest_plot({}, name="everyone", narrow=False) is None


def test_hundreds_of_sites_are_cut_and_counted(comparisons):
    many = {f"site_{place}": comparisons["STMW"] for place in range(300)}
    plot = forest_plot(many, name="everyone", narrow=True)
    assert len(plot.rows) == MOST_ROWS
    assert plot.omitted == 300 - MOST_ROWS
