import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet
import pytest

from fedistill.data import SHIPPED, Kind, load_table, split_table

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_hospital_sets.py"
SITES = {
    "heart_disease": {"Cleveland": 303, "Hungary": 294, "Switzerland": 123, "VA Long Beach": 200},
    "thyroid": {"other": 5493, "SVI": 2394, "SVHC": 956, "STMW": 255, "SVHD": 71, "WEST": 3},
}
ILL = {"heart_disease": 509, "thyroid": 2401}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_hospital_sets", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def as_npz(name: str, script: ModuleType, path: Path) -> Path:
    """The npz file that a shipped set was made from, made from the set."""
    recipe = script.RECIPES[name]
    with SHIPPED[name].path.open("rb") as file:
        table = pyarrow.parquet.ParquetFile(file).read()
    old = {new: old for old, new in recipe.names.items()}
    prefix = {column: prefix for prefix, column in recipe.groups.items()}
    features: dict[str, np.ndarray] = {}
    for column in table.column_names:
        values = table[column].to_pylist()
        if column in prefix:
            for text in sorted({value for value in values if value}):
                features[f"{prefix[column]}_{text}"] = np.array([value == text for value in values])
        elif column not in (recipe.site, recipe.label):
            numbers = [np.nan if value is None else value for value in values]
            features[old.get(column, column)] = np.array(numbers)
    names, silo = np.unique(table[recipe.site].to_pylist(), return_inverse=True)
    np.savez(
        path,
        X=np.stack(list(features.values()), axis=1).astype(np.float32),
        y=np.array(table[recipe.label].to_pylist()).astype(np.int64),
        features=np.array(list(features)),
        silo=silo,
        silo_names=names,
    )
    return path


@pytest.mark.parametrize("name", SITES)
def test_the_script_makes_the_shipped_file_from_an_npz_file(
    name: str, script: ModuleType, tmp_path: Path
) -> None:
    made = tmp_path / "made.parquet"
    source = as_npz(name, script, tmp_path / "source.npz")
    subprocess.run([sys.executable, SCRIPT, name, source, "--output", made], check=True, timeout=60)
    with SHIPPED[name].path.open("rb") as file:
        shipped = pyarrow.parquet.ParquetFile(file).read()
    again = pyarrow.parquet.ParquetFile(made).read()
    assert again.select(shipped.column_names).equals(shipped)


def test_a_group_that_is_not_one_hot_is_refused(script: ModuleType) -> None:
    with pytest.raises(ValueError, match="not one-hot"):
        script.texts_of(np.array([[1, 1], [0, 1]]), ["a", "b"])


@pytest.mark.parametrize("name", SITES)
def test_hospitals_have_the_counts_of_their_source(name: str) -> None:
    shipped = SHIPPED[name]
    table = load_table(name, site_column=shipped.site_column)
    counts = dict(zip(*np.unique(np.array(table.site), return_counts=True), strict=True))
    assert counts == SITES[name]
    assert (table.labels == 1).sum() == ILL[name]
    assert table.classes == shipped.class_names
    assert shipped.site_column not in load_table(name).columns


@pytest.mark.parametrize("name", SITES)
def test_every_private_row_fits_the_proxy_rows(name: str) -> None:
    split = split_table(load_table(name), proxy_fraction=0.2, test_fraction=0.15)
    assert (split.private.labels >= 0).all()
    assert Kind.CATEGORY in {column.kind for column in split.proxy.schema}


@pytest.mark.parametrize("name", SITES)
def test_licences_attribute_the_source_and_state_the_changes(name: str) -> None:
    text = SHIPPED[name].licence.read_text(encoding="utf-8")
    for part in ("10.24432/", "creativecommons.org/licenses/by/4.0", "What was changed"):
        assert part in text
