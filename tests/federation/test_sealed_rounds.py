"""Sealed rounds with real messages: the server sees a sum, nothing of one site (promise 5)."""

import hashlib
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from dp_accounting import ZCDpEvent
from flwr.app import ConfigRecord, Message, RecordDict

from fedistill.codec import decode_release
from fedistill.errors import ConfigError, TooFewSites
from fedistill.evaluate.summary import read_summary
from fedistill.federation import messages, phases, sealed_messages
from fedistill.federation.answers import Answers, ask_for_labels
from fedistill.federation.run_folder import ledger_path, run_folder
from fedistill.federation.simulation import (
    open_site,
    policy_of,
    prepare_data,
    questions_of,
    write_policies,
)
from fedistill.federation.up_front import prepare
from fedistill.labels import LabelQuestion, LabelRelease
from fedistill.mechanisms import mechanism_named
from fedistill.privacy.accountant import calibrate_rho, epsilon_of
from fedistill.privacy.adjacency import Adjacency
from fedistill.privacy.receipts import read_receipts
from fedistill.secagg import MaskedVector, RoundTerms
from fedistill.site import open_ledger
from fedistill.site.sealing import bound_to
from fedistill.summands import layout_of, to_summands
from tests.federation.conftest import Spy, make_run, run, server_of
from tests.small import make_config

pytestmark = pytest.mark.usefixtures("quick")

STEPS = (
    sealed_messages.KEYS,
    sealed_messages.SHARES,
    sealed_messages.SEALED,
    sealed_messages.AGREE,
    sealed_messages.UNMASK,
)


def sealed_config(tmp_path, **changes):
    fixed = {"prune_ratio": 0.0, "quantize": "none", "phase_timeout": 2.0}
    return make_config(tmp_path, **(fixed | {"secure_aggregation": True} | changes))


def ask(config, grid=None) -> Answers:
    """The workflow as far as the labels: what these tests are about."""
    simulation = prepare(config)
    this = make_run(config, grid or Spy(config), simulation)
    this.folder.claim(config)
    write_policies(config, simulation, this.folder)
    answers = ask_for_labels(this, phases.hello(this))
    warned.extend(this.warnings)
    return answers


warned: list[str] = []


@pytest.fixture
def config(tmp_path):
    return sealed_config(tmp_path)


def stored_releases(config) -> dict[str, LabelRelease]:
    """What each site keeps in its own ledger: the server never sees these."""
    simulation = prepare_data(config)
    releases = {}
    for site, question in questions_of(config, simulation).items():
        policy = policy_of(config, simulation, site)
        path = ledger_path(config, run_folder(config, "1"), site)
        if not path.exists():
            continue
        with open_ledger(policy, path, create=False) as ledger:
            stored = ledger.cached(question.sha256)
        mechanism = mechanism_named(question.mechanism)
        releases[site] = decode_release(
            stored.release,
            question=question,
            num_rows=len(simulation.proxy.rows),
            event=stored.charge.event,
            parameters=mechanism.parameters,
        )
    return releases


def question_to_bank_a(config) -> LabelQuestion:
    question = questions_of(config, prepare_data(config))["bank_a"]
    return replace(question, server_key=server_of(config).key.public)


def opened_sum(config, number: int = 1) -> dict:
    return json.loads(run_folder(config, "1").checkpoint(f"round-{number}.json").read_text())


def exact_sum(config, sites) -> np.ndarray:
    releases = stored_releases(config)
    first = next(iter(releases.values()))
    names = {
        release.mechanism: mechanism_named(release.mechanism).parameters
        for release in releases.values()
    }
    layout = layout_of(len(first.codes), first.codes.shape[1] + 1, names)
    return sum(to_summands(releases[site], layout, 2**30) for site in sites)


def charges(config, site: str) -> int:
    simulation = prepare_data(config)
    path = ledger_path(config, run_folder(config, "1"), site)
    if not path.exists():
        return 0
    with open_ledger(policy_of(config, simulation, site), path, create=False) as ledger:
        return len(ledger.entries())


def test_the_opened_sum_is_exactly_that_of_the_sites_releases(config) -> None:
    summary = run(config)
    opened = opened_sum(config)
    assert opened["sites"] == ["bank_a", "bank_b", "bank_c"]
    assert opened["total"] == exact_sum(config, opened["sites"]).tolist()
    assert summary.metrics.teachers is None
    assert summary.metrics.ensemble.auc > 0.7
    assert read_summary(run_folder(config, "1").summary) == summary
    assert set(summary.timings) >= {"keys", "shares", "labels", "unmask"}


