"""A site that lies, in a federation of real messages in one process."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from fedistill.codec import decode_release, encode_release
from fedistill.config import RunConfig
from fedistill.distill.target import Ensemble
from fedistill.errors import ConfigError
from fedistill.evaluate.metrics import score
from fedistill.federation import messages, phases
from fedistill.federation.answers import ask_for_labels
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import prepare_data, question_of
from fedistill.federation.up_front import prepare
from fedistill.federation.workflow import average
from fedistill.labels import probabilities
from fedistill.mechanisms import mechanism_named
from tests.federation.conftest import Spy, make_run, run
from tests.small import make_config

LIAR = "bank_b"
BOUND = 32767


def poison(config: RunConfig):
    """The liar answers the opposite at the grid's bound, and claims a million rows."""
    simulation = prepare_data(config)
    question = question_of(config, simulation, LIAR)
    mechanism = mechanism_named(question.mechanism)
    plan = mechanism.plan(question, simulation.proxy, rows_at_least=0)

    def tamper(action: str, content: RecordDict) -> RecordDict:
        answer = messages.read_answer(content) if action == messages.LABELS else None
        if answer is None or answer.site != LIAR:
            return content
        release = decode_release(
            answer.release,
            question=question,
            num_rows=len(simulation.proxy.rows),
            event=plan.event,
            parameters=mechanism.parameters,
        )
        lie = type(release)(
            **vars(release)
            | {
                "codes": (-BOUND * np.sign(release.codes)).astype(np.int16),
                "parameters": {"noised-count": 1e6},
            }
        )
        record = ConfigRecord({"site": LIAR, "status": messages.OK, "release": encode_release(lie)})
        return RecordDict({"release": record})

    return tamper


def config_of(folder, weights: str) -> RunConfig:
    return make_config(
        folder,
        ensemble_weights=weights,
        min_sites=3,
        prune_ratio=0.0,
        quantize="none",
        phase_timeout=3.0,
    )


def ask_and_combine(config: RunConfig, *, poisoned: bool) -> tuple[float, Ensemble, list[str]]:
    """The workflow up to the target: the ensemble's AUC on test rows, itself, and the warnings."""
    grid, simulation = Spy(config), prepare(config)
    if poisoned:
        grid.tamper = poison(config)
    this = make_run(config, grid, simulation)
    this.folder.claim(config)
    ensemble = average(this, ask_for_labels(this, phases.hello(this)))
    scores = score(probabilities(ensemble.label(simulation.test.rows)), simulation.test.labels)
    return scores.auc, ensemble, this.warnings


def test_equal_weights_let_one_site_turn_the_ensemble_around(tmp_path) -> None:
    auc, _, _ = ask_and_combine(config_of(tmp_path, "uniform"), poisoned=True)
    assert auc < 0.5


@pytest.mark.parametrize("weights", ["agreement", "median", "trimmed"])
def test_one_lying_site_of_three_does_not_spoil_the_ensemble(tmp_path, weights: str) -> None:
    auc, _, (receipt, warning) = ask_and_combine(config_of(tmp_path, weights), poisoned=True)
    assert receipt.startswith(f"{LIAR} sent an answer without a good receipt")
    assert auc > 0.75
    assert warning.startswith(f"{LIAR} disagrees with the other sites by ")
    assert "standard deviations" in warning
    assert ("its weight is lowered" in warning) == (weights == "agreement")


@pytest.mark.parametrize("weights", ["agreement", "median", "trimmed"])
def test_among_honest_sites_nobody_is_accused(tmp_path, weights: str) -> None:
    auc, ensemble, warnings = ask_and_combine(config_of(tmp_path, weights), poisoned=False)
    assert auc > 0.75
    assert warnings == []
    assert sum(ensemble.site_shares) == pytest.approx(1.0)


@pytest.mark.usefixtures("quick")
def test_summary_and_report_show_the_lowered_share_and_the_warning(tmp_path) -> None:
    config = config_of(tmp_path, "agreement")
    grid = Spy(config)
    grid.tamper = poison(config)
    summary = run(config, grid)
    assert summary.sites[LIAR].weight < 0.05
    assert any("disagrees with the other sites" in warning for warning in summary.warnings)
    report = run_folder(config, "1").report.read_text(encoding="utf-8")
    assert "disagrees with the other sites" in report


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ensemble_weights": "median"},
            "min-sites=2 must be at least 3 with ensemble-weights='median', or one site decides "
            "alone: raise min-sites",
        ),
        (
            {"ensemble_weights": "trimmed", "trim": 2, "min_sites": 3},
            "min-sites=3 must be at least 5 with ensemble-weights='trimmed' and trim=2, or one "
            "site decides alone: raise min-sites or lower trim",
        ),
        ({"trim": 0}, "trim=0 must be at least 1: raise trim"),
    ],
)
def test_too_few_sites_are_refused_before_anything_is_charged(tmp_path, changes, message) -> None:
    with pytest.raises(ConfigError) as refusal:
        prepare(make_config(tmp_path, **changes))
    assert str(refusal.value) == message
    assert not list(tmp_path.rglob("*.ledger.db"))


def test_a_median_of_two_sites_is_refused_up_front(tmp_path) -> None:
    with pytest.raises(ConfigError, match="min-sites=3 must be at most num-sites=2"):
        make_config(tmp_path, ensemble_weights="median", min_sites=3, num_sites=2)
