"""What FedAvg trains on: the rows of the fixed split, as raw columns or as public features."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedistill.config import RunConfig
from fedistill.data import ProxySet
from fedistill.features import proxy_basis
from fedistill.federation.simulation import Simulation, prepare_data

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SITES = 3
DELTA = 1e-5
VARIANTS = "raw", "features"
_FARTHEST = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Rows as a model reads them: (num_rows, num_inputs) and (num_rows,)."""

    inputs: Floats
    labels: Labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """All rows of a federation.

    Attributes:
        proxy: Public rows with their true labels, which only the baseline's tuning sees.
        test: Public rows that score.
        sites: Private rows by site.
        num_classes: Classes of the task.
    """

    proxy: Part
    test: Part
    sites: tuple[Part, ...]
    num_classes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class RawColumns:
    """Median-filled z-scores, at most 5 from zero, and missing flags; fitted on public rows.

    Attributes:
        median: (num_columns,) fills missing values.
        mean: (num_columns,) of the filled columns.
        std: (num_columns,) of the filled columns, 1 for a constant one.
        flagged: (num_columns,) whether the public rows lack a value.
    """

    median: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    flagged: npt.NDArray[np.bool_]

    @classmethod
    def fit(cls, proxy: ProxySet) -> "RawColumns":
        """Statistics of the proxy rows."""
        rows = proxy.rows.astype(np.float64)
        missing: npt.NDArray[np.bool_] = np.isnan(rows)
        empty = missing.all(axis=0)
        median = np.nanmedian(np.where(empty, 0, rows), axis=0)
        filled = np.where(missing, median, rows)
        std = filled.std(axis=0)
        return cls(
            median=median,
            mean=filled.mean(axis=0),
            std=np.where(std > 0, std, 1.0),
            flagged=np.asarray(missing.any(axis=0)),
        )

    def transform(self, rows: Floats) -> Floats:
        """(num_rows, num_columns) to (num_rows, num_columns + number of flagged columns)."""
        missing = np.isnan(rows)
        scores = (np.where(missing, self.median, rows) - self.mean) / self.std
        bounded = np.clip(scores, -_FARTHEST, _FARTHEST)
        return np.hstack([bounded, missing[:, self.flagged]]).astype(np.float32)


def run_config(path: Path, **changes: str | int | float) -> RunConfig:
    """The run that every method makes on the table at `path`: three sites of iid thirds.

    Without secure aggregation, so that teachers can be scored one by one.
    """
    flat: dict[str, str | int | float] = {
        "secure-aggregation": False,
        "dataset": str(path.resolve()),
        "label-column": "",
        "partition": "iid",
        "num-sites": SITES,
        "proxy-fraction": 0.2,
        "test-fraction": 0.15,
        "delta": DELTA,
    }
    return RunConfig.from_flat(flat | {k.replace("_", "-"): v for k, v in changes.items()})


@lru_cache(maxsize=2)
def load_inputs(path: Path, variant: str) -> Inputs:
    """The rows of the npz table at `path`.

    Args:
        path: Holds `X` and `y`.
        variant: `raw`, or `features`: the public features that dp-probe trains on.
    """
    simulation = prepare_data(run_config(path))
    proxy = simulation.proxy
    encode = RawColumns.fit(proxy).transform if variant == "raw" else _features(proxy)
    return Inputs(
        proxy=Part(inputs=encode(proxy.rows), labels=proxy_labels(path, simulation)),
        test=Part(inputs=encode(simulation.test.rows), labels=simulation.test.labels),
        sites=tuple(
            Part(inputs=encode(site.rows), labels=site.labels) for site in simulation.sites.values()
        ),
        num_classes=simulation.test.num_classes,
    )


def proxy_labels(path: Path, simulation: Simulation) -> Labels:
    """The labels that the split dropped, found by repeating its permutation.

    Raises:
        RuntimeError: The proxy set holds other rows.
    """
    with np.load(path) as archive:
        rows = archive["X"].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(rows))[: len(simulation.proxy.rows)]
    if not np.array_equal(rows[order], simulation.proxy.rows, equal_nan=True):
        raise RuntimeError(f"{path}: the split's permutation changed: adapt proxy_labels to it")
    return simulation.table.labels[order]


def _features(proxy: ProxySet) -> Callable[[Floats], Floats]:
    basis = proxy_basis(proxy)
    return lambda rows: basis.features(rows).astype(np.float32)
