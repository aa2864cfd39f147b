import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.evaluate import charts
from fedistill.evaluate.metrics import Scores


@given(ends=st.tuples(st.floats(0, 1), st.floats(0, 1)), most=st.integers(4, 10))
def test_axis_holds_its_values_within_zero_and_one(ends, most):
    low, high = sorted(ends)
    axis = charts.axis_around(low, high, most_ticks=most)
    assert 0 <= axis.low <= low + 1e-9
    assert high - 1e-9 <= axis.high <= 1
    assert axis.high - axis.low >= 0.04 - 1e-9
    assert 2 <= len(axis.ticks) <= most + 1
    assert [float(axis.label(tick)) for tick in axis.ticks] == list(axis.ticks)


@pytest.mark.parametrize("narrow", [False, True])
def test_dots_and_error_bars_lie_inside_the_axis(summary, narrow):
    plot = charts.auc_plot(summary, narrow=narrow)
    assert [dot.kind for dot in plot.dots] == [*["teacher"] * 3, "ensemble", "float", "shipped"]
    for dot in (*plot.dots, plot.reference):
        assert plot.left <= dot.low < dot.x < dot.high <= plot.right
    first, last = plot.dots[0], plot.dots[-1]
    assert first.x < last.x < plot.reference.x
    assert last.y < plot.bottom < plot.height


def test_dot_of_an_undefined_auc_is_not_drawn(summary):
    none = Scores(auc=None, accuracy=0.5, log_loss=0.7, ece=0.1)
    metrics = summary.metrics.model_copy(update={"student": none})
    plot = charts.auc_plot(summary.model_copy(update={"metrics": metrics}), narrow=False)
    assert plot.dots[-1].x is None
    assert plot.dots[-1].value == "n/a"


def test_no_plot_without_any_auc(summary):
    none = Scores(auc=None, accuracy=0.5, log_loss=0.7, ece=0.1)
    metrics = summary.metrics.model_copy(
        update={
            "student": none,
            "student_fp32": none,
            "ensemble": none,
            "teachers": None,
            "central_reference": None,
        }
    )
    assert charts.auc_plot(summary.model_copy(update={"metrics": metrics}), narrow=False) is None


def test_budget_bars_share_one_scale(summary):
    bars = {bar.label: bar for bar in charts.budget_chart(summary).bars}
    kinds = {kind: length for kind, _, length in bars["bank_c"].segments}
    assert sum(kinds.values()) == pytest.approx(100)
    assert kinds["earlier"] == pytest.approx(25)
    assert kinds["this-run"] == pytest.approx(50, abs=0.02)
    assert sum(length for _, _, length in bars["bank_a"].segments) == pytest.approx(50)
    assert "earlier" not in {kind for kind, _, _ in bars["bank_a"].segments}


def test_stage_bars_start_at_zero_and_the_shipped_one_stands_out(summary):
    size = charts.stage_charts(summary)[0]
    assert [bar.emphasis for bar in size.bars] == [False, False, False, True]
    assert size.bars[0].segments == (("bar", 0.0, 100.0),)
    assert size.bars[3].segments[0][2] == pytest.approx(100 * 18_944 / 113_402)


def test_hundreds_of_sites_are_cut_in_charts_and_the_note_says_so(summary):
    site = next(iter(summary.privacy.sites.values()))
    privacy = summary.privacy.model_copy(update={"sites": {f"site_{i}": site for i in range(300)}})
    chart = charts.budget_chart(summary.model_copy(update={"privacy": privacy}))
    assert len(chart.bars) == charts.MOST_ROWS
    assert "300" in chart.note
