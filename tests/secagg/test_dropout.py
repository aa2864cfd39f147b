"""Sites drop out at any stage: the sum is exact, or nobody learns one."""

from itertools import combinations

import numpy as np
import pytest

from fedistill.errors import TooFewSurvivors
from tests.secagg.rounds import STAGES, make_terms, run, some_integers

IN_THE_SUM = ("agree", "unmask")
"""A site that is lost at one of these has sent its vector."""


def subsets(sites: tuple[str, ...]):
    return [chosen for size in range(len(sites) + 1) for chosen in combinations(sites, size)]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("num_sites", [3, 5, 7])
def test_every_subset_may_drop_out_at_every_stage(num_sites: int, stage: str) -> None:
    terms = make_terms(num_sites, length=2)
    integers = some_integers(terms)
    before = STAGES[STAGES.index(stage) - 1]
    start = None if stage == "keys" else run(terms, integers, until=before)
    for lost in subsets(tuple(integers)):
        dropped = dict.fromkeys(lost, stage)
        if num_sites - len(lost) < terms.threshold:
            with pytest.raises(TooFewSurvivors, match="nothing was learned"):
                run(terms, integers, dropped, start=start)
            continue
        counted = [integers[site] for site in integers if site not in lost or stage in IN_THE_SUM]
        total = run(terms, integers, dropped, start=start).total
        np.testing.assert_array_equal(total, sum(counted))


@pytest.mark.parametrize("num_sites", [50, 60])
def test_many_sites_drop_out_at_random_stages(num_sites: int) -> None:
    random = np.random.default_rng(num_sites)
    terms = make_terms(num_sites)
    integers = some_integers(terms)
    lost = random.choice(list(integers), 5, replace=False)
    dropped = dict(zip(lost, STAGES, strict=True))
    counted = [integers[s] for s in integers if dropped.get(s, "unmask") in IN_THE_SUM]
    np.testing.assert_array_equal(run(terms, integers, dropped).total, sum(counted))


def test_sums_at_the_ends_of_the_range_are_exact() -> None:
    terms = make_terms(3, bound=(2**31 - 1) // 3, length=2)
    integers = {
        name: np.array([terms.bound, -terms.bound], np.int64) for name, _ in terms.identities
    }
    np.testing.assert_array_equal(run(terms, integers).total, sum(integers.values()))
