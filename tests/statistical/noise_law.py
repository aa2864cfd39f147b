"""Whether noise follows the Gaussian of a scale, at a stated false-alarm rate.

Integers follow the discrete Gaussian, floats the continuous one.
"""

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-6

_FINE_SCALE = 1_000.0
"""From here on the grid is so fine that a continuous law serves: no cell holds more than 0.04%."""

_FEWEST_EXPECTED = 20.0


def fits(samples: np.ndarray, scale: float, false_alarm: float = FALSE_ALARM) -> bool:
    """Chi-square test of the discrete Gaussian of `scale`, neighbouring values pooled until at
    least 20 samples are expected of them.
    """
    edge = int(12 * scale) + 12
    support = np.arange(-edge, edge + 1)
    law = np.exp(-(support**2) / (2 * scale**2))
    starts = _starts_of_bins(law / law.sum() * len(samples))
    expected = np.add.reduceat(law / law.sum() * len(samples), starts)
    counts = np.bincount(np.clip(samples, -edge, edge) + edge, minlength=len(support))
    statistic = ((np.add.reduceat(counts, starts) - expected) ** 2 / expected).sum()
    return bool(stats.chi2.sf(statistic, len(starts) - 1) > false_alarm)


def _starts_of_bins(expected: np.ndarray) -> list[int]:
    starts, held = [0], 0.0
    left = expected.sum()
    for place, share in enumerate(expected):
        if held >= _FEWEST_EXPECTED and left >= _FEWEST_EXPECTED:
            starts.append(place)
            held = 0.0
        held += share
        left -= share
    return starts


def spread_fits(samples: np.ndarray, scale: float, false_alarm: float = FALSE_ALARM) -> bool:
    """Two-sided chi-square test of the variance; of integers for scales from 1 up."""
    statistic = np.sum((samples / scale) ** 2)
    tail = min(stats.chi2.cdf(statistic, len(samples)), stats.chi2.sf(statistic, len(samples)))
    return bool(2 * tail > false_alarm)


def follows(samples: np.ndarray, scale: float, false_alarm: float = FALSE_ALARM) -> bool:
    """Both the shape and the spread, each at half of `false_alarm`."""
    half = false_alarm / 2
    if scale < _FINE_SCALE and np.issubdtype(samples.dtype, np.integer):
        shape = fits(samples, scale, half)
    else:
        shape = bool(stats.kstest(samples / scale, "norm").pvalue > half)
    return shape and spread_fits(samples, scale, half)


def power(count: int, factor: float, false_alarm: float = FALSE_ALARM) -> float:
    """P(`follows` rejects `count` samples whose scale is `factor` < 1 of the stated one), at least.

    The sum of squares over the stated variance is then factor**2 times a chi-square of `count`
    degrees of freedom; the lower threshold of `spread_fits` alone is counted.
    """
    threshold = stats.chi2.ppf(false_alarm / 4, count)
    return float(stats.chi2.cdf(threshold / factor**2, count))
