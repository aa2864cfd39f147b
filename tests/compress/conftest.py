"""A small student of three classes, trained for real on a table with missing values."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedistill.data import ProxySet, numbers
from fedistill.distill.encoding import Rows, TabularEncoding
from fedistill.distill.students import TabularStudent
from fedistill.distill.trainer import Recipe, make_examples, optimise
from fedistill.labels import EnsembleTarget


@dataclass(frozen=True)
class Case:
    student: TabularStudent
    proxy: ProxySet
    target: EnsembleTarget
    classes: tuple[str, ...] = ("low", "middle", "high")

    @property
    def rows(self) -> Rows:
        return self.proxy.rows


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def case() -> Case:
    random = np.random.default_rng(11)
    rows = random.normal(size=(1500, 6)).astype(np.float32)
    rows[:, 1] = 10 ** (3 * rows[:, 1])
    rows[:, 2] = rows[:, 2] > 0
    rows[random.random(1500) < 0.2, 3] = np.nan
    proxy = ProxySet(schema=numbers(f"column_{index}" for index in range(6)), rows=rows)
    log_odds = np.stack(
        [
            2 * rows[:, 0] + rows[:, 2] - 0.5,
            2 * np.abs(rows[:, 4]) + 1.5 * np.isnan(rows[:, 3]) - 2,
        ],
        axis=1,
    ).astype(np.float64)
    target = EnsembleTarget(log_odds=log_odds, std=np.zeros(log_odds.shape), num_sites=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        student = TabularStudent(TabularEncoding.fit(proxy), (20, 12), num_classes=3)
    examples = make_examples(rows, log_odds, np.ones(log_odds.shape))
    optimise(student, examples, Recipe(), num_steps=400, seed=0)
    return Case(student.eval(), proxy, target)
