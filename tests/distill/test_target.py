"""The ensemble target: posterior means against independent formulas and against the truth."""

from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import NoOpDpEvent
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from fedistill.data import ProxySet, numbers
from fedistill.distill import target
from fedistill.distill.target import MODEL_ERROR, POWERS, build_ensemble
from fedistill.features import proxy_basis
from fedistill.labels import LabelRelease, LinearResponse, probabilities
from fedistill.privacy.grid import encode_log_odds


@pytest.fixture(scope="module")
def basis():
    rows = np.random.default_rng(0).normal(size=(4_000, 4)).astype(np.float32)
    return proxy_basis(ProxySet(schema=numbers(("a", "b", "c", "d")), rows=rows))


@pytest.fixture
def exact_law(monkeypatch):
    """The stated law is the true one here, so nothing is allowed for a wrong model."""
    monkeypatch.setattr(target, "MODEL_ERROR", 0.0)


def release_of(weights: np.ndarray, basis) -> LabelRelease:
    """A noised teacher with these weights (num_features, num_classes), as it is encoded."""
    codes, scale = encode_log_odds(basis.values @ (weights[:, 1:] - weights[:, :1]))
    return LabelRelease(
        codes=codes,
        scale=scale,
        mechanism="any",
        parameters={},
        proxy_sha256="ab" * 32,
        event=NoOpDpEvent(),
    )


def law(basis, *, gain=1.0, noise=0.0, sampling=0.0) -> LinearResponse:
    def spread(value):
        return np.broadcast_to(np.asarray(value, np.float64), basis.eigenvalues.shape)

    return LinearResponse(
        gain=spread(gain), noise_variance=spread(noise), sampling_variance=spread(sampling)
    )


def draw_truth(basis, *, num_classes=2, scale=3.0, seed=1) -> np.ndarray:
    """Weights whose rows sum to zero, of one prior variance in every direction."""
    random = np.random.default_rng(seed)
    along = random.normal(scale=scale, size=(len(basis.eigenvalues), num_classes))
    return basis.eigenvectors @ (along - along.mean(axis=1, keepdims=True))


def test_labels_of_the_target_are_those_of_its_weights(basis) -> None:
    ensemble = build_ensemble([release_of(draw_truth(basis), basis)], [law(basis)], basis)
    rows = np.random.default_rng(0).normal(size=(4_000, 4)).astype(np.float32)
    np.testing.assert_allclose(ensemble.label(rows), ensemble.target.log_odds, atol=1e-9)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_target_is_the_posterior_mean(basis, num_classes: int) -> None:
    """Oracle: power and prior by a scalar optimiser, then the textbook normal posterior."""
    gain, noise = np.linspace(0.2, 0.9, len(basis.eigenvalues)), 0.5
    truth = basis.eigenvectors.T @ draw_truth(basis, num_classes=num_classes, scale=2.0)
    random = np.random.default_rng(2)
    answer = gain[:, None] * truth + random.normal(scale=noise**0.5, size=truth.shape)
    answer -= answer.mean(axis=1, keepdims=True)
    release = release_of(basis.eigenvectors @ answer, basis)
    ensemble = build_ensemble([release], [law(basis, gain=gain, noise=noise)], basis)

    shares = probabilities(release.log_odds)
    curvature = (shares * (1 - shares)).sum() / (num_classes - 1) / len(shares)
    proxies = MODEL_ERROR * gain**2 / (len(shares) * curvature * basis.eigenvalues)
    relative = basis.eigenvalues / basis.eigenvalues.max()

    def surprise(log_prior: float, power: float, error: float) -> float:
        prior = np.exp(log_prior) * relative**power
        std = np.sqrt(gain**2 * prior + noise + error * proxies)[:, None]
        # num_classes coordinates that sum to zero count as num_classes - 1 independent ones.
        density = norm.logpdf(answer, scale=std) + np.log(std * np.sqrt(2 * np.pi))
        return float(-density.sum() + (num_classes - 1) * np.log(std).sum())

    def fitted(power: float, error: float):
        return minimize_scalar(surprise, args=(power, error), bounds=(-7, 14), method="bounded")

    errors = 2.0 ** np.arange(-3, 4)
    power = min(POWERS, key=lambda p: min(fitted(p, error).fun for error in errors))
    prior = np.exp(fitted(power, 1.0).x) * relative**power
    shrinkage = gain * prior / (gain**2 * prior + noise + proxies)
    expected = basis.eigenvectors @ (shrinkage[:, None] * answer)
    # The prior is fitted on a grid of steps of a quarter, and codes are rounded.
    got = ensemble.weights
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < 0.08


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_the_power_of_the_prior_is_found(basis, exact_law, power: float) -> None:
    """Truths that live where proxy rows vary are told from truths that live everywhere."""
    relative = basis.eigenvalues / basis.eigenvalues.max()
    along = np.random.default_rng(4).normal(size=(len(relative), 2)) * 3.0
    along *= relative[:, None] ** (power / 2)
    along -= along.mean(axis=1, keepdims=True)
    noise = np.full(len(relative), 1e-3)
    found = target._prior_variances(along, np.ones(len(relative)), noise, noise, basis.eigenvalues)
    small = relative < 0.9
    ratio = np.log(found[small] / found.max()) / np.log(relative[small])
    assert np.median(ratio) == pytest.approx(power, abs=0.01)


