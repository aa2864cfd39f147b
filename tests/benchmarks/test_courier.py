"""`python -m benchmarks.courier`: what it measures and prints."""

import re
import sys

import pytest

from benchmarks import courier


def test_it_prints_both_the_difference_and_the_claim(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["courier", "--pairs", "1"])
    courier.main()
    printed = capsys.readouterr().out
    for what in ("bare ClientApp", "our courier"):
        assert re.search(rf"^{what} +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.M)
    assert re.search(r"; the claim of at most 0\.1 s (?:holds|does not hold)", printed)
    assert "imports no torch" in printed


def test_what_is_added_is_the_median_of_pairs_and_not_of_one_slow_moment() -> None:
    found = courier.Starts(bare=(1.0, 1.0, 9.0), ours=(1.25, 1.5, 9.25), imports_torch=False)
    assert found.added == 0.25
    assert found.ratio == 1.5


def test_fewer_than_one_pair_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["courier", "--pairs=0"])
    with pytest.raises(SystemExit):
        courier.main()
    assert "must be at least" in capsys.readouterr().err
