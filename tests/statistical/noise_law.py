"""Whether integers follow the discrete Gaussian of a scale, at a stated false-alarm rate."""

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6

_FINE_SCALE = 50.0
"""From here on the grid is so fine that the continuous law serves: cells of 1 / 50 of a scale."""


def fits(samples: np.ndarray, scale: float, false_alarm: float = FALSE_ALARM) -> bool:
    """Chi-square test of the discrete Gaussian of `scale`, tails pooled, and nothing but it."""
    support = np.arange(-int(12 * scale) - 12, int(12 * scale) + 13)
    law = np.exp(-(support**2) / (2 * scale**2))
    law /= law.sum()
    edge = support[(np.cumsum(law) * len(samples)) >= 20][0]
    clipped = np.clip(samples, edge, -edge)
    values = np.arange(edge, -edge + 1)
    expected = np.array([law[np.clip(support, edge, -edge) == value].sum() for value in values])
    observed = np.array([(clipped == value).sum() for value in values])
    statistic = ((observed - expected * len(samples)) ** 2 / (expected * len(samples))).sum()
    return bool(stats.chi2.sf(statistic, len(values) - 1) > false_alarm)


def spread_fits(samples: np.ndarray, scale: float, false_alarm: float = FALSE_ALARM) -> bool:
    """Two-sided chi-square test of the variance, for scales from 1 up."""
    statistic = np.sum((samples / scale) ** 2)
    tail = min(stats.chi2.cdf(statistic, len(samples)), stats.chi2.sf(statistic, len(samples)))
    return bool(2 * tail > false_alarm)


def follows(samples: np.ndarray, scale: float, false_alarm: float = FALSE_ALARM) -> bool:
    """Both the shape and the spread, each at half of `false_alarm`."""
    half = false_alarm / 2
    if scale < _FINE_SCALE:
        shape = fits(samples, scale, half)
    else:
        # Half a step of a fine grid, so that integers look continuous.
        shape = bool(stats.kstest((samples + 0.5) / scale, "norm").pvalue > half)
    return shape and spread_fits(samples, scale, half)


def power(count: int, factor: float, false_alarm: float = FALSE_ALARM) -> float:
    """P(`follows` rejects `count` samples whose scale is `factor` < 1 of the stated one), at least.

    The sum of squares over the stated variance is then factor**2 times a chi-square of `count`
    degrees of freedom; the lower threshold of `spread_fits` alone is counted.
    """
    threshold = stats.chi2.ppf(false_alarm / 4, count)
    return float(stats.chi2.cdf(threshold / factor**2, count))
