"""Charges a second against bare fsyncs on the same disk: what the ledger costs beyond the disk.

    python -m benchmarks.ledger --directory DIR

The claim: an open ledger commits at least half as many charges a second as the disk makes bare
fsyncs. A charge makes one fsync; the rest is computing, which takes the same time on any disk, so a
disk whose fsyncs take less than that makes the ratio smaller. Charges and fsyncs take turns,
because the speed of a shared disk varies.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dp_accounting import ZCDpEvent
from rich.console import Console
from rich.table import Table

from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.ledger import Ledger

CLAIM = 0.5
BATCH = 20


@dataclass(frozen=True)
class Speed:
    """Charges and bare fsyncs a second, in one run on one disk."""

    charges: float
    fsyncs: float

    @property
    def ratio(self) -> float:
        """Charges a second against single bare fsyncs a second."""
        return self.charges / self.fsyncs


def measure(directory: Path, *, charges: int) -> Speed:
    """Make `charges` charges to a fresh ledger in `directory`, and as many bare fsyncs."""
    event = ZCDpEvent(1e-6)
    with tempfile.TemporaryDirectory(dir=directory) as name:
        path = Path(name) / "bench.ledger.db"
        file = os.open(Path(name) / "bare", os.O_WRONLY | os.O_CREAT, 0o600)
        with Ledger.open(
            path, population="bench", adjacency=Adjacency.ADD_REMOVE, unit=Unit.RECORD, create=True
        ) as ledger:

            def charge() -> None:
                ledger.charge("q", {"mechanism": "none"}, event, budget_epsilon=8.0, delta=1e-5)

            def write() -> None:
                os.write(file, b"x" * 512)
                os.fsync(file)

            charge()  # imports and caches
            write()
            charging = writing = 0.0
            for _ in range(charges // BATCH):
                charging += seconds(charge, BATCH)
                writing += seconds(write, BATCH)
        os.close(file)
    done = charges // BATCH * BATCH
    return Speed(charges=done / charging, fsyncs=done / writing)


def seconds(action: Callable[[], None], times: int) -> float:
    """How long it takes to do something that many times."""
    start = time.perf_counter()
    for _ in range(times):
        action()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path(), help="on the disk to measure")
    parser.add_argument("--charges", type=int, default=400, help="how many, in batches of 20")
    options = parser.parse_args()
    if options.charges < BATCH:
        parser.error(f"--charges={options.charges} must be at least {BATCH}")
    speed = measure(options.directory, charges=options.charges)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "a second", "ms each"):
        table.add_column(heading, justify="left" if not heading else "right")
    for what, rate in (
        ("charges", speed.charges),
        ("bare fsyncs", speed.fsyncs),
    ):
        table.add_row(what, f"{rate:,.0f}", f"{1000 / rate:.2f}")
    console = Console(highlight=False)
    console.print(table)
    verdict = "holds" if speed.ratio >= CLAIM else "does not hold here"
    console.print(f"ratio {speed.ratio:.2f}; the claim of at least {CLAIM} {verdict}")


if __name__ == "__main__":
    main()
