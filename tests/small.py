"""A small real-shaped federation that runs in seconds: made, written to npz, configured."""

from pathlib import Path

import numpy as np

from fedistill.config import RunConfig

COLUMNS = ("income", "age", "debt", "late", "region")


def write_table(path: Path, num_rows: int = 1_500, num_classes: int = 2, seed: int = 0) -> Path:
    """Rows whose labels depend on them; missing values, a heavy tail and a binary column."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num_rows, len(COLUMNS))).astype(np.float32)
    logits = np.stack([(k - 0.5) * (rows[:, 0] + rows[:, k % 3]) for k in range(num_classes)], 1)
    labels = (logits * 2 + random.gumbel(size=logits.shape)).argmax(axis=1)
    rows[:, 0] = np.exp(rows[:, 0] * 3)
    rows[:, 4] = rows[:, 4] > 0
    rows[random.random(num_rows) < 0.1, 1] = np.nan
    np.savez(path, X=rows, y=labels, features=np.array(COLUMNS))
    return path


def write_visits(path: Path, num_patients: int = 400) -> Path:
    """Patients with one to nine visits each; whether a visit ends well depends on its values."""
    random = np.random.default_rng(0)
    patient = np.repeat(np.arange(num_patients), random.integers(1, 10, num_patients))
    values = random.normal(size=(len(patient), 2)).round(4)
    ill = (values[:, 0] + random.normal(size=len(patient)) * 0.3 > 0).astype(int)
    lines = [f"p{who},{x},{y},{z}" for who, (x, y), z in zip(patient, values, ill, strict=True)]
    path.write_text("\n".join(["patient,x,y,ill", *lines]) + "\n")
    return path


def visits_config(folder: Path, **changes: bool | float | str) -> RunConfig:
    """A config of three clinics that protects patients, not visits."""
    visits: dict[str, bool | float | str] = {
        "dataset": str(write_visits(folder / "visits.csv")),
        "label_column": "ill",
        "unit_column": "patient",
    }
    return make_config(folder, **(visits | changes))


def make_config(folder: Path, **changes: bool | float | str) -> RunConfig:
    """A config of three sites on a small table; everything it writes lies below `folder`."""
    path = folder / "table.npz"
    if not path.exists():
        write_table(path)
    flat: dict[str, bool | float | str] = {
        "dataset": str(path),
        "num-sites": 3,
        "site-names": "bank_a,bank_b,bank_c",
        "output-dir": str(folder / "run"),
        "epsilon": 4.0,
        "phase-timeout": 20.0,
        "secure-aggregation": False,
    }
    return RunConfig.from_flat(flat | {k.replace("_", "-"): v for k, v in changes.items()})
