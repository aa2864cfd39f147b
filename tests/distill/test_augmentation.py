import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedistill.data import ProxySet
from fedistill.data.schema import ColumnSchema, Kind
from fedistill.distill.augmentation import amount_columns, cutmix, jitter_amounts, mixup
from fedistill.errors import ConfigError

IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3, 12, 9)))
TARGETS = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 4)))


def test_mixup_averages_images_and_targets_with_the_same_share_and_partner():
    mixed = mixup(IMAGES, TARGETS, np.random.default_rng(2), alpha=1.0)
    assert sorted(mixed.partner.tolist()) == list(range(6))
    assert 0 < mixed.share < 1
    for row, other in enumerate(mixed.partner):
        for got, source in ((mixed.images, IMAGES), (mixed.targets, TARGETS)):
            expected = mixed.share * source[row] + (1 - mixed.share) * source[other]
            torch.testing.assert_close(got[row], expected)


@pytest.mark.statistical
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_follow_the_beta_law_and_no_other(alpha):
    # Kolmogorov-Smirnov on 4,000 shares, false-alarm rate 1e-6; with the seed the result is fixed.
    random = np.random.default_rng(3)
    one, label = torch.zeros(1, 1), torch.zeros(1, 1)
    shares = [mixup(one, label, random, alpha=alpha).share for _ in range(4000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-6
    assert stats.kstest(shares, stats.beta(1.5 * alpha, 1.5 * alpha).cdf).pvalue < 1e-6


@settings(deadline=None)
@given(st.integers(0, 2000))
def test_each_pixel_of_cutmix_is_its_own_or_its_partners_in_one_rectangle(seed):
    mixed = cutmix(IMAGES, TARGETS, np.random.default_rng(seed))
    partner = IMAGES[mixed.partner]
    taken = ((mixed.images == partner) & (partner != IMAGES)).any(dim=1)
    kept = (mixed.images == IMAGES).all(dim=1)
    assert (taken | kept).all()
    different = mixed.partner != torch.arange(6)
    if not different.any():
        return
    places = taken[different]
    assert (places == places[0]).all()
    assert 1 - places[0].double().mean() == pytest.approx(mixed.share)
    rows, columns = places[0].any(dim=1), places[0].any(dim=0)
    assert torch.equal(places[0], rows[:, None] & columns[None, :])


def test_targets_of_cutmix_are_mixed_by_the_share_that_was_kept():
    mixed = cutmix(IMAGES, TARGETS, np.random.default_rng(4))
    expected = mixed.share * TARGETS + (1 - mixed.share) * TARGETS[mixed.partner]
    torch.testing.assert_close(mixed.targets, expected)
    assert 0 < mixed.share < 1


def test_cutmix_leaves_its_arguments_alone():
    images, targets = IMAGES.clone(), TARGETS.clone()
    cutmix(images, targets, np.random.default_rng(4))
    assert torch.equal(images, IMAGES)
    assert torch.equal(targets, TARGETS)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixing_noised_targets_is_linear_in_them(mix):
    noise = torch.from_numpy(np.random.default_rng(5).normal(size=(6, 4)))
    got = [mix(IMAGES, TARGETS + n, np.random.default_rng(6)).targets for n in (noise, -noise, 0)]
    torch.testing.assert_close((got[0] + got[1]) / 2, got[2])


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_out_of_bounds_is_refused(mix, alpha):
    with pytest.raises(ConfigError, match=f"alpha={alpha} must be above 0"):
        mix(IMAGES, TARGETS, np.random.default_rng(0), alpha=alpha)


def test_amounts_are_numbers_with_more_than_two_values():
    kinds = [Kind.NUMBER, Kind.NUMBER, Kind.CATEGORY, Kind.BOOLEAN, Kind.DATE, Kind.NUMBER]
    schema = tuple(
        ColumnSchema(name=f"x{j}", kind=kind, categories=("a", "b", "c") * (kind == Kind.CATEGORY))
        for j, kind in enumerate(kinds)
    )
    rows = np.array(
        [[1.5, 0, 0, 0, 9, 4], [2.5, 1, 1, 1, 8, 4], [3.5, np.nan, 2, 0, 7, np.nan]], np.float32
    )
    assert amount_columns(ProxySet(schema=schema, rows=rows)) == (0,)


@settings(deadline=None)
@given(by=st.floats(0, 0.9), seed=st.integers(0, 100))
def test_amounts_move_by_at_most_the_share_and_nothing_else_moves(by, seed):
    rows = np.random.default_rng(9).normal(size=(40, 4)).astype(np.float32)
    rows[::5, 1] = np.nan
    rows[::7, 2] = 0
    before = rows.copy()
    copies = jitter_amounts(rows, (1, 2), np.random.default_rng(seed), by=by)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(copies[:, [0, 3]], rows[:, [0, 3]])
    np.testing.assert_array_equal(np.isnan(copies), np.isnan(rows))
    known = ~np.isnan(rows)
    assert (np.abs(copies - rows)[known] <= by * np.abs(rows)[known] * (1 + 1e-5) + 1e-6).all()


@pytest.mark.statistical
def test_factors_are_uniform_within_five_percent():
    # Kolmogorov-Smirnov, false-alarm rate 1e-6; a share of 4.5% instead is seen.
    rows = np.ones((4000, 1), np.float32)
    factors = jitter_amounts(rows, (0,), np.random.default_rng(1))[:, 0].astype(float)
    assert stats.kstest(factors, stats.uniform(0.95, 0.1).cdf).pvalue > 1e-6
    assert stats.kstest(factors, stats.uniform(0.955, 0.09).cdf).pvalue < 1e-6


@pytest.mark.parametrize("by", [-0.1, 1.0])
def test_a_share_out_of_bounds_is_refused(by):
    with pytest.raises(ConfigError, match=f"by={by} must be at least 0 and below 1"):
        jitter_amounts(np.ones((2, 1), np.float32), (0,), np.random.default_rng(0), by=by)
