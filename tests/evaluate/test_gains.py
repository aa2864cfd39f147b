import pytest

from fedistill.evaluate import gains
from fedistill.evaluate.metrics import Difference


def _gain(value, error=0.01):
    return Difference(value=value, standard_error=error)


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.0197, 0.01, "gains"),
        (0.0195, 0.01, "within error"),
        (-0.0195, 0.01, "within error"),
        (-0.0197, 0.01, "loses"),
        (0.0, 0.0, "within error"),
        (0.3, None, "not defined"),
        (None, None, "not defined"),
    ],
)
def test_gain_counts_beyond_1_96_standard_errors(value, error, verdict):
    assert gains.verdict(_gain(value, error)) == verdict


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.0121, 0.0044, "+0.012 ± 0.004"),
        (-0.0121, 0.0044, "\N{MINUS SIGN}0.012 ± 0.004"),
        (-0.0001, 0.0044, "+0.000 ± 0.004"),
        (0.5, None, "+0.500"),
        (None, None, "n/a"),
    ],
)
def test_gain_is_shown_with_its_sign_and_error(value, error, shown):
    assert gains.with_error(_gain(value, error)) == shown


def _compared(five_sites, **values):
    some = next(iter(five_sites.sites.values())).everyone
    return {
        site: some.model_copy(update={"gain": _gain(value), "gain_private": _gain(0.2)})
        for site, value in values.items()
    }


def test_sentences_say_who_gains_who_loses_and_for_whom_it_cannot_be_told(five_sites):
    without, within = gains.sentences(_compared(five_sites, a=0.1, b=0.2, c=-0.1, d=0.0, e=None))
    assert without == (
        "Against a site's own best model without differential privacy, the shared student is "
        "better at two of five sites (a, b), is worse at one (c), differs by less than the error "
        "at one (d) and cannot be compared at one (e)."
    )
    assert within.endswith(
        "with differential privacy, the shared student is better at all five sites."
    )


def test_one_site_is_named_and_many_are_cut(five_sites):
    assert gains.sentences(_compared(five_sites, only=0.1))[0].endswith("is better at only.")
    many = {f"s{place}": 0.1 for place in range(40)} | {"last": -0.1}
    sentence = gains.sentences(_compared(five_sites, **many))[0]
    assert (
        "40 of 41 sites (s0, s1, s2, s3, s4, s5, s6, s7, 32 more) and is worse at one (last)."
        in (sentence)
    )


def test_nobody_gives_no_sentence():
    assert gains.sentences({}) == ()
