"""Seconds from `fedistill dev up` to the result of a deployed run, and memory of the sites' agents.

    python -m benchmarks.dev_run

Starts a federation of three banks on this machine as a user would, runs it once by `fedistill dev
run`, asks `fedistill dev status` for the resident size (RSS) of each agent, and ends it.
"""

import argparse
import json
import os
import subprocess
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

COMMAND = Path(sysconfig.get_path("scripts")) / "fedistill"
MIB = 2**20
SECONDS_AT_MOST = 240
RSS_AT_MOST = 600 * MIB


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a federation on this machine took.

    Attributes:
        up: Seconds until all services were there.
        run: Seconds of the run after that.
        rss: Bytes of each agent after the run, by its name.
    """

    up: float
    run: float
    rss: dict[str, int]


def measure(home: Path) -> Cost:
    """Start, run, ask and end a federation below `home`."""
    begin = time.monotonic()
    _dev(home, "up")
    try:
        up = time.monotonic()
        _dev(home, "run", "--plain")
        end = time.monotonic()
        services = json.loads(_dev(home, "status", "--format", "json"))["services"]
    finally:
        _dev(home, "down")
    agents = {each["name"]: each["rss"] for each in services if each["name"].startswith("agent-")}
    return Cost(up=up - begin, run=end - up, rss=agents)


def _dev(home: Path, *arguments: str) -> str:
    environment = os.environ | {"FEDISTILL_HOME": str(home)}
    done = subprocess.run(  # noqa: S603
        [COMMAND, "dev", *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def main() -> None:
    """Measure once and print it beside what is claimed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as folder:  # sockets: a short path
        cost = measure(Path(folder))
    total, largest = cost.up + cost.run, max(cost.rss.values())
    table = Table(title=f"Three banks on this machine, {os.cpu_count()} cores")
    for column in ("", "measured", "claimed"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("fedistill dev up", f"{cost.up:.0f} s", "")
    table.add_row("fedistill dev run", f"{cost.run:.0f} s", "")
    table.add_row("both", f"{total:.0f} s", f"below {SECONDS_AT_MOST} s")
    for name, rss in cost.rss.items():
        table.add_row(f"RSS of {name}", f"{rss / MIB:,.0f} MiB", f"below {RSS_AT_MOST // MIB} MiB")
    Console().print(table)
    if total >= SECONDS_AT_MOST or largest >= RSS_AT_MOST:
        raise SystemExit("what is claimed does not hold here")


if __name__ == "__main__":
    main()
