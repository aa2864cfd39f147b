import math
from datetime import UTC, datetime

import pytest

from fedistill.evaluate import wording
from fedistill.evaluate.calibration import CalibrationBin
from fedistill.evaluate.summary import PersonPrivacy, Views


@pytest.mark.parametrize(
    ("epsilon", "shown"),
    [(1.0, "1.000"), (1 + 2e-16, "1.000"), (0.99951, "1.000"), (1.0001, "1.001"), (None, "n/a")],
)
def test_spent_epsilon_is_never_shown_smaller_than_it_is(epsilon, shown):
    assert wording.spent(epsilon) == shown


@pytest.mark.parametrize(
    ("epsilon", "shown"), [(0.0, "0.000"), (0.9999, "0.999"), (0.5, "0.500"), (None, "n/a")]
)
def test_remaining_epsilon_is_never_shown_larger_than_it_is(epsilon, shown):
    assert wording.left(epsilon) == shown


@pytest.mark.parametrize(("value", "shown"), [(1e-5, "1e-5"), (2.5e-6, "2.5e-6"), (1e-3, "1e-3")])
def test_delta_is_short(value, shown):
    assert wording.power(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(812, "812 bytes"), (12_126, "12.1 KB"), (999_960, "1.0 MB"), (3_400_000, "3.4 MB")],
)
def test_sizes_are_decimal(count, shown):
    assert wording.size(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0421, "0.0421 ms"), (1.238, "1.24 ms"), (123.4, "123 ms"), (0.0, "0.000 ms")],
)
def test_milliseconds_have_three_digits(value, shown):
    assert wording.milliseconds(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.42, "0.4 s"), (42, "42 s"), (112, "1 min 52 s")])
def test_seconds_read_as_one_says_them(value, shown):
    assert wording.seconds(value) == shown


def test_guarantee_names_adjacency_unit_delta_and_assumptions(summary):
    sentence = wording.guarantee_sentence(summary.privacy.sites)
    for part in (
        "Adding or removing any one record",
        f"{math.exp(1.4998):.2f}",
        "(1.5, 1e-5)-differential privacy",
        "add-remove adjacency",
        "everyone, the server and the other sites included",
        "assuming",
    ):
        assert part in sentence
    assert sentence.count(". ") == 0


def test_guarantee_tells_the_two_views_apart(summary):
    site = next(iter(summary.privacy.sites.values()))
    shared = site.model_copy(update={"views": Views(everyone=3.0, server=1.0)})
    told = wording.guarantee_sentence({"a": shared}, honest=3)
    assert "at most e^1 = 2.72 times" in told
    assert "while at least 3 sites of every sum keep their part of its noise" in told
    assert "(if all others pool theirs: epsilon 3)" in told
    none = site.model_copy(update={"views": Views(everyone=math.inf, server=1.0)})
    assert "pool theirs: no finite bound" in wording.guarantee_sentence({"a": none}, honest=2)


def test_guarantee_of_a_huge_epsilon_has_no_factor_in_digits(summary):
    site = next(iter(summary.privacy.sites.values()))
    huge = site.model_copy(update={"views": Views(everyone=5000.0, server=5000.0)})
    assert "e^5000 times" in wording.guarantee_sentence({"a": huge})
    unbounded = site.model_copy(update={"views": Views(everyone=None, server=None)})
    assert "not bounded by a finite epsilon" in wording.guarantee_sentence({"a": unbounded})


def test_a_persons_total_is_told_under_both_assumptions(summary):
    assert wording.person_sentence(summary.privacy.person) == (
        "Assuming no person at two sites, a person's total is epsilon 1.5, the largest of a site; "
        "for someone with a record at every site it is epsilon 2.042, all sites' charges composed "
        "(delta 1e-5)."
    )
    unknown = PersonPrivacy(one_site=1.5, every_site=None, delta=1e-5)
    assert "at every site it is no known bound" in wording.person_sentence(unknown)


def test_headline_is_one_sentence_with_result_and_price(summary, one_site_left_out):
    assert wording.headline(summary) == (
        "Three sites taught one 18.9 KB model that scores AUC 0.762 ± 0.009 on public test rows, "
        "for epsilon 1 each."
    )
    assert wording.headline(one_site_left_out).startswith("Two sites taught")


def test_calibration_is_told_by_bins_inside_above_and_below():
    def one(predicted):
        return CalibrationBin(predicted=predicted, observed=0.5, low=0.4, high=0.6, rows=9)

    assert wording.calibration_sentence([one(0.45), one(0.7), one(0.3), one(0.2)]) == (
        "Of four bins, the mean prediction lies inside the 95% interval of what was observed in "
        "one, above it in one and below it in two."
    )
    assert wording.calibration_sentence([one(0.7)]).endswith(
        "observed in none and above it in one."
    )


def test_time_is_told_with_its_zone():
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert wording.day_and_time(moment) == "4 March 2026 at 05:06:07 UTC"


def test_noise_is_named_with_the_sites_that_made_it(summary) -> None:
    sites = dict(summary.privacy.sites)
    assert wording.noise_sentence(sites).endswith("no floating-point noise")
    assert "floating" not in wording.guarantee_sentence(sites)
    first, *others = sites
    mixed = sites | {first: sites[first].model_copy(update={"float_noise": True})}
    assert wording.float_sites(mixed) == (first,)
    assert wording.noise_sentence(mixed).startswith(f"floating-point Gaussian at {first}; exact")
    assert f"for {first}, that floating-point noise hides" in wording.guarantee_sentence(mixed)
    all_of_them = {
        name: site.model_copy(update={"float_noise": True}) for name, site in sites.items()
    }
    assert "exact" not in wording.noise_sentence(all_of_them)
    assert all(name in wording.noise_sentence(all_of_them) for name in others)
