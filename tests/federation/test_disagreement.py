"""What the coordinator reads of sites that disagree."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedistill.distill.outliers import Outliers
from fedistill.federation.disagreement import disagreements


def told(scores, excess, weights: str) -> list[str]:
    outliers = Outliers(scores=np.array(scores), excess=np.array(excess))
    return disagreements(SimpleNamespace(outliers=outliers), ("a", "b", "c"), weights)


def test_the_farthest_site_comes_first_and_near_ones_are_not_named() -> None:
    lines = told([6.2, 180.4, 4.9], [0.0, 9.0, 0.0], "agreement")
    assert [line.split(":")[0] for line in lines] == [
        "b disagrees with the other sites by 180 standard deviations",
        "a disagrees with the other sites by 6 standard deviations",
    ]
    assert "its weight is lowered" in lines[0]
    assert "unlike class shares can be the reason, so its weight is not lowered" in lines[1]
    assert all(line.endswith("ask its owner whether its labels are right") for line in lines)


@pytest.mark.parametrize("weights", ["median", "trimmed"])
def test_a_bound_is_named_where_there_is_one(weights: str) -> None:
    (line,) = told([0.0, 50.0, 0.0], [0.0, 9.0, 0.0], weights)
    assert f"ensemble-weights={weights!r} bounds what it can do" in line


def test_who_agrees_is_not_named() -> None:
    assert told([-2.0, 0.0, 4.0], [0.0] * 3, "agreement") == []
