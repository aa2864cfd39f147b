"""Figures of noised tables, and whether their standard errors are true."""

import numpy as np
import pytest

from fedistill.evaluate.federated import federated_scores

CLASSES = ("no", "yes")


def scored(confusion, scores, *, std: float = 0.0, classes=CLASSES):
    confusion = np.array(confusion, float)
    return federated_scores(
        confusion,
        np.array(scores, float),
        confusion_std=np.full_like(confusion, std),
        score_std=std,
        classes=classes,
        sites=["a", "b"],
    )


def test_counts_become_shares() -> None:
    found = scored([[80, 20], [10, 40]], [[[80, 20], [10, 40]]])
    assert found.accuracy == pytest.approx(120 / 150)
    assert found.classes["no"].recall == pytest.approx(0.8)
    assert found.classes["yes"].recall == pytest.approx(0.8)
    assert found.auc == pytest.approx(0.8)
    assert found.units == 150
    assert found.sites == ("a", "b")


def test_without_noise_the_error_of_a_share_is_the_binomial_one() -> None:
    found = scored([[80, 20], [10, 40]], [[[80, 20], [10, 40]]])
    expected = np.sqrt(0.8 * 0.2 / 150)
    assert found.accuracy_standard_error == pytest.approx(expected)


def test_without_noise_the_error_of_the_area_is_delong_s() -> None:
    from fedistill.evaluate.metrics import auc_standard_error

    random = np.random.default_rng(0)
    labels = (random.random(2_000) < 0.3).astype(int)
    bins = np.clip(random.normal(2 + labels, 1.5, 2_000).round(), 0, 5).astype(int)
    counts = np.array([np.bincount(bins[labels == side], minlength=6) for side in (0, 1)])
    found = scored([[1_000, 0], [0, 1_000]], [counts])
    shares = np.stack([1 - bins / 5, bins / 5], 1)
    assert found.auc_standard_error == pytest.approx(auc_standard_error(shares, labels), rel=0.01)


def noisy_figures(std: float, times: int = 2_000) -> np.ndarray:
    """AUC, its error, accuracy and its error, of samples drawn and noised again and again."""
    random = np.random.default_rng(1)
    rates = np.array([[300, 220, 150, 80, 40, 20], [30, 40, 60, 80, 90, 100]], float)
    rows = []
    for _ in range(times):
        noised = random.poisson(rates) + random.normal(0, std, rates.shape)
        confusion = np.stack([noised[:, :3].sum(axis=1), noised[:, 3:].sum(axis=1)], 1)
        found = federated_scores(
            confusion,
            noised[None],
            confusion_std=np.full((2, 2), std * np.sqrt(3)),
            score_std=std,
            classes=CLASSES,
            sites=[],
        )
        rows.append(
            [found.auc, found.auc_standard_error, found.accuracy, found.accuracy_standard_error]
        )
    return np.array(rows, float)


@pytest.mark.parametrize("std", [0.0, 10.0, 30.0])
def test_stated_errors_are_those_of_samples_and_noise_together(std: float) -> None:
    """2,000 seeded repetitions know a spread to 1.6%; the delta method is good to some percent."""
    found = noisy_figures(std)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.12)
    assert found[:, 3].mean() == pytest.approx(found[:, 2].std(), rel=0.12)


def test_an_error_without_its_noise_would_be_far_off() -> None:
    """The same figures, had the noise been left out of the error."""
    found, silent = noisy_figures(30.0), noisy_figures(0.0)
    assert silent[:, 1].mean() < 0.5 * found[:, 0].std()


def test_what_does_not_stand_out_of_its_noise_is_not_defined() -> None:
    found = scored([[900, 50], [3, 4]], [[[600, 350], [3, 4]]], std=30.0)
    assert found.accuracy is not None
    assert found.classes["no"].recall is not None
    assert found.classes["yes"].recall is None
    assert found.classes["yes"].recall_standard_error is None
    assert found.auc is None
    assert found.auc_standard_error is None


def test_a_site_of_no_rows_has_no_figure() -> None:
    found = scored(np.zeros((2, 2)), np.zeros((1, 2, 12)))
    assert (found.accuracy, found.auc, found.units) == (None, None, 0.0)


def test_figures_that_noise_took_too_far_are_drawn_back() -> None:
    found = scored([[100, -3], [-2, 100]], [[[100, -3], [-2, 100]]], std=2.0)
    assert found.accuracy == 1.0
    assert found.auc == 1.0


def test_beyond_two_classes_the_area_is_the_mean_over_curves_that_are_defined() -> None:
    curves = [[[80, 20], [10, 40]], [[50, 50], [25, 25]], [[0, 0], [9, 9]]]
    found = scored(np.diag([50.0, 50.0, 50.0]), curves, classes=("a", "b", "c"))
    assert found.auc == pytest.approx((0.8 + 0.5) / 2)
