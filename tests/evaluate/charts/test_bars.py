import pytest

from fedistill.evaluate.charts.axis import MOST_ROWS
from fedistill.evaluate.charts.bars import budget_chart, stage_charts


def test_budget_bars_share_one_scale(summary):
    bars = {bar.label: bar for bar in budget_chart(summary).bars}
    kinds = {kind: length for kind, _, length in bars["bank_c"].segments}
    assert sum(kinds.values()) == pytest.approx(100)
    assert kinds["earlier"] == pytest.approx(25)
    assert kinds["this-run"] == pytest.approx(50, abs=0.02)
    assert sum(length for _, _, length in bars["bank_a"].segments) == pytest.approx(50)
    assert "earlier" not in {kind for kind, _, _ in bars["bank_a"].segments}


def test_stage_bars_start_at_zero_and_the_shipped_one_stands_out(summary):
    size = stage_charts(summary)[0]
    assert [bar.emphasis for bar in size.bars] == [False, False, False, True]
    assert size.bars[0].segments == (("bar", 0.0, 100.0),)
    assert size.bars[3].segments[0][2] == pytest.approx(100 * 18_944 / 113_402)


def test_hundreds_of_sites_are_cut_in_charts_and_the_note_says_so(summary):
    site = next(iter(summary.privacy.sites.values()))
    privacy = summary.privacy.model_copy(update={"sites": {f"site_{i}": site for i in range(300)}})
    chart = budget_chart(summary.model_copy(update={"privacy": privacy}))
    assert len(chart.bars) == MOST_ROWS
    assert "300" in chart.note
