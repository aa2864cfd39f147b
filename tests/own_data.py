"""The files that the page about own data speaks of."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet


def write_own_data(folder: Path) -> None:
    """Loans as CSV and npz, and visits of patients to two hospitals as Parquet."""
    random = np.random.default_rng(0)
    income, labels = random.normal(size=300).round(3), random.integers(2, size=300)
    lines = (f"{x},{int(x > 0)},{y}" for x, y in zip(income, labels, strict=True))
    (folder / "loans.csv").write_text("income,branch,defaulted\n" + "\n".join(lines) + "\n")
    np.savez(folder / "loans.npz", X=income[:, None], y=labels, features=np.array(["income"]))
    patient = random.integers(100, size=300)
    visits = {
        "visit": [f"visit {number}" for number in range(300)],
        "patient": [f"patient {number}" for number in patient],
        "hospital": ["north" if number % 2 else "south" for number in patient],
        "admitted": [date(2024, 1, 1) + timedelta(days=day) for day in range(300)],
        "ward": random.choice(["surgery", "medicine"], size=300).tolist(),
        "note": [f"{x} at admission" for x in income],
        "readmitted": ["yes" if label else "no" for label in labels],
    }
    pyarrow.parquet.write_table(pa.table(visits), folder / "visits.parquet")
