"""`simulations/hospitals_5` as its README says: thyroid by referral source, and heart disease."""

import json

import pytest

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
    assert shares["SVHD"] < 0.2 < shares["other"]
    smallest = summary["sites"]["SVHD"]["everyone"]
    assert smallest["gain"]["value"] > 2 * smallest["gain"]["standard_error"]
    for words in ("left out: WEST", "20 booleans", "Who gains from joining"):
        assert words in ran.stdout + ran.stderr


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
