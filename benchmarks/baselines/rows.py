"""Rows of the comparison: which run to make, what it gave, and when a kept one still holds."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import benchmarks.baselines
import fedistill
from benchmarks.baselines.inputs import VARIANTS

OURS, LOCAL, CENTRAL = "ours", "local-only", "central"


@dataclass(frozen=True, kw_only=True, order=True)
class Row:
    """One run to make.

    Attributes:
        dataset: Name of the npz file without its suffix.
        method: `ours`, `local-only`, `central`, or a variant of FedAvg: `raw`, `features`.
        epsilon: What it costs each site; 0 for `central`.
        seed: Seed of training.
        setting: Place of FedAvg's setting in its list; -1 for other methods.
        tuning: Whether the run is scored on proxy rows to choose a setting.
    """

    dataset: str
    method: str
    epsilon: float
    seed: int
    setting: int = -1
    tuning: bool = False


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run gave.

    Attributes:
        row: Which run.
        auc: On the test split (on proxy rows if tuning): the shipped file, the last average, the
            mean of the sites alone, or the boosted model.
        target: AUC of the denoised target on the test split, for `ours`.
        split_error: Standard error of `auc` that comes from the test rows being a sample.
        shipped: Stage of the shipped file, for `ours`.
        bytes_up: What one site sent.
        seconds: Wall time, data and public features loaded, sites one after the other.
    """

    row: Row
    auc: float
    target: float | None = None
    split_error: float | None = None
    shipped: str = ""
    bytes_up: int = 0
    seconds: float = 0.0


def read(path: Path, data: Path) -> dict[Row, Result]:
    """Rows of earlier calls whose code and data are still the same."""
    lines = path.read_text().splitlines() if path.exists() else []
    results = {}
    for value in map(json.loads, lines):
        row = Row(**value.pop("row"))
        if value.pop("code") == code_sha256(row.method, data / f"{row.dataset}.npz"):
            results[row] = Result(**value, row=row)
    return results


def line(result: Result, data: Path) -> str:
    """A row as `read` takes it back."""
    code = code_sha256(result.row.method, data / f"{result.row.dataset}.npz")
    return json.dumps(asdict(result) | {"code": code}) + "\n"


@lru_cache(maxsize=64)
def code_sha256(method: str, table: Path) -> str:
    """Hash of all that decides a row: the table, and the source that the method runs.

    Ours runs the whole package; FedAvg only its own source, the data and the feature map.
    """
    package, baselines = (Path(next(iter(m.__path__))) for m in (fedistill, benchmarks.baselines))
    sources: tuple[Path, ...]
    shared = package / "data", package / "features", baselines / "inputs.py"
    if method in VARIANTS:
        sources = (
            *shared,
            *(baselines / each for each in ("dp_sgd.py", "fedavg_dpsgd.py", "settings.py")),
        )
    elif method == CENTRAL:
        sources = *shared, package / "evaluate/reference.py", baselines / "methods.py"
    else:
        sources = package, baselines / "inputs.py", baselines / "methods.py"
    files = [file for source in sources for file in (sorted(source.rglob("*.py")) or [source])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in (table, *files))).hexdigest()
