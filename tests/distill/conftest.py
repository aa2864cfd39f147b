"""A small table with every kind of column that the encoding must bear."""

import numpy as np
import pytest
import torch

from fedistill.data import ProxySet, numbers
from fedistill.distill.encoding import Rows
from fedistill.distill.trainer import Labeller
from fedistill.labels import EnsembleTarget


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def rows() -> Rows:
    random = np.random.default_rng(7)
    count = 600
    gaps = random.normal(size=count)
    missing = random.random(count) < 0.3
    gaps[missing] = np.nan
    again = random.integers(0, 5, count).astype(float)
    again[missing] = np.nan
    spike = np.where(random.random(count) < 0.97, 0.0, random.exponential(100, count))
    table = np.stack(
        [
            random.normal(50, 10, count),
            np.sign(random.normal(size=count)) * 10 ** random.uniform(0, 12, count),
            random.integers(0, 2, count).astype(float),
            np.full(count, 3.0),
            np.full(count, np.nan),
            gaps,
            again,
            spike,
        ],
        axis=1,
    ).astype(np.float32)
    table.flags.writeable = False
    return table


@pytest.fixture(scope="session")
def proxy(rows: Rows) -> ProxySet:
    return ProxySet(schema=numbers(f"x{j}" for j in range(rows.shape[1])), rows=rows)


@pytest.fixture(scope="session")
def labeller() -> Labeller:
    """Three classes: log-odds of classes 1 and 2 against 0, not linear in the raw columns."""

    def label(rows: Rows) -> np.ndarray:
        normal, binary, gaps = rows[:, 0], rows[:, 2], np.nan_to_num(rows[:, 5], nan=-1.0)
        first = np.tanh((normal - 50) / 5) + binary
        second = 2 * (gaps > 0.5) - 1.5 * binary - 1
        return np.stack([first, second], axis=1).astype(np.float64)

    return label


@pytest.fixture(scope="session")
def target(rows: Rows, labeller: Labeller) -> EnsembleTarget:
    log_odds = labeller(rows)
    return EnsembleTarget(log_odds=log_odds, std=np.full(log_odds.shape, 0.1), num_sites=3)
