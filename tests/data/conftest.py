from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from fedistill.data import LabelledRows, Table, code_table, infer_schema, load_table
from fedistill.data.table import Rows
from tests.data.tables import rows_of

# A busy machine is no failure.
settings.register_profile("data", deadline=None)
settings.load_profile("data")


@pytest.fixture(scope="session")
def credit() -> Table:
    return load_table("credit_default")


@pytest.fixture(scope="session")
def credit_rows(credit: Table) -> Rows:
    return rows_of(credit)


@pytest.fixture(scope="session")
def private(credit: Table) -> LabelledRows:
    """The first 301 customers: three sites cannot share them equally."""
    everything = np.arange(301)
    schema = infer_schema(credit.columns, everything)
    return replace(code_table(credit, schema, everything), misfit=None)


@pytest.fixture
def patients_csv(tmp_path: Path) -> Path:
    """Six patients of two hospitals, with what real exports hold: gaps, booleans, text labels."""
    path = tmp_path / "patients.csv"
    path.write_text(
        "age,smoker,bmi,hospital,outcome\n"
        "63,true,22.5,north,healed\n"
        "41,false,,south,ill\n"
        "55,,31.25,north,healed\n"
        "70,true,19,south,ill\n"
        "38,false,27.5,north,relapsed\n"
        "49,true,24,south,healed\n"
    )
    return path


@pytest.fixture
def credit_npz(tmp_path: Path, private: LabelledRows) -> Path:
    path = tmp_path / "credit.npz"
    np.savez(
        path,
        X=private.rows,
        y=private.labels,
        features=np.array(private.columns),
        silo=np.arange(len(private.rows)) % 3,
        silo_names=np.array(["VA Long Beach", "Hungary", "Cleveland"]),
    )
    return path
