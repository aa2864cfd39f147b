"""Patients with several visits: `unit-column` protects each with all of them, or nothing starts."""

import json
import re
from pathlib import Path

import pytest

from fedistill.privacy.receipts import read_receipts
from fedistill.site import Policy
from tests.e2e.conftest import RESULTS, SITES, Flower
from tests.e2e.ledgers import contents
from tests.small import write_visits

pytestmark = pytest.mark.e2e


def of_patients(folder: Path, mechanism: str) -> str:
    visits = write_visits(folder / "visits.csv")
    return (
        f'dataset="{visits}" label-column="ill" unit-column="patient" partition="iid" '
        f'mechanism="{mechanism}" cells=5 prune-ratio=0.0 quantize="none"'
    )


def test_a_run_protects_patients_and_says_so_everywhere(flower: Flower, tmp_path: Path) -> None:
    run = flower.folder / "run"
    result = flower.simulate(f'{of_patients(tmp_path, "votes")} output-dir="{run}"')
    assert result.returncode == 0, result.stderr
    said = " ".join(re.sub(r"[^\S ]|│", " ", result.stdout).split())
    assert "The guarantee covers a unit with all its rows" in said
    assert {path.name for path in run.iterdir()} >= RESULTS
    summary = json.loads((run / "summary.json").read_text())
    assert {site["unit"] for site in summary["privacy"]["sites"].values()} == {"group"}
    assert "at group level" in summary["guarantee"]
    receipts = read_receipts(run / "receipts.jsonl")
    assert [receipt.unit for receipt in receipts] == ["group"] * len(SITES)
    assert {Policy.load(run / "sites" / site / "policy.toml").unit for site in SITES} == {"group"}
    shown = flower.command("fedistill", "ledger", "show", "--run", run, "--format", "json")
    assert {ledger["unit"] for ledger in json.loads(shown.stdout)["ledgers"]} == {"group"}


def test_what_cannot_protect_patients_starts_nothing(flower: Flower, tmp_path: Path) -> None:
    config = of_patients(tmp_path, "clipped-site")
    before = contents(tmp_path)
    result = flower.simulate(config)
    assert result.returncode == 2
    assert result.stderr.startswith("fedistill: unit-column='patient' asks to protect all rows")
    assert "mechanism='clipped-site' guarantees site level: choose one of" in result.stderr
    assert result.stderr.count("\n") == 1
    assert contents(tmp_path) == before
    assert list(flower.folder.iterdir()) == []
