"""`simulations/hospitals_5` as its README says: thyroid by referral source, and heart disease."""

import json

import pytest

from fedistill.privacy.receipts import read_receipts
from tests.e2e.conftest import RESULTS, Flower

pytestmark = pytest.mark.e2e

APP = "simulations/hospitals_5"
HOSPITALS = {"STMW", "SVHC", "SVHD", "SVI", "other"}


def test_five_hospitals_teach_one_student_and_the_tiny_one_is_left_out(flower: Flower) -> None:
    ran = flower.command("flwr", "run", APP, "--stream")
    (folder,) = flower.run_folders()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {path.name for path in folder.iterdir()} >= RESULTS
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["privacy"]["sites"]) == set(summary["sites"]) == HOSPITALS
    assert set(summary["left_out"]) == {"WEST"}
    assert not (folder / "WEST.ledger.db").exists()
    assert summary["metrics"]["student"]["auc"] > 0.87
    shares = {site: each["weight"] for site, each in summary["sites"].items()}
    assert sum(shares.values()) == pytest.approx(1)
    smallest = summary["sites"]["SVHD"]["everyone"]
    assert smallest["gain"]["value"] > 2 * smallest["gain"]["standard_error"]
    for words in ("left out: WEST", "20 booleans", "Who gains from joining"):
        assert words in ran.stdout + ran.stderr


def test_hospitals_of_one_federation_answer_by_unlike_mechanisms(flower: Flower) -> None:
    config = 'site-mechanisms="other=dp-sgd, SVI=dp-ebm" float-noise="allow"'
    used = dict.fromkeys(HOSPITALS, "dp-probe") | {"other": "dp-sgd", "SVI": "dp-ebm"}
    ran = flower.command("fedistill", "simulate", APP, "-c", config)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = flower.run_folders()
    receipts = {each.site: each for each in read_receipts(folder / "receipts.jsonl")}
    assert set(receipts) == HOSPITALS
    assert all(each.what.startswith(f"{used[site]}, ") for site, each in receipts.items())
    listed = flower.command("fedistill", "ledger", "show", "--run", folder, "--format", "json")
    ledgers = {each["site"]: each["charges"] for each in json.loads(listed.stdout)["ledgers"]}
    charged = {site: [each["description"]["mechanism"] for each in ledgers[site]] for site in used}
    assert charged == {site: [mechanism] for site, mechanism in used.items()}
    assert all(0.99 < each["spent_epsilon"] <= 1 for (each,) in ledgers.values())
    summary = json.loads((folder / "summary.json").read_text())
    sites = summary["privacy"]["sites"]
    assert {site: each["mechanism"] for site, each in sites.items()} == used
    assert all(0.99 < each["epsilon"] <= 1 for each in sites.values())
    assert {site for site, each in sites.items() if each["float_noise"]} == {"other", "SVI"}
    floating = "for SVI and other, that floating-point noise hides"
    report = (folder / "report.html").read_text()
    assert floating in summary["guarantee"]
    assert floating in report
    assert "Noise in floating point at SVI and other" in ran.stdout
    assert "(1, 1e-5)-differential privacy at record level" in summary["guarantee"]
    paid = ran.stdout.split("Who paid what")[1].split("Assuming")[0]
    rows = {line.split()[0]: line.split() for line in paid.splitlines() if line.strip()}
    assert {site: rows[site][-1] for site in HOSPITALS} == used
    for mechanism in ("dp-sgd", "dp-ebm"):
        assert f"<td>{mechanism}</td>" in report


@pytest.mark.slow
def test_four_hospitals_of_another_disease_by_one_option(flower: Flower) -> None:
    ran = flower.command(
        "fedistill",
        "simulate",
        APP,
        "-c",
        'dataset="heart_disease" site-column="hospital"',
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = flower.run_folders()
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["sites"]) == {"Cleveland", "Hungary", "Switzerland", "VA Long Beach"}
    assert summary["left_out"] == {}
    assert summary["metrics"]["student"]["auc"] > 0.75
    manifest = json.loads((folder / "manifest.json").read_text())
    pain = next(each for each in manifest["columns"] if each["name"] == "chest_pain")
    assert pain["categories"] == [
        "asymptomatic",
        "atypical angina",
        "non-anginal",
        "typical angina",
    ]


def test_a_dry_run_says_what_was_read_and_starts_nothing(flower: Flower) -> None:
    ran = flower.command("fedistill", "simulate", APP, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    for words in ("20 booleans, 7 numbers and 1 category", "other 3,603", "left out: WEST", "TSH"):
        assert words in ran.stdout
    assert flower.run_folders() == []
