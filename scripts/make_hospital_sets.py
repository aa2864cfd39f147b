"""Make the shipped `heart_disease.parquet` or `thyroid.parquet` from an npz file of the UCI data.

    python scripts/make_hospital_sets.py heart_disease /path/to/heart4.npz
    python scripts/make_hospital_sets.py thyroid /path/to/thyroid.npz

The npz files hold `X` float32, `y` integers, `features` names, `silo` whose row it is and
`silo_names`, made from the original files as the LICENSE.txt files beside the sets state. One-hot
groups become one column of texts again, 0/1 columns and the label booleans, sites texts.
"""

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

SETS = Path(__file__).resolve().parent.parent / "fedistill" / "data" / "sets"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a set is stored.

    Attributes:
        groups: One-hot groups by prefix, and the name of the column that each becomes.
        names: Columns that get another name.
        label: Name of the label column, true for 1.
        site: Name of the site column.
    """

    groups: Mapping[str, str]
    names: Mapping[str, str]
    label: str
    site: str


RECIPES = {
    "heart_disease": Recipe(
        groups={
            "sex": "sex",
            "cp": "chest_pain",
            "restecg": "resting_ecg",
            "slope": "st_slope",
            "thal": "thallium_scan",
        },
        names={
            "trestbps": "resting_blood_pressure",
            "chol": "cholesterol",
            "fbs": "fasting_blood_sugar_above_120",
            "thalch": "maximum_heart_rate",
            "exang": "exercise_angina",
            "oldpeak": "st_depression",
            "ca": "major_vessels",
        },
        label="disease",
        site="hospital",
    ),
    "thyroid": Recipe(
        groups={"sex": "sex"},
        names={},
        label="finding",
        site="referral_source",
    ),
}


def main() -> None:
    """Write the Parquet file and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("npz", type=Path)
    parser.add_argument("--output", type=Path, help="default: among the shipped sets")
    arguments = parser.parse_args()
    output = arguments.output or SETS / f"{arguments.name}.parquet"
    with np.load(arguments.npz, allow_pickle=False) as arrays:
        table = make_table(dict(arrays), RECIPES[arguments.name])
    pa.parquet.write_table(
        table, output, compression="zstd", compression_level=19, store_schema=False
    )
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {table.num_rows} rows, {output.stat().st_size} bytes, sha256 {digest}")


def make_table(arrays: Mapping[str, npt.NDArray[np.generic]], recipe: Recipe) -> pa.Table:
    """The set as a user's own table would look: texts for categories, nulls for missing values."""
    names = [str(name) for name in arrays["features"]]
    columns = dict(zip(names, arrays["X"].T, strict=True))
    stored: dict[str, pa.Array] = {}
    for prefix, column in recipe.groups.items():
        group = {name: columns.pop(name) for name in names if name.startswith(f"{prefix}_")}
        texts = [name.removeprefix(f"{prefix}_") for name in group]
        stored[column] = texts_of(np.stack(list(group.values()), axis=1), texts)
    features = {
        recipe.names.get(name, name): numbers_of(column) for name, column in columns.items()
    }
    labels = pa.array(arrays["y"] == 1)
    sites = pa.array([str(arrays["silo_names"][site]) for site in arrays["silo"]])
    return pa.table({**features, **stored, recipe.site: sites, recipe.label: labels})


def texts_of(indicators: npt.NDArray[np.generic], texts: list[str]) -> pa.Array:
    """One-hot columns as texts; a row without a 1 has none.

    Raises:
        ValueError: A row has two ones, or a value is neither 0 nor 1.
    """
    if not np.isin(indicators, (0, 1)).all() or (indicators.sum(axis=1) > 1).any():
        raise ValueError(f"columns {texts} are not one-hot")
    known = indicators.sum(axis=1) == 1
    return pa.array(
        [texts[k] if one else None for k, one in zip(indicators.argmax(axis=1), known, strict=True)]
    )


def numbers_of(column: npt.NDArray[np.generic]) -> pa.Array:
    """0/1 columns as booleans, whole numbers as int16, others as float32; NaN becomes null."""
    missing = np.isnan(column)
    present = column[~missing]
    if np.isin(present, (0, 1)).all():
        return pa.array(column == 1, mask=missing)
    if np.array_equal(present, np.trunc(present)) and np.abs(present).max() < 2**15:
        return pa.array(np.where(missing, 0, column).astype(np.int16), mask=missing)
    return pa.array(column.astype(np.float32), mask=missing)


if __name__ == "__main__":
    main()
