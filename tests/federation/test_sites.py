"""Sites of people's own tables: who takes part, which rows count, and what each gains."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fedistill.config import RunConfig
from fedistill.errors import ConfigError
from fedistill.federation.data_summary import describe
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import ROWS_AT_LEAST, prepare_data
from fedistill.federation.up_front import prepare
from tests.federation.conftest import Spy, run
from tests.small import make_config, visits_config

CITIES = ("Bonn", "Köln", "Ulm")
UNKNOWN_CITY = "Atlantis"


def write_clinics(path: Path, *, spoil: int = 0, seed: int = 0) -> Path:
    """Patients of three clinics and a tiny practice, as CSV.

    `spoil` private rows of `north` name a city that no proxy row has.
    """
    random = np.random.default_rng(seed)
    sizes = {"north": 900, "south": 500, "east": 300, "practice": 8}
    clinics = random.permutation(np.repeat(list(sizes), list(sizes.values())))
    private = np.random.default_rng(0).permutation(len(clinics))[int(0.35 * len(clinics)) :]
    spoiled = set(private[clinics[private] == "north"][:spoil].tolist())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("clinic", "age", "city", "smoker", "seen", "ill"))
        for row, clinic in enumerate(clinics):
            age, city = float(random.normal(50, 15)), random.integers(3)
            smoker = random.random() < 0.3
            ill = random.random() < 1 / (1 + np.exp(-(age - 55) / 8 - 2 * smoker + 2 * (city == 2)))
            place = UNKNOWN_CITY if row in spoiled else CITIES[city]
            day = np.datetime64("2024-01-01") + int(random.integers(600))
            age_text = "" if random.random() < 0.05 else f"{age:.1f}"
            writer.writerow((clinic, age_text, place, smoker, day, "yes" if ill else "no"))
    return path


def clinics_config(folder: Path, **changes: object) -> RunConfig:
    path = folder / "clinics.csv"
    if not path.exists():
        write_clinics(path)
    return make_config(
        folder,
        dataset=str(path),
        label_column="ill",
        site_column="clinic",
        prune_ratio=0.0,
        quantize="none",
        phase_timeout=3.0,
        **changes,
    )


@pytest.mark.usefixtures("quick")
def test_a_site_of_too_few_rows_takes_no_part(tmp_path) -> None:
    config = clinics_config(tmp_path)
    grid = Spy(config)
    summary = run(config, grid)
    assert set(summary.left_out) == {"practice"}
    assert f"of the {ROWS_AT_LEAST} rows" in summary.left_out["practice"]
    assert "practice" in run_folder(config, "1").report.read_text(encoding="utf-8")
    assert set(summary.privacy.sites) == {"east", "north", "south"}
    assert not (run_folder(config, "1").path / "practice.ledger.db").exists()
    assert not any("practice" in str(content) for _, content in grid.replies)


def test_too_few_eligible_sites_are_refused_before_anything_runs(tmp_path) -> None:
    config = clinics_config(tmp_path, min_sites=4)
    with pytest.raises(ConfigError, match=r"sites that take part, 3; practice: it has"):
        prepare(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick")
def test_rows_that_do_not_fit_show_in_their_owners_log_and_nowhere_else(tmp_path) -> None:
    write_clinics(tmp_path / "clinics.csv", spoil=40)
    config = clinics_config(tmp_path)
    simulation = prepare_data(config)
    grid = Spy(config)
    summary = run(config, grid)
    folder = run_folder(config, "1").path
    log = (folder / "sites" / "north" / "site.log").read_text(encoding="utf-8")
    assert f"column 'city' holds '{UNKNOWN_CITY}'" in log
    assert log.count("40 of ") == 1
    assert summary.sites["north"].misfit_rows == 40
    assert UNKNOWN_CITY not in str(grid.replies)
    holders = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and UNKNOWN_CITY.encode() in path.read_bytes()
    }
    assert holders == {"sites/north/site.log"}
    assert UNKNOWN_CITY not in describe(simulation)


def test_rows_that_do_not_fit_count_as_nothing(tmp_path) -> None:
    """What a site trains on with spoiled rows is what it trains on without them."""
    plain, spoiled = tmp_path / "plain", tmp_path / "spoiled"
    for folder in (plain, spoiled):
        folder.mkdir()
    write_clinics(plain / "clinics.csv")
    write_clinics(spoiled / "clinics.csv", spoil=40)
    before = prepare_data(clinics_config(plain))
    after = prepare_data(clinics_config(spoiled))
    assert after.proxy == before.proxy
    kept = {row.tobytes() for row in after.sites["north"].rows}
    assert kept < {row.tobytes() for row in before.sites["north"].rows}
    assert (
        len(before.sites["north"].rows) - len(after.sites["north"].rows) == (after.misfits["north"])
    )


@pytest.mark.usefixtures("quick")
def test_each_site_is_compared_with_what_it_could_do_alone(tmp_path) -> None:
    config = clinics_config(tmp_path)
    summary = run(config)
    simulation = prepare_data(config)
    assert set(summary.sites) == set(simulation.sites)
    assert sum(site.weight for site in summary.sites.values()) == pytest.approx(1)
    for name, site in summary.sites.items():
        assert site.rows == len(simulation.sites[name].rows)
        everyone = site.everyone
        assert everyone.test_rows == len(simulation.test.labels)
        assert everyone.student == summary.metrics.student
        assert everyone.gain.value == pytest.approx(everyone.student.auc - everyone.local.auc)
        assert everyone.local.auc > 0.6
        assert site.own.test_rows == sum(whose == name for whose in simulation.test_site)


@pytest.mark.usefixtures("quick")
def test_without_a_site_column_there_are_no_own_test_rows(config) -> None:
    summary = run(config)
    assert all(site.own is None for site in summary.sites.values())
    assert all(site.everyone.local_private.auc > 0.5 for site in summary.sites.values())


def test_the_summary_of_the_data_names_kinds_classes_and_sites(tmp_path) -> None:
    words = describe(prepare_data(clinics_config(tmp_path)))
    assert "1 number" in words
    assert "1 category" in words
    assert "1 boolean" in words
    assert "1 date" in words
    assert "no " in words
    assert "left out: practice" in words
    assert "policies: written for the sites" in words


def test_units_are_counted_and_the_guarantee_is_said_to_cover_them(tmp_path) -> None:
    config = visits_config(tmp_path, mechanism="votes")
    words = describe(prepare_data(config))
    assert "units: " in words
    assert "the largest with 9 rows" in words
    assert "The guarantee covers a unit with all its rows" in words
