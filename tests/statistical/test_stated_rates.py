"""The page of rates states those that the tests use."""

import re
from pathlib import Path

import pytest

from tests.statistical import noise_law, test_mechanism_noise, test_neighbours

PAGE = (Path(__file__).parents[2] / "docs" / "statistical-tests.md").read_text()


@pytest.mark.parametrize("module", [noise_law, test_mechanism_noise, test_neighbours])
def test_the_false_alarm_rate_is_the_one_on_the_page(module) -> None:
    assert set(re.findall(r"\b1e-6\b", PAGE)) == {f"{module.FALSE_ALARM:.0e}".replace("-0", "-")}


def test_numbers_of_releases_and_powers_are_those_on_the_page() -> None:
    for text in (
        f"over {test_mechanism_noise.RELEASES} releases",
        f"over {test_mechanism_noise.MANY_RELEASES:,} releases",
        f"at epsilon {test_neighbours.EPSILON:g}, {test_neighbours.RUNS} a side",
        f"{test_neighbours.AUDIT_RUNS:,} releases a side",
        f"from {test_neighbours.TRAINING} further releases a side",
        f"keeps {test_neighbours.LEAST_OF_CODES:.0%} of the signal",
    ):
        assert text in PAGE
    assert {test_mechanism_noise.POWER, test_neighbours.POWER} == {0.999}
