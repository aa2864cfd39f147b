import pytest

from fedistill.evaluate.charts.scores import auc_plot
from fedistill.evaluate.metrics import Scores


@pytest.mark.parametrize("narrow", [False, True])
def test_dots_and_error_bars_lie_inside_the_axis(summary, narrow):
    plot = auc_plot(summary, narrow=narrow)
    assert [dot.kind for dot in plot.dots] == [*["teacher"] * 3, "ensemble", "float", "shipped"]
    for dot in (*plot.dots, plot.reference):
        assert plot.left <= dot.low < dot.x < dot.high <= plot.right
    first, last = plot.dots[0], plot.dots[-1]
    assert first.x < last.x < plot.reference.x
    assert last.y < plot.bottom < plot.height


def test_dot_of_an_undefined_auc_is_not_drawn(summary):
    none = Scores(auc=None, accuracy=0.5, log_loss=0.7, ece=0.1)
    metrics = summary.metrics.model_copy(update={"student": none})
    plot = auc_plot(summary.model_copy(update={"metrics": metrics}), narrow=False)
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
    assert auc_plot(summary.model_copy(update={"metrics": metrics}), narrow=False) is None
