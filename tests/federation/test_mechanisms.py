"""Federations of other mechanisms than the default, and of several at once."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from fedistill.errors import ConfigError, PolicyRefusal
from fedistill.evaluate.table import print_summary
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import open_site, question_of
from fedistill.federation.up_front import prepare
from fedistill.privacy.receipts import read_receipts
from tests.federation.conftest import run
from tests.small import make_config, visits_config

QUICK = {"prune_ratio": 0.0, "quantize": "none", "phase_timeout": 60.0, "shards": 20, "queries": 50}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mechanism", ["sharded", "votes", "clipped"])
def test_every_mechanism_teaches_a_federation(tmp_path, mechanism: str) -> None:
    config = make_config(tmp_path, mechanism=mechanism, epsilon=8.0, cells=20, **QUICK)
    summary = run(config)
    assert summary.mechanism == mechanism
    for site in summary.privacy.sites.values():
        assert 7.99 < site.epsilon <= 8.0
    assert set(summary.metrics.teachers) == set(config.sites)
    if mechanism != "clipped":  # no better than chance at any honest epsilon, as its page says
        assert summary.metrics.ensemble.auc > 0.6


@pytest.mark.usefixtures("quick")
def test_sites_whose_noise_is_floating_are_named_wherever_the_result_is_shown(tmp_path) -> None:
    """PRIVACY rule 14."""
    mixed = "bank_b=dp-sgd, bank_c=dp-ebm"
    config = make_config(
        tmp_path, site_mechanisms=mixed, float_noise="allow", epsilon=8.0, sgd_steps=20, **QUICK
    )
    summary = run(config)
    assert {name for name, site in summary.privacy.sites.items() if site.float_noise} == {
        "bank_b",
        "bank_c",
    }
    for site in summary.privacy.sites.values():
        assert 7.9 < site.epsilon <= 8.0
    report = run_folder(config, "1").path / "report.html"
    console = Console(width=200, file=StringIO())
    print_summary(summary, report=None, console=console)
    for shown in (report.read_text(), console.file.getvalue(), summary.guarantee):
        assert "floating" in shown
        assert "bank_b and bank_c" in shown
    assert summary.metrics.ensemble.auc > 0.7


@pytest.mark.usefixtures("quick")
def test_teachers_that_answer_where_they_agree_teach_a_federation(tmp_path) -> None:
    config = make_config(
        tmp_path, mechanism="sharded", answers="confident", confidence=0.6, epsilon=8.0, **QUICK
    )
    summary = run(config)
    assert all(7.99 < site.epsilon <= 8.0 for site in summary.privacy.sites.values())
    assert summary.metrics.ensemble.auc > 0.6


@pytest.mark.usefixtures("quick")
def test_sites_of_one_federation_may_answer_by_different_mechanisms(tmp_path) -> None:
    mixed = "bank_b=votes, bank_c=sharded:boosting"
    config = make_config(tmp_path, site_mechanisms=mixed, cells=20, **QUICK)
    summary = run(config)
    said = {
        receipt.site: receipt.what for receipt in read_receipts(run_folder(config, "1").receipts)
    }
    assert "dp-probe" in said["bank_a"]
    assert "votes" in said["bank_b"]
    assert "sharded" in said["bank_c"]
    used = {site: each.mechanism for site, each in summary.privacy.sites.items()}
    assert used == {"bank_a": "dp-probe", "bank_b": "votes", "bank_c": "sharded"}
    assert summary.metrics.ensemble.auc > 0.7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mechanism": "dp-prob"}, "did you mean 'dp-probe'"),
        ({"mechanism": "sharded", "teacher": "logistik"}, "logistic"),
        ({"mechanism": "sharded", "teacher": "fractions:Fraction"}, "predict_proba"),
        ({"mechanism": "dp-sgd"}, "float-noise='refuse' must be 'allow' for mechanism='dp-sgd'"),
        ({"site_mechanisms": "bank_c=dp-ebm"}, "float-noise='refuse' must be 'allow'"),
        ({"mechanism": "dp-sgd", "float_noise": "allow", "teacher": "cnn"}, "square images"),
        ({"mechanism": "sharded", "answers": "confident", "queries": 2000}, "queries=2000 must be"),
        ({"site_mechanisms": "bank_x=votes"}, "bank_x"),
        ({"site_mechanisms": "bank_a=clipped-site"}, "mixes guarantees for record and site"),
    ],
)
def test_what_no_site_can_answer_is_refused_before_anything_runs(tmp_path, changes, words) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare(make_config(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"site_mechanisms": "bank_b=dp-prob"}, "mechanism='dp-prob' must be a mechanism"),
        ({"site_mechanisms": "bank_b=sharded:logistik"}, "teacher='logistik' must be a teacher"),
        ({"site_mechanisms": "bank_b=dp-ebm"}, "float-noise='refuse' must be 'allow'"),
        ({"site_mechanisms": "bank_b=dp-prob, bank_c=dp-prob"}, "mechanism='dp-prob' must be"),
    ],
)
def test_a_refusal_names_the_site_whose_mechanism_is_at_fault(tmp_path, changes, words) -> None:
    with pytest.raises(ConfigError) as refused:
        prepare(make_config(tmp_path, **changes))
    start = f"site-mechanisms={changes['site_mechanisms']!r}, bank_b: "
    assert str(refused.value).startswith(f"{start}{words}")


@pytest.mark.parametrize("also", ["bank_b=dp-prob", "bank_c=dp-prob", ""])
def test_a_refusal_of_the_run_s_own_mechanism_names_no_site(tmp_path, also: str) -> None:
    with pytest.raises(ConfigError, match=r"^mechanism='dp-prob' must be a mechanism"):
        prepare(make_config(tmp_path, mechanism="dp-prob", site_mechanisms=also))


def test_a_unit_that_one_site_cannot_give_is_refused_by_the_name_of_that_site(tmp_path) -> None:
    mixed = "bank_c=dp-ebm"
    with pytest.raises(ConfigError) as refused:
        prepare(visits_config(tmp_path, site_mechanisms=mixed, float_noise="allow"))
    assert str(refused.value).startswith(
        f"site-mechanisms={mixed!r}, bank_c: unit-column='patient' asks to protect"
    )


@pytest.mark.parametrize("value", ["bank_a", "=votes", "bank_a=", "bank_a=votes,bank_a=votes"])
def test_a_malformed_list_of_mechanisms_is_refused(tmp_path, value: str) -> None:
    with pytest.raises(ConfigError, match="site-mechanisms="):
        make_config(tmp_path, site_mechanisms=value)


def test_a_server_cannot_make_a_site_run_a_teacher_that_its_policy_does_not_name(tmp_path) -> None:
    """An import path runs its code at the site: the policy must name it."""
    config = make_config(tmp_path, mechanism="sharded", teacher="logistic")
    agent = open_site(config, "bank_a", run_folder(config, "1"), "1")
    asked = question_of(
        make_config(tmp_path, mechanism="sharded", teacher="os:abort"), prepare(config)
    )
    with pytest.raises(PolicyRefusal, match="teachers"):
        agent.labels(asked)
    assert not agent.ledger_path.exists()


@pytest.mark.usefixtures("quick")
def test_a_site_level_guarantee_says_so(tmp_path) -> None:
    summary = run(make_config(tmp_path, mechanism="clipped-site", **QUICK))
    assert {site.unit for site in summary.privacy.sites.values()} == {"site"}
    assert "whole site" in summary.guarantee
    assert np.isfinite(summary.metrics.student.auc)
