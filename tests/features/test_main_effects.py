"""Z-scores for columns near a normal law, thermometer codes for those that are not."""

import numpy as np
import pytest
from scipy.stats import norm as normal_law
from scipy.stats import rankdata

from fedistill.features.main_effects import distance_from_normal, fit_main_effects


def draw(law: str, rows: int = 4_000, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = {
        "normal": random.normal(size=rows),
        "uniform": random.uniform(size=rows),
        "lognormal": np.exp(2 * random.normal(size=rows)),
        "counts": random.poisson(2, size=rows).astype(float),
    }
    return values[law]


@pytest.mark.parametrize("law", ["normal", "uniform", "lognormal", "counts"])
def test_the_distance_from_the_normal_law_is_shapiro_and_francias(law: str) -> None:
    """Oracle: ranks and normal scores by scipy."""
    values = draw(law)
    scores = normal_law.ppf((rankdata(values) - 0.5) / len(values))
    expected = 1 - np.corrcoef(values, scores)[0, 1] ** 2
    assert distance_from_normal(values) == pytest.approx(expected, abs=1e-12)


def test_the_distance_orders_laws_as_one_would() -> None:
    assert distance_from_normal(draw("normal")) < 0.01
    assert distance_from_normal(draw("uniform")) < 0.1
    assert distance_from_normal(draw("lognormal")) > 0.5
    assert distance_from_normal(np.ones(10)) == 0.0


def share_of_thermometers(*laws: str) -> float:
    """The thermometer codes' variance, as a multiple of the z-scores' variance."""
    columns = [draw(law, seed=seed) for seed, law in enumerate(laws)]
    rows = np.stack(columns, axis=1).astype(np.float32)
    fitted = fit_main_effects(rows)
    variances = fitted.transform(rows).var(axis=0)
    num_z = len(laws)
    assert variances[:num_z].sum() == pytest.approx(1)
    return float(variances[num_z:].sum())


def test_thermometers_weigh_what_the_columns_lack_of_the_normal_law() -> None:
    assert share_of_thermometers("normal", "normal") < 0.02
    assert 0.5 < share_of_thermometers("normal", "lognormal") < 1
    assert share_of_thermometers(*["lognormal"] * 5) == pytest.approx(2)


def test_each_columns_thermometer_counts_alike() -> None:
    """Whether a column has three distinct values or thousands."""
    random = np.random.default_rng(0)
    few, many = random.integers(3, size=2_000) ** 4.0, np.exp(2 * random.normal(size=2_000))
    rows = np.stack([few, many], axis=1).astype(np.float32)
    fitted = fit_main_effects(rows)
    variances = fitted.transform(rows).var(axis=0)[2:]
    split = len(fitted.edges[0])
    assert variances[:split].sum() == pytest.approx(variances[split:].sum())


@pytest.mark.parametrize(("columns", "edges"), [(133, 15), (134, 7), (500, 2), (1001, 0)])
def test_wide_tables_share_a_thousand_thermometer_codes(columns: int, edges: int) -> None:
    rows = np.random.default_rng(0).normal(size=(60, columns)).astype(np.float32)
    fitted = fit_main_effects(rows)
    assert {len(each) for each in fitted.edges.values()} == ({edges} if edges else set())
    assert fitted.transform(rows).shape == (60, columns * (1 + edges))