def test_no_site_s_labels_cross_the_wire(config) -> None:
    """Promise 5: every message is one of the protocol, and masked vectors are all that is long."""
    grid = Spy(config)
    ask(config, grid)
    assert {action for action, _ in grid.replies} == {messages.HELLO, *STEPS}
    releases = stored_releases(config)
    for action, content in grid.replies:
        assert not content.array_records
        assert not content.metric_records
        if action == messages.HELLO:
            continue
        assert set(content["reply"]) == {"site", "status", "message"}
        sent, codes = content["reply"]["message"], releases[content["reply"]["site"]].codes
        assert codes.astype("<i2").tobytes()[:64] not in sent
        assert codes.astype("<i4").tobytes()[:64] not in sent


def test_masked_vectors_look_uniform_and_change_with_every_round(tmp_path) -> None:
    vectors = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        # The second run gives the same answers again: the ledgers are shared.
        config = sealed_config(tmp_path / name, ledger_dir=str(tmp_path / "ledgers"))
        grid = Spy(config)
        ask(config, grid)
        vectors.append(
            {
                content["reply"]["site"]: np.frombuffer(content["reply"]["message"][100:], "<u4")
                for action, content in grid.replies
                if action == sealed_messages.SEALED
            }
        )
    first, second = vectors
    for site in first:
        assert (first[site] == second[site]).mean() < 0.05
        # 300 uniform words: a mean beyond five standard errors has probability 6e-7.
        error = abs(first[site].mean() / 2**32 - 0.5)
        assert error < 5 / np.sqrt(12 * len(first[site]))


def test_sizes_on_the_wire_do_not_tell_the_number_of_rows(tmp_path) -> None:
    """PRIVACY rules 2 and 4."""
    sizes = []
    for name, rows in (("few", 900), ("many", 1_500)):
        folder = tmp_path / name
        folder.mkdir()
        full = sealed_config(folder)
        with np.load(full.dataset) as table:
            fields = dict(table)
        proxy = len(prepare_data(full).proxy.rows)
        kept = {key: value[:rows] if key != "features" else value for key, value in fields.items()}
        np.savez(folder / "table.npz", **kept)
        # As many public rows, fewer private ones.
        config = sealed_config(folder, proxy_fraction=proxy / rows)
        assert len(prepare_data(config).proxy.rows) == proxy
        grid = Spy(config)
        ask(config, grid)
        sizes.append({action: messages.wire_bytes(content) for action, content in grid.replies})
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("step", STEPS)
def test_a_site_that_vanishes_at_any_step_leaves_an_exact_sum_of_the_others(config, step) -> None:
    grid = Spy(config)
    grid.silent_at = {(step, "bank_b")}
    ask(config, grid)
    opened = opened_sum(config)
    after = step in (sealed_messages.AGREE, sealed_messages.UNMASK)
    # Its vector had arrived already when it vanished there.
    left = ["bank_a", "bank_b", "bank_c"] if after else ["bank_a", "bank_c"]
    assert opened["sites"] == left
    assert opened["total"] == exact_sum(config, left).tolist()
    assert any("bank_b did not answer" in text for text in warned)
    assert charges(config, "bank_b") == after


@pytest.mark.parametrize("step", STEPS)
def test_one_site_alone_is_never_opened(config, step) -> None:
    """PRIVACY rule 16: two honest sites at least, or nothing is learned."""
    grid = Spy(config)
    grid.silent_at = {(step, "bank_b"), (step, "bank_c")}
    with pytest.raises(TooFewSites, match="too few sites"):
        ask(config, grid)
    assert not run_folder(config, "1").checkpoint("round-1.json").exists()


@pytest.mark.parametrize("num_nodes", [1, 2, 5])
def test_any_number_of_nodes_hosts_all_sites(config, num_nodes) -> None:
    """Sites of one node share its memory, and must not overwrite each other's keys."""
    ask(config, Spy(config, num_nodes=num_nodes))
    assert len(opened_sum(config)["sites"]) == 3


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "tamper",
    [
        lambda message: message[:-1],
        lambda message: message[:-1] + bytes([message[-1] ^ 1]),
        lambda message: b"",
        lambda message: message + b"\0",
    ],
    ids=["cut", "flipped", "empty", "longer"],
)
def test_a_malformed_site_never_falsifies_the_sum(config, step, tamper) -> None:
    grid = Spy(config)

    def change(action, content):
        if action != step or content["reply"]["site"] != "bank_c":
            return content
        record = dict(content["reply"])
        record["message"] = tamper(record["message"])
        return RecordDict({"reply": ConfigRecord(record)})

    grid.tamper = change
    ask(config, grid)
    opened = opened_sum(config)
    exact = exact_sum(config, opened["sites"])
    if step == sealed_messages.SEALED and "bank_c" in opened["sites"]:
        # A flipped bit of a masked value is a value that the site might have sent.
        assert np.abs(np.array(opened["total"]) - exact).max() <= 2**31
    else:
        assert opened["total"] == exact.tolist()


