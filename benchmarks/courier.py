"""How much later a site's courier is ready than a Flower ClientApp that does nothing.

    python -m benchmarks.courier

A courier's process starts anew for every message, so what it imports is paid each time. The claim:
our courier is ready at most 0.1 s after a bare ClientApp would be, and it imports no torch. Each
process does what `flwr-clientapp` does until an app is loaded, and ends; it is measured from
outside, interpreter included, in seconds of the processor, which others' load moves less than the
clock's. Both take turns, and the figure is the median of the differences.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

CLAIM = 0.1
"""Seconds."""

BARE, OURS = "bare:app", "fedistill.federation.courier:app"

_BARE = "from flwr.clientapp import ClientApp\n\napp = ClientApp()\n"
_START = """
import sys
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.clientapp.utils import get_load_client_app_fn
get_load_client_app_fn(sys.argv[1], sys.argv[2], multi_app=False)("", "", "")
print("torch" in sys.modules)
"""


@dataclass(frozen=True)
class Starts:
    """Processor seconds of each process, in pairs, and whether any courier had torch."""

    bare: tuple[float, ...]
    ours: tuple[float, ...]
    imports_torch: bool

    @property
    def added(self) -> float:
        """Median of what the courier takes longer than the bare app before it, in seconds."""
        return statistics.median(
            ours - bare for bare, ours in zip(self.bare, self.ours, strict=True)
        )

    @property
    def ratio(self) -> float:
        """Median of the courier against median of the bare app."""
        return statistics.median(self.ours) / statistics.median(self.bare)


def measure(pairs: int) -> Starts:
    """Start as many of each, after one of each that fills the disk's cache."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bare.py").write_text(_BARE)
        bare, ours, torch = [], [], False
        for number in range(pairs + 1):
            without, _ = _start(BARE, folder)
            seconds, with_torch = _start(OURS, folder)
            torch = torch or with_torch
            if number:
                bare.append(without)
                ours.append(seconds)
    return Starts(bare=tuple(bare), ours=tuple(ours), imports_torch=torch)


def _start(app: str, folder: str) -> tuple[float, bool]:
    environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # noqa: S603 (this interpreter, with the code above)
        [sys.executable, "-c", _START, app, folder],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, done.stdout.split()[-1] == "True"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=11, help="how many of each are started")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error(f"--pairs={options.pairs} must be at least 1")
    found = measure(options.pairs)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "median s", "least", "most"):
        table.add_column(heading, justify="left" if not heading else "right")
    for what, took in (("bare ClientApp", found.bare), ("our courier", found.ours)):
        shown = (statistics.median(took), min(took), max(took))
        table.add_row(what, *(f"{seconds:.3f}" for seconds in shown))
    console = Console(highlight=False)
    console.print(table)
    verdict = "holds" if found.added <= CLAIM else "does not hold here"
    console.print(
        f"added {found.added:.3f} s, ratio {found.ratio:.2f}; the claim of at most {CLAIM} s "
        f"{verdict}"
    )
    torch = "torch, which it must not" if found.imports_torch else "no torch"
    console.print(f"the courier imports {torch}")


if __name__ == "__main__":
    main()
