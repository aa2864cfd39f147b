"""What a person has spent over all sites, against composition that shares no code."""

import pytest

from fedistill.evaluate.summary import read_summary
from fedistill.federation.person import person_privacy
from fedistill.federation.run_folder import ledger_path, run_folder
from tests.federation.conftest import run
from tests.privacy.oracles import best_epsilon, best_rho
from tests.small import make_config

QUICK = {"prune_ratio": 0.0, "quantize": "none", "phase_timeout": 20.0}


@pytest.mark.usefixtures("quick")
def test_a_persons_total_is_the_largest_of_a_site_or_the_composition_of_all(tmp_path) -> None:
    """Over two runs on lasting ledgers."""
    lasting = {"ledger_dir": str(tmp_path / "ledgers"), "budget_epsilon": 9.0, **QUICK}
    run(make_config(tmp_path, epsilon=4.0, output_dir=str(tmp_path / "first"), **lasting))
    config = make_config(tmp_path, epsilon=1.5, output_dir=str(tmp_path / "second"), **lasting)
    summary = run(config)
    site = best_rho(4.0, 1e-5) + best_rho(1.5, 1e-5)
    person = summary.privacy.person
    assert person is not None
    assert person.one_site == pytest.approx(best_epsilon(site, 1e-5), rel=1e-4)
    assert person.one_site == max(each.total_epsilon for each in summary.privacy.sites.values())
    assert person.every_site == pytest.approx(best_epsilon(3 * site, 1e-5), rel=1e-4)
    assert person.every_site < sum(each.total_epsilon for each in summary.privacy.sites.values())
    folder = run_folder(config, "1")
    assert read_summary(folder.summary).privacy.person == person
    assert "with a record at every site" in folder.report.read_text()


@pytest.mark.usefixtures("quick")
def test_a_ledger_that_cannot_be_read_leaves_no_known_bound(tmp_path) -> None:
    config = make_config(tmp_path, **QUICK)
    summary, folder = run(config), run_folder(config, "1")
    ledger_path(config, folder, "bank_b").unlink()
    person = person_privacy(config, folder, summary.privacy.sites)
    assert person is not None
    assert person.every_site is None
    assert person.one_site == summary.privacy.person.one_site


def test_where_no_site_paid_nobody_spent_anything(tmp_path) -> None:
    config = make_config(tmp_path, **QUICK)
    assert person_privacy(config, run_folder(config, "1"), {}) is None