class TestMaliciousServer:
    def ask(self, config, grid, action, content, node: int = 1):
        out = Message(content, message_type=action, dst_node_id=node)
        (reply,) = grid.pull_messages(list(grid.push_messages([out])))
        return reply.content["reply" if action != messages.LABELS else "release"]

    def started(self, config):
        grid = Spy(config, num_nodes=1)
        ask(config, grid)
        return grid

    def terms(self, config, **changes) -> RoundTerms:
        simulation, folder = prepare_data(config), run_folder(config, "1")
        identities = []
        for site in simulation.sites:
            with open_site(config, site, folder, "1") as agent:
                identities.append((site, agent.identity.public_key().public_bytes_raw()))
        names = {"dp-probe": ("noised-count",)}
        layout = layout_of(len(simulation.proxy.rows), 2, names)
        from fedistill.privacy.grid import LABEL_SCALE

        fields = {
            "run": "evil",
            "round": 1,
            "identities": tuple(sorted(identities)),
            "config_sha256": config.sha256(),
            "proxy_sha256": simulation.proxy.sha256,
            "length": layout.length,
            "bound": (2**31 - 1) // len(identities),
            "grid": LABEL_SCALE,
            "threshold": 2,
            "colluding": 0,
            "min_honest": 2,
        }
        return RoundTerms(**(fields | changes))

    def invite(self, config, grid, terms, **changes):
        question = replace(question_to_bank_a(config), **changes)
        invitation = sealed_messages.Invitation(
            site="bank_a",
            question=question,
            terms=terms,
            stated=(("dp-probe", "noised-count"),),
        )
        content = sealed_messages.invitation_to_record(invitation)
        return self.ask(config, grid, sealed_messages.KEYS, content)

    def test_it_gets_no_labels_outside_a_sum(self, config) -> None:
        grid = self.started(config)
        question = question_to_bank_a(config)
        content = messages.question_to_record("bank_a", question)
        assert dict(self.ask(config, grid, messages.LABELS, content)) == {
            "site": "bank_a",
            "status": "policy:secure-aggregation",
        }

    @pytest.mark.parametrize(
        "changes",
        [
            {"length": 7},
            {"bound": 5},
            {"grid": 1.0},
            {"proxy_sha256": "ab" * 32},
            {"config_sha256": "ab" * 32},
            {"round": 2},
        ],
    )
    def test_terms_that_do_not_fit_the_question_are_refused(self, config, changes) -> None:
        grid = self.started(config)
        reply = self.invite(config, grid, self.terms(config, **changes))
        assert reply["status"] == "policy"

    def test_a_round_of_fewer_honest_sites_than_the_policy_asks_is_refused(self, tmp_path) -> None:
        config = sealed_config(tmp_path, min_honest_sites=3)
        grid = self.started(config)
        reply = self.invite(config, grid, self.terms(config, min_honest=2))
        assert reply["status"] == "policy:min-honest-sites"
        log = run_folder(config, "1").site("bank_a") / "site.log"
        assert "min-honest-sites=2 must be at least 3" in log.read_text()

    def test_an_invented_site_gets_no_keys(self, config) -> None:
        """PRIVACY rule 17: the roster must be the sites that the policy pins."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        grid = self.started(config)
        before = charges(config, "bank_a")
        identities = {**dict(self.terms(config).identities)}
        identities["bank_b"] = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        del identities["bank_c"]
        terms = self.terms(
            config, identities=tuple(sorted(identities.items())), bound=(2**31 - 1) // 2
        )
        reply = self.invite(config, grid, terms)
        assert reply["status"] == "policy:peers"
        assert "message" not in reply
        assert charges(config, "bank_a") == before
        log = run_folder(config, "1").site("bank_a") / "site.log"
        assert f"peers=bank_b, {identities['bank_b'].hex()[:12]} must be pinned" in log.read_text()

    @pytest.mark.parametrize("step", STEPS[1:])
    def test_a_repeated_step_is_refused_and_costs_nothing(self, config, step) -> None:
        sent = {}

        class Recorder(Spy):
            def push_messages(self, outgoing):
                outgoing = list(outgoing)
                for message in outgoing:
                    record = message.content.config_records.get("step")
                    if record is not None and record["site"] == "bank_a":
                        sent[message.metadata.message_type] = message.content
                return super().push_messages(outgoing)

        grid = Recorder(config, num_nodes=1)
        ask(config, grid)
        before = charges(config, "bank_a")
        reply = self.ask(config, grid, step, sent[step])
        assert "message" not in reply
        assert charges(config, "bank_a") == before == 1

    def test_shared_noise_that_the_policy_does_not_allow_is_refused(self, config) -> None:
        grid = self.started(config)
        terms = self.terms(config)
        question = replace(question_to_bank_a(config), trust="secagg", min_honest_sites=2)
        reply = self.invite(config, grid, terms, **asdict(bound_to(terms, question)))
        assert reply["status"] == "policy:trust"


class TestSharedNoise:
    def test_both_views_of_trust_are_charged_and_reported(self, tmp_path) -> None:
        """PRIVACY rule 11: what the server learns, and what all other sites together would."""
        config = sealed_config(tmp_path, trust="secagg", solver="moment", epsilon=1.0)
        summary = run(config)
        for site in summary.privacy.sites.values():
            assert site.epsilon == pytest.approx(1.0, abs=1e-6)
            assert site.views.server == pytest.approx(1.0, abs=1e-6)
            # Two honest sites share the noise: alone, twice the rho.
            assert 1.4 < site.views.everyone < 1.5
        assert "at least 2 sites of every sum keep" in summary.guarantee
        # Someone with a record at all three sites moves the sum three times: by nine times the
        # divergence of one site with three parts of noise, so three times that of a part alone.
        rho = 3 * 2 * calibrate_rho(1.0, config.delta)
        moved = epsilon_of(ZCDpEvent(rho), config.delta, Adjacency.ADD_REMOVE)
        assert summary.privacy.person.every_site == pytest.approx(moved, rel=0.01)
        assert summary.privacy.person.one_site == pytest.approx(1.0, abs=1e-6)

    def test_the_same_question_is_fresh_noise_and_a_fresh_charge(self, tmp_path) -> None:
        """PRIVACY rule 13: codes with shared noise are never sealed twice."""
        sums = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            config = sealed_config(
                tmp_path / name,
                trust="secagg",
                solver="moment",
                epsilon=1.0,
                budget_epsilon=4.0,
                ledger_dir=str(tmp_path / "ledgers"),
            )
            ask(config)
            sums.append(opened_sum(config)["total"])
        assert sums[0] != sums[1]
        assert charges(config, "bank_a") == 2

    def test_the_budget_against_all_others_refuses_by_itself(self, tmp_path) -> None:
        config = sealed_config(tmp_path, trust="secagg", solver="moment", epsilon=1.0)
        folder = run_folder(config, "1")
        ask(config)
        policy_path = folder.site("bank_a") / "policy.toml"
        text = policy_path.read_text()
        policy_path.write_text(
            "\n".join(
                "total-epsilon = 50.0" if line.startswith("total-epsilon =") else line
                for line in text.splitlines()
            )
        )
        from fedistill.errors import BudgetExceeded
        from fedistill.site.sealing import bound_to
        from fedistill.site.summing import summed_integers

        question = question_to_bank_a(config)
        asked = bound_to(TestMaliciousServer().terms(config), question)
        with (
            open_site(config, "bank_a", folder, "1") as agent,
            pytest.raises(BudgetExceeded, match="all other sites colluding"),
        ):
            summed_integers(agent, asked, 3, np.zeros((1, 2)))

    def test_mechanisms_whose_integers_are_not_summed_are_refused_up_front(self, tmp_path) -> None:
        """PRIVACY rule 18."""
        config = sealed_config(tmp_path, trust="secagg")
        with pytest.raises(ConfigError, match="solver"):
            prepare(config)
        config = sealed_config(tmp_path, trust="secagg", mechanism="dp-sgd", float_noise="allow")
        with pytest.raises(ConfigError, match="cannot be summed"):
            prepare(config)


class TestCorrections:
    def test_every_round_is_a_sum_and_a_charge(self, tmp_path) -> None:
        config = sealed_config(tmp_path, mechanism="corrections", rounds=3, epsilon=1.0)
        summary = run(config)
        assert charges(config, "bank_a") == 3
        assert opened_sum(config, 3)["sites"] == ["bank_a", "bank_b", "bank_c"]
        assert summary.privacy.sites["bank_a"].epsilon == pytest.approx(1.0, abs=1e-6)
        assert summary.metrics.ensemble.auc > 0.7

    def test_a_site_may_vanish_between_rounds(self, tmp_path) -> None:
        config = sealed_config(tmp_path, mechanism="corrections", rounds=3)
        grid = Spy(config)
        grid.silent_after = {(sealed_messages.KEYS, "bank_b"): 1}
        ask(config, grid)
        assert opened_sum(config, 1)["sites"] == ["bank_a", "bank_b", "bank_c"]
        assert opened_sum(config, 3)["sites"] == ["bank_a", "bank_c"]

    def test_finished_rounds_are_not_asked_again(self, tmp_path) -> None:
        """Promise 6: a run that stopped in round 3 goes on there, and pays for nothing twice."""
        config = sealed_config(tmp_path, mechanism="corrections", rounds=3)
        grid = Spy(config)
        grid.silent_after = {(sealed_messages.SHARES, site): 2 for site in ("bank_b", "bank_c")}
        with pytest.raises(TooFewSites):
            ask(config, grid)
        assert charges(config, "bank_a") == 2
        again = Spy(config)
        ask(config, again)
        assert charges(config, "bank_a") == 3
        keys = [action for action, _ in again.replies if action == sealed_messages.KEYS]
        assert len(keys) == 3

    def test_weights_that_the_question_does_not_name_are_refused(self, tmp_path) -> None:
        from fedistill.errors import PolicyRefusal
        from fedistill.site.sealing import _sent_weights, weights_sha256, weights_to_bytes

        config = sealed_config(tmp_path, mechanism="corrections", rounds=3)
        ask(config)
        question = question_to_bank_a(config)
        with open_site(config, "bank_a", run_folder(config, "1"), "1") as agent:
            zeros = _sent_weights(agent, question, b"")
            assert not zeros.any()
            weights = zeros + 0.5
            named = replace(question, broadcast_sha256=weights_sha256(weights))
            sent = weights_to_bytes(weights)
            assert (_sent_weights(agent, named, sent) == weights).all()
            for wrong in (b"", sent[:-8], sent[:-1] + b"\xff", weights_to_bytes(zeros + np.nan)):
                with pytest.raises(PolicyRefusal, match="broadcast_sha256"):
                    _sent_weights(agent, named, wrong)


def test_receipts_state_the_bytes_that_left(config) -> None:
    grid = Spy(config)
    ask(config, grid)
    sent = {
        content["reply"]["site"]: content["reply"]["message"]
        for action, content in grid.replies
        if action == sealed_messages.SEALED
    }
    receipts = read_receipts(run_folder(config, "1").receipts)
    assert {receipt.site for receipt in receipts} == set(sent)
    for receipt in receipts:
        assert receipt.sealed
        assert receipt.sha256 == hashlib.sha256(sent[receipt.site]).hexdigest()
        assert receipt.bytes == len(sent[receipt.site])
        assert "masked" in receipt.what


def test_sites_with_unlike_mechanisms_have_a_sum(tmp_path) -> None:
    config = sealed_config(tmp_path, site_mechanisms="bank_a=votes,bank_c=clipped")
    summary = run(config)
    opened = opened_sum(config)
    assert opened["total"] == exact_sum(config, opened["sites"]).tolist()
    assert summary.privacy.sites["bank_a"].mechanism == "votes"


def test_only_messages_of_the_protocol_can_be_encoded() -> None:
    with pytest.raises(TypeError, match="no message of a sealed round"):
        sealed_messages.reply_to_record("bank_a", np.zeros(3))
    assert MaskedVector in sealed_messages.Reply.__args__
    assert LabelRelease not in sealed_messages.Reply.__args__


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"secure-aggregation": False, "trust": "secagg"}, "trust='secagg' must be 'none' with"),
        ({"secure-aggregation": False, "mechanism": "corrections"}, "works on sums over sites"),
        ({"ensemble-weights": "agreement"}, "must be 'auto' or 'uniform' with"),
        ({"mechanism": "sharded", "answers": "confident"}, "answers='confident' must be 'soft'"),
        ({"rounds": 3}, "rounds=3 must be 0 or 1"),
        (
            {"trust": "secagg", "site-mechanisms": "bank_a=votes"},
            "site-mechanisms must be '' with trust='secagg'",
        ),
        ({"min-honest-sites": 1}, "min-honest-sites=1 must be at least 2"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, message) -> None:
    from fedistill.config import RunConfig

    with pytest.raises(ConfigError, match=message):
        RunConfig.from_flat(keys)


def test_too_few_sites_for_a_sum_are_refused_before_anything_runs(tmp_path) -> None:
    config = sealed_config(tmp_path, colluding_sites=2)
    with pytest.raises(ConfigError, match="need 4 sites, and 3 take part: invite more sites"):
        prepare(config)