def test_without_noise_and_shrinkage_the_target_is_the_average(basis, exact_law) -> None:
    teachers = [draw_truth(basis, scale=2.0, seed=seed) for seed in range(3)]
    exact = law(basis)
    ensemble = build_ensemble([release_of(t, basis) for t in teachers], [exact] * 3, basis)
    average = basis.values @ np.mean([t[:, 1:] - t[:, :1] for t in teachers], axis=0)
    match = np.corrcoef(ensemble.target.log_odds.ravel(), average.ravel())[0, 1]
    assert match > 0.97


def test_denoising_brings_the_answer_closer_to_the_truth(basis, exact_law) -> None:
    gain = np.where(basis.eigenvalues > np.median(basis.eigenvalues), 0.9, 0.3)
    truth = draw_truth(basis, scale=2.0)
    along = basis.eigenvectors.T @ truth
    random = np.random.default_rng(3)
    answer = basis.eigenvectors @ (
        gain[:, None] * along + random.normal(scale=2.0, size=along.shape)
    )
    release = release_of(answer, basis)
    ensemble = build_ensemble([release], [law(basis, gain=gain, noise=4.0)], basis)
    exact = basis.values @ (truth[:, 1:] - truth[:, :1])
    denoised_error = np.square(ensemble.target.log_odds - exact).mean()
    assert denoised_error < 0.9 * np.square(release.log_odds - exact).mean()


def test_more_sites_leave_less_noise(basis) -> None:
    truth = release_of(draw_truth(basis, scale=2.0), basis)
    noisy = law(basis, noise=0.5, sampling=0.1)
    spreads = [
        build_ensemble([truth] * sites, [noisy] * sites, basis).target.std.mean()
        for sites in (1, 3, 9)
    ]
    assert spreads[0] > spreads[1] > spreads[2]


@pytest.mark.statistical
def test_the_stated_std_is_the_spread_around_the_truth(basis, exact_law) -> None:
    """Over 50 draws of truth and noise the standardised error has variance about one.

    The mean square over 50 draws of about 100 directions each has a relative error of about 3%.
    The fitted prior adds some percent. A std that is 15% off fails.
    """
    gain, squares = 0.7, []
    stated = law(basis, gain=gain, noise=0.4)
    for seed in range(50):
        truth = draw_truth(basis, scale=2.0, seed=seed)
        along = basis.eigenvectors.T @ truth
        noise = np.random.default_rng(10_000 + seed).normal(scale=0.4**0.5, size=along.shape)
        release = release_of(basis.eigenvectors @ (gain * along + noise), basis)
        ensemble = build_ensemble([release], [stated], basis)
        exact = basis.values @ (truth[:, 1:] - truth[:, :1])
        errors = (ensemble.target.log_odds - exact) / ensemble.target.std
        squares.append(np.square(errors).mean())
    assert 0.85 < np.mean(squares) < 1.2


@pytest.mark.parametrize("weights", ["agreement", "median", "trimmed"])
def test_one_liar_of_five_does_not_turn_the_target_around(basis, weights: str) -> None:
    """It answers the opposite at the grid's bound; equal weights lose far more of the truth."""
    truth = draw_truth(basis, scale=2.0)
    random = np.random.default_rng(5)
    honest = [
        release_of(truth + random.normal(scale=0.3, size=truth.shape), basis) for _ in range(4)
    ]
    lie = replace(honest[0], codes=(-32767 * np.sign(honest[0].codes)).astype(np.int16))
    stated = [law(basis, noise=0.2)] * 4 + [law(basis, noise=0.0)]
    exact = basis.values @ (truth[:, 1:] - truth[:, :1])

    def match(weights: str) -> float:
        ensemble = build_ensemble([*honest, lie], stated, basis, weights=weights)
        return float(np.corrcoef(ensemble.target.log_odds.ravel(), exact.ravel())[0, 1])

    assert match(weights) > 0.9
    assert match("uniform") < match(weights) - 0.05


def test_ways_to_combine_are_named(basis) -> None:
    release = release_of(draw_truth(basis), basis)
    with pytest.raises(ValueError, match="weights='mean' must be one of uniform, agreement, med"):
        build_ensemble([release], [law(basis)], basis, weights="mean")
    with pytest.raises(ValueError, match="trim=1 must be at most 0 for 2 sites"):
        build_ensemble([release] * 2, [law(basis)] * 2, basis, weights="trimmed")
