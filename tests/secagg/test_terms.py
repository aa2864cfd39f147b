"""Terms that promise too little, or do not fit, are refused before anything is sent."""

import pytest

from fedistill import secagg
from fedistill.errors import TermsRefused
from tests.secagg.rounds import make_terms


@pytest.mark.parametrize(("num_sites", "colluding", "threshold"), [(3, 0, 1), (3, 1, 2), (5, 1, 3)])
def test_rule_16_a_threshold_that_allows_two_survivor_sets_is_refused(
    num_sites: int, colluding: int, threshold: int
) -> None:
    with pytest.raises(TermsRefused, match=f"threshold={threshold} must lie from .* 2t > n"):
        make_terms(num_sites, colluding=colluding, threshold=threshold)


def test_rule_16_the_smallest_threshold_is_the_smallest_that_is_accepted() -> None:
    for num_sites in range(2, 12):
        for colluding in range(num_sites - 1):
            smallest = secagg.threshold_for(num_sites, colluding)
            assert 2 * smallest > num_sites + colluding >= 2 * (smallest - 1)
            assert smallest <= num_sites


@pytest.mark.parametrize(("num_sites", "colluding"), [(1, 0), (2, 1), (3, 2), (3, -1)])
def test_rule_16_colluders_that_leave_nobody_to_hide_among_are_refused(
    num_sites: int, colluding: int
) -> None:
    with pytest.raises(TermsRefused, match="must"):
        secagg.threshold_for(num_sites, colluding)


@pytest.mark.parametrize("min_honest", [1, 4])
def test_rule_16_too_few_or_impossibly_many_honest_sites_are_refused(min_honest: int) -> None:
    with pytest.raises(TermsRefused, match=f"min_honest={min_honest} must lie from 2 to 3"):
        make_terms(3, min_honest=min_honest)


def test_a_sum_that_would_wrap_around_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TermsRefused, match=r"bound=715827883 times 3 sites must be below 2147"):
        make_terms(3, bound=715_827_883)
    assert make_terms(3, bound=715_827_882).bound == 715_827_882


@pytest.mark.parametrize(
    "changes",
    [
        {"run": ""},
        {"round": -1},
        {"config_sha256": "a"},
        {"proxy_sha256": "B" * 64},
        {"length": 0},
        {"bound": 0},
        {"grid": 0.0},
        {"grid": float("nan")},
        {"identities": ()},
        {"identities": (("b", b"1" * 32), ("a", b"2" * 32), ("c", b"3" * 32))},
        {"identities": (("a", b"1" * 32), ("a", b"2" * 32), ("c", b"3" * 32))},
        {"identities": (("a", b"1" * 32), ("b", b"1" * 32), ("c", b"3" * 32))},
        {"identities": (("a", b"1" * 31), ("b", b"2" * 32), ("c", b"3" * 32))},
    ],
)
def test_terms_out_of_bounds_are_refused_and_name_the_field(changes) -> None:
    field = next(iter(changes))
    with pytest.raises(TermsRefused, match="num_sites" if changes[field] == () else field):
        make_terms(3, **changes)
