"""A ledger on disk, and a way to run Python in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import ZCDpEvent

from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.ledger import Ledger

PRELUDE = """
import os, resource, signal, sys
from pathlib import Path
from dp_accounting import ZCDpEvent
from fedistill.errors import BudgetExceeded, LedgerError
from fedistill.privacy.accountant import calibrate_rho
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.ledger import Ledger

path = Path(sys.argv[1])
def open_ledger():
    return Ledger.open(path, population="patients", adjacency=Adjacency.ADD_REMOVE,
                       unit=Unit.RECORD, create=False)
def charge(ledger, question, epsilon=0.1, **description):
    return ledger.charge(question, description, ZCDpEvent(calibrate_rho(epsilon, 1e-5)),
                         budget_epsilon=1.0, delta=1e-5)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank_a.ledger.db"


@pytest.fixture
def open_ledger(path: Path) -> Callable[..., Ledger]:
    """Open the ledger at `path`, or start it; keyword arguments change what is declared."""

    def opened(**changes: Any) -> Ledger:
        declared: dict[str, Any] = {
            "population": "patients",
            "adjacency": Adjacency.ADD_REMOVE,
            "unit": Unit.RECORD,
            "create": True,
        }
        return Ledger.open(changes.pop("path", path), **{**declared, **changes})

    return opened


@pytest.fixture
def python(path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start a process that runs a script which knows `path`, `open_ledger` and `charge`."""

    def started(script: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture
def ledger_of_three(open_ledger: Callable[..., Ledger], path: Path) -> Path:
    with open_ledger() as ledger:
        for question in ("q1", "q2", "q3"):
            event = ZCDpEvent(0.001)
            made = ledger.charge(question, {}, event, budget_epsilon=1.0, delta=1e-5)
            ledger.store(made, question.encode(), b"teacher")
    return path
