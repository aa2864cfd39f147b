import logging

import flwr.serverapp
import pytest

from benchmarks.baselines.inputs import load_inputs
from tests.small import write_table

assert flwr.serverapp  # sets the logger's level when imported


@pytest.fixture(autouse=True)
def quiet_flower():
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)  # other tests read its lines


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("data") / "small.npz")


@pytest.fixture(scope="session")
def raw(table):
    return load_inputs(table, "raw")
