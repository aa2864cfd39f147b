"""A federation that protects patients with several visits: policies, ledgers, refusals."""

from dataclasses import replace

import pytest

from fedistill.errors import ConfigError, LedgerError, PolicyRefusal
from fedistill.evaluate.wording import guarantee_sentence
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import open_site, question_of
from fedistill.federation.up_front import prepare
from fedistill.mechanisms import mechanisms_that_protect, votes
from fedistill.privacy.adjacency import Unit
from fedistill.privacy.receipts import read_receipts
from fedistill.site import LocalAgent, open_ledger
from tests.federation.conftest import run
from tests.small import visits_config

QUICK = {"prune_ratio": 0.0, "quantize": "none", "phase_timeout": 60.0, "shards": 20, "queries": 50}


def agent_of(config) -> LocalAgent:
    return open_site(config, "bank_a", run_folder(config, "1"), "1")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mechanism", ["votes", "sharded", "clipped"])
def test_patients_are_protected_and_everything_says_so(tmp_path, mechanism: str) -> None:
    config = visits_config(tmp_path, mechanism=mechanism, cells=5, epsilon=8.0, **QUICK)
    summary = run(config)
    assert {site.unit for site in summary.privacy.sites.values()} == {"group"}
    assert "person's or customer's group of records" in summary.guarantee
    assert summary.guarantee == guarantee_sentence(summary.privacy.sites)
    assert {receipt.unit for receipt in read_receipts(run_folder(config, "1").receipts)} == {
        "group"
    }
    with open_ledger(agent_of(config).policy, agent_of(config).ledger_path, create=False) as ledger:
        assert len(ledger.entries()) == 1
    if mechanism != "clipped":  # no better than chance at any honest epsilon, as its page says
        assert summary.metrics.ensemble.auc > 0.7


def test_a_sites_votes_are_its_patients(tmp_path, monkeypatch) -> None:
    exact = []
    monkeypatch.setattr(votes, "add_noise", lambda counts, scale: exact.append(counts) or counts)
    config = visits_config(tmp_path, mechanism="votes", cells=5)
    agent = agent_of(config)
    agent.labels(question_of(config, prepare(config), "bank_a"))
    patients, visits = agent.rows.num_units, len(agent.rows.rows)
    assert visits > 3 * patients
    # Each patient's share is rounded down by less than one step a visit.
    assert patients * votes.VOTE - visits < exact[0].sum() <= patients * votes.VOTE


@pytest.mark.parametrize(
    "changes", [{"mechanism": "clipped-site"}, {"site_mechanisms": "bank_b=clipped-site"}]
)
def test_a_mechanism_that_cannot_protect_units_is_refused_before_anything_runs(
    tmp_path, changes
) -> None:
    able = mechanisms_that_protect(Unit.GROUP)
    assert {"votes", "sharded", "clipped"} <= set(able)
    assert "clipped-site" not in able
    config = visits_config(tmp_path, **({"mechanism": "votes"} | changes))
    with pytest.raises(ConfigError, match=r"unit-column='patient'.*'clipped-site'") as refused:
        prepare(config)
    assert f"choose one of {', '.join(able)}, or leave unit-column empty" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_site_refuses_what_cannot_protect_its_unit_and_charges_nothing(tmp_path) -> None:
    """The server asks for a mechanism that the policy names, but whose guarantee is another."""
    config = visits_config(tmp_path, mechanism="votes")
    agent = agent_of(config)
    policy = agent.policy.model_copy(update={"mechanisms": ("votes", "clipped-site")})
    asked = replace(question_of(config, prepare(config)), mechanism="clipped-site")
    with pytest.raises(
        PolicyRefusal, match="unit=group must be what clipped-site guarantees, site"
    ):
        replace(agent, policy=policy).labels(asked)
    assert not agent.ledger_path.exists()


def test_a_site_that_protects_units_refuses_rows_without_them(tmp_path) -> None:
    config = visits_config(tmp_path, mechanism="votes")
    agent = agent_of(config)
    asked = question_of(config, prepare(config))
    with pytest.raises(PolicyRefusal, match="unit=group must have rows that name their units"):
        replace(agent, rows=replace(agent.rows, units=None)).labels(asked)
    assert not agent.ledger_path.exists()


def test_at_record_level_each_row_counts_whosever_it_is(tmp_path, monkeypatch) -> None:
    """The site's policy says whom it protects; that its rows name units does not change it."""
    exact = []
    monkeypatch.setattr(votes, "add_noise", lambda counts, scale: exact.append(counts) or counts)
    config = visits_config(tmp_path, mechanism="votes", cells=5)
    agent = agent_of(config)
    policy = agent.policy.model_copy(update={"unit": Unit.RECORD})
    replace(agent, policy=policy).labels(question_of(config, prepare(config)))
    assert exact[0].sum() == len(agent.rows.rows) * votes.VOTE


def test_a_ledger_of_units_takes_no_charge_for_single_rows(tmp_path) -> None:
    """One unit for life: what was charged for patients cannot go on as if for visits."""
    config = visits_config(tmp_path, mechanism="votes", cells=5)
    agent, asked = agent_of(config), question_of(config, prepare(config))
    agent.labels(asked)
    policy = agent.policy.model_copy(update={"unit": Unit.RECORD, "total_epsilon": 99.0})
    with pytest.raises(LedgerError, match="has unit=group, not record"):
        replace(agent, policy=policy).labels(replace(asked, epsilon=1.0))


def test_a_site_of_many_visits_by_few_patients_takes_no_part(tmp_path) -> None:
    """`rows-at-least` is about units where these are protected: 260 private patients, 14 sites."""
    sites = {"num_sites": 14, "min_sites": 14}
    with pytest.raises(ConfigError, match=r"it has 18 of the 20 units that rows-at-least asks for"):
        prepare(visits_config(tmp_path, mechanism="votes", **sites))
    visits = visits_config(
        tmp_path, mechanism="votes", unit_column="", ignore_columns="patient", **sites
    )
    assert len(prepare(visits).sites) == 14
