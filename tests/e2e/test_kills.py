"""kill -9 in every phase: no release without its charge, and the same command goes on after it."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from subprocess import Popen

import psutil
import pytest

from fedistill.cli.guardian import SIMULATION
from fedistill.privacy.ledger_anchor import read_anchor
from fedistill.privacy.receipts import read_receipts
from tests.e2e.conftest import APP, RESULTS, SITES, Flower
from tests.e2e.ledgers import Account, account

pytestmark = pytest.mark.e2e

# Many steps, so that a site is at work for a while between its charge and its release. The budget
# holds a second charge: what a killed site paid for nothing stays paid.
CONFIG = "probe-steps=200 budget-epsilon=2.0 phase-timeout=60.0 secure-aggregation=false"
SEALED = CONFIG.replace("false", "true")

LATER_PHASES = ("student", "compression", "evaluate")
DIED = "Flower's simulation process died"


def simulation_process(flower: Flower) -> set[psutil.Process]:
    """The process of ServerApp and simulation engine."""
    return {p for p in flower.family() if any(w.endswith(SIMULATION) for w in words(p)[:2])}


def client_worker(flower: Flower) -> set[psutil.Process]:
    """The Ray workers that run ClientApps."""
    return {p for p in flower.family() if any(w.startswith("ray::ClientApp") for w in words(p))}


def everything(flower: Flower) -> set[psutil.Process]:
    """All processes of the run, the command itself included: the power goes."""
    return flower.family()


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize(
    ("phase", "victim", "reason"),
    [
        pytest.param(
            "labels",
            client_worker,
            "sites answered, min-sites=2: bank_",
            marks=pytest.mark.slow,
        ),
        pytest.param("labels", everything, "", marks=pytest.mark.slow),
        *(
            pytest.param(phase, simulation_process, DIED, marks=pytest.mark.slow)
            for phase in ("labels", *LATER_PHASES)
        ),
    ],
)
def test_a_kill_wastes_budget_at_worst_and_the_run_goes_on(
    flower: Flower,
    quick: str,
    phase: str,
    victim: Callable[[Flower], set[psutil.Process]],
    reason: str,
) -> None:
    run, ledgers = flower.folder / "run", flower.folder / "ledgers"
    compression = "prune-ratio=0.3" if phase == "compression" else ""
    config = f'{quick} {CONFIG} {compression} output-dir="{run}" ledger-dir="{ledgers}"'

    with started(flower, config) as process:
        wait_until(lambda: reached(flower, phase, ledgers), process)
        family, killed = flower.family(), victim(flower)
        assert killed
        for each in killed:
            each.kill()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == (1 if reason else -SIGKILL)
    assert reason in errors
    assert none_left(family)
    assert not (run / "summary.json").exists()
    paid = {site: paid_for_all_that_left(site, run, ledgers) for site in SITES}
    assert sum(account.charges for account in paid.values()) >= (1 if phase == "labels" else 3)
    assert all(verifies(flower, ledgers / f"{site}.ledger.db") for site in SITES)
    answered = {path.name: path.read_bytes() for path in run.glob("checkpoints/*.labels")}
    assert len(answered) == (0 if phase == "labels" else 3)

    again = flower.simulate(config)
    assert again.returncode == 0, again.stderr
    assert {path.name for path in run.iterdir()} >= RESULTS
    assert "an earlier run in this folder did not finish" in again.stdout
    begun = set(re.findall(r"^(\w+) \d+/\d+", again.stdout, re.MULTILINE))
    assert "evaluate" in begun
    assert begun.isdisjoint(finished_before(phase))
    for site, before in paid.items():
        after = paid_for_all_that_left(site, run, ledgers)
        assert after.charges == (before.charges if before.releases else before.charges + 1)
        assert after.releases[: len(before.releases)] == before.releases
    for name, release in answered.items():
        assert (run / "checkpoints" / name).read_bytes() == release


@pytest.mark.parametrize(
    ("victim", "reason"),
    [
        (client_worker, "too few sites: 0 of 3 survived"),
        pytest.param(simulation_process, DIED, marks=pytest.mark.slow),
        pytest.param(everything, "", marks=pytest.mark.slow),
    ],
)
def test_a_sealed_round_that_is_cut_short_begins_anew_and_gives_the_same_answers(
    flower: Flower, quick: str, victim: Callable[[Flower], set[psutil.Process]], reason: str
) -> None:
    run, ledgers = flower.folder / "run", flower.folder / "ledgers"
    config = f'{quick} {SEALED} output-dir="{run}" ledger-dir="{ledgers}"'
    with started(flower, config) as process:
        wait_until(lambda: reached(flower, "labels", ledgers), process)
        family = flower.family()
        for each in victim(flower):
            each.kill()
        _, errors = process.communicate(timeout=120)
    assert reason in errors
    assert none_left(family)
    assert not (run / "checkpoints" / "round-1.json").exists()
    before = {site: account(ledgers / f"{site}.ledger.db") for site in SITES}

    again = flower.simulate(config)
    assert again.returncode == 0, again.stderr
    assert {path.name for path in run.iterdir()} >= RESULTS
    opened = json.loads((run / "checkpoints" / "round-1.json").read_text())
    assert opened["sites"] == list(SITES)
    for site, earlier in before.items():
        after = account(ledgers / f"{site}.ledger.db")
        assert after.releases[: len(earlier.releases)] == earlier.releases
        assert after.charges == (earlier.charges if earlier.releases else earlier.charges + 1)
        assert verifies(flower, ledgers / f"{site}.ledger.db")


@contextmanager
def started(flower: Flower, config: str) -> Iterator[Popen[str]]:
    process = flower.start("fedistill", "simulate", APP, "-c", config)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(reached: Callable[[], bool], process: Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reached(flower: Flower, phase: str, ledgers: Path) -> bool:
    """Whether a run is in `phase`; in `labels`, whether a site has just been charged."""
    if phase == "labels":
        anchors = (read_anchor(ledgers / f"{site}.ledger.db") for site in SITES)
        return any(anchor is not None and anchor.count > 0 for anchor in anchors)
    return any(line["phase"] == phase for line in flower.progress())


def finished_before(phase: str) -> set[str]:
    """Phases that need not begin again."""
    phases = ("labels", *LATER_PHASES)
    return set(phases[: phases.index(phase)])


def none_left(family: set[psutil.Process], seconds: float = 20) -> bool:
    """Whether all are gone within `seconds`: a killed process takes a while to give back memory."""
    deadline = time.monotonic() + seconds
    while any(alive(member) for member in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(alive(member) for member in family)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def paid_for_all_that_left(site: str, run: Path, ledgers: Path) -> Account:
    """The site's ledger, once everything that left it was found among its paid releases."""
    paid = account(ledgers / f"{site}.ledger.db")
    receipts = read_receipts(run / "receipts.jsonl") if (run / "receipts.jsonl").exists() else ()
    left = {receipt.sha256 for receipt in receipts if receipt.site == site}
    stored = run / "checkpoints" / f"{site}.labels"
    if stored.exists():
        left.add(hashlib.sha256(stored.read_bytes()).hexdigest())
    assert left <= set(paid.releases)
    assert len(paid.releases) <= paid.charges
    assert sum(1 for r in receipts if r.site == site and not r.cached) <= paid.charges
    return paid


def verifies(flower: Flower, ledger: Path) -> bool:
    if not ledger.exists():
        return True
    return flower.command("fedistill", "ledger", "verify", ledger).returncode == 0
