"""`python -m benchmarks.secagg`: what it measures and prints."""

import re
import sys

import pytest

from benchmarks import secagg


def test_it_prints_both_ways_their_ratio_and_the_claims(monkeypatch, capsys) -> None:
    options = ["--sites", "3", "--length", "1000", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["secagg", *options])
    secagg.main()
    printed = capsys.readouterr().out
    for what in ("a site masks its vector", "the server opens the sum"):
        assert re.search(rf"^{what} +[\d.]+ +[\d.]+ +[\d.]+$", printed, re.M)
    assert len(re.findall(r"; the claim of less than [\d.]+ (?:holds|does not hold)", printed)) == 3
    assert "Mersenne" in printed
    assert "no signature" in printed


def test_ratios_are_those_of_the_figures() -> None:
    figures = secagg.Figures(
        aes=1.0,
        site=4.0,
        server=1.0,
        flower_site=8.0,
        flower_server=3.0,
        bytes_up=420,
        length=100,
    )
    assert figures.over_aes == 4.0
    assert figures.expansion == 1.05


def test_bytes_up_are_those_of_all_messages_of_a_site() -> None:
    done = secagg.run_round(4, 10)
    vector, keys, signature = 36 + 96 + 40, 36 + 160, 36 + 64
    assert done.bytes_up == keys + (36 + 3 * 94) + vector + signature + (36 + 4 * 35)


@pytest.mark.parametrize("option", ["--sites=2", "--length=0", "--repeats=0"])
def test_options_out_of_bounds_are_refused(monkeypatch, capsys, option: str) -> None:
    monkeypatch.setattr(sys, "argv", ["secagg", option])
    with pytest.raises(SystemExit):
        secagg.main()
    assert "must be at least" in capsys.readouterr().err
