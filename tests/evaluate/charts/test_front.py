from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.evaluate.charts.front import front_plots, optimal
from fedistill.evaluate.report import write_fronts
from fedistill.evaluate.summary import Stage


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_every_point_is_optimal_or_beaten_by_an_optimal_one(points):
    costs, values = [float(cost) for cost, _ in points], [float(value) for _, value in points]
    best = optimal(costs, values)
    chosen = [point for point, is_best in zip(points, best, strict=True) if is_best]
    for point, is_best in zip(points, best, strict=True):
        beaten = any(
            cost <= point[0] and value >= point[1] and (cost, value) != point
            for cost, value in chosen
        )
        assert beaten != is_best


def test_stages_are_placed_by_cost_and_quality_and_the_front_joins_the_best(summary):
    size, latency = front_plots(summary)
    by_name = {point.label: point for point in size.points}
    assert by_name["float"].x > by_name["quantized"].x > by_name["pruned+quantized"].x
    assert by_name["float"].y < by_name["pruned"].y < by_name["pruned+quantized"].y
    assert [point.label for point in size.points if point.shipped] == ["pruned+quantized"]
    assert size.front == tuple(sorted((point.x, point.y) for point in size.points))
    assert [point.label for point in latency.points if not point.optimal] == [
        "quantized",
        "pruned+quantized",
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_points_lie_in_the_frame(summary, which):
    plot = front_plots(summary)[which]
    for point in plot.points:
        assert plot.left <= point.x <= plot.right
        assert plot.top <= point.y <= plot.bottom


def test_stage_without_a_metric_is_left_out_and_no_stage_draws_nothing(summary):
    bare = Stage(**(summary.compression[0].model_dump() | {"metric": None}))
    some = summary.model_copy(update={"compression": (bare, *summary.compression[1:])})
    assert [len(plot.points) for plot in front_plots(some)] == [3, 3]
    untimed = tuple(
        stage.model_copy(update={"latency_ms_batch_1": None}) for stage in summary.compression
    )
    assert len(front_plots(summary.model_copy(update={"compression": untimed}))) == 1
    assert front_plots(summary.model_copy(update={"compression": ()})) == ()


def test_the_image_of_the_fronts_is_well_formed_and_names_the_shipped_file(summary, tmp_path):
    write_fronts(summary, tmp_path / "pareto.svg")
    root = ElementTree.parse(tmp_path / "pareto.svg").getroot()  # noqa: S314, our own file
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "pruned+quantized" in texts
    assert {"Quality and file size", "Quality and latency"} <= set(texts)


def test_among_many_points_only_those_that_matter_are_named(summary):
    beaten = summary.compression[0].model_copy(
        update={"stage": "beaten", "bytes": 10**6, "latency_ms_batch_1": 9.0, "metric": 0.6}
    )
    many = summary.model_copy(update={"compression": (*summary.compression, *[beaten] * 5)})
    size = front_plots(many)[0]
    assert "beaten" not in {point.label for point in size.points}
    assert any(point.label == "pruned+quantized" and point.shipped for point in size.points)
    assert sum("beaten" in point.title for point in size.points) == 5
