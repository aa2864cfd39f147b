"""The tables of docs/secure-aggregation.md are what the code computes."""

import re
from pathlib import Path

import pytest

from fedistill.errors import TermsRefused
from fedistill.secagg import ring_sizes, threshold_for
from tests.secagg import test_spying
from tests.secagg.rounds import make_terms

DOCS = Path(__file__).parents[2] / "docs"


def table(heading: str) -> list[tuple[int, list[str]]]:
    section = (DOCS / "secure-aggregation.md").read_text().split(f"## {heading}\n")[1]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section.split("\n## ")[0], re.M)
    assert len(rows) > 3
    return [(int(first), rest.split(" | ")) for first, rest in rows]


@pytest.mark.parametrize(("num_sites", "cells"), table("How many sites may drop out"))
def test_thresholds_and_dropouts(num_sites: int, cells: list[str]) -> None:
    for colluding, cell in enumerate(cells):
        if cell == "refused":
            with pytest.raises(TermsRefused):
                threshold_for(num_sites, colluding)
            continue
        terms = make_terms(num_sites, colluding=colluding)
        left = num_sites - terms.survivors_at_least
        assert cell == f"t = {terms.threshold}, {left} may drop out"


@pytest.mark.parametrize(("num_sites", "cells"), table("Above 50 sites"))
def test_sizes_of_rings(num_sites: int, cells: list[str]) -> None:
    for colluding, cell in zip((0, num_sites // 20, num_sites // 10), cells, strict=True):
        assert "k = {}, t_k = {}".format(*ring_sizes(num_sites, colluding)) == cell


def test_rates_of_the_spying_server() -> None:
    (row,) = re.findall(r".*spying server's.*", (DOCS / "statistical-tests.md").read_text())
    assert f"{test_spying.FALSE_ALARM:.0e}".replace("-0", "-") in row
    assert f"at least {test_spying.POWER:.1%}" in row
