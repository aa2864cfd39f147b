import pytest

from fedistill.evaluate.calibration import CalibrationBin
from fedistill.evaluate.charts.reliability import reliability_plot


def test_points_lie_in_the_frame_and_what_was_observed_within_its_interval(five_sites):
    plot = reliability_plot(five_sites.metrics.student_calibration)
    assert len(plot.points) == 10
    for point in plot.points:
        assert plot.left <= point.x <= plot.right
        assert plot.top <= point.high <= point.y <= point.low <= plot.bottom


def test_a_perfect_bin_lies_on_the_diagonal():
    bins = [
        CalibrationBin(predicted=share, observed=share, low=share - 0.1, high=share + 0.1, rows=90)
        for share in (0.3, 0.6)
    ]
    plot = reliability_plot(bins)
    assert plot.right - plot.left == plot.bottom - plot.top
    for point in plot.points:
        assert point.x - plot.left == pytest.approx(plot.bottom - point.y)


def test_nothing_is_drawn_without_bins():
    assert reliability_plot(()) is None
