"""What a site refuses costs nothing and leaves no trace: no ledger, or each byte as it was."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from dp_accounting import ZCDpEvent
from sklearn.svm import LinearSVC

from fedistill.data import ProxySet
from fedistill.data.encoder import Encoder
from fedistill.errors import BudgetExceeded, PolicyRefusal
from fedistill.labels import LabelQuestion
from fedistill.privacy.adjacency import Unit
from fedistill.site import LocalAgent, open_ledger
from tests.encoders import write_varying
from tests.mechanisms.toy import ask, make_proxy
from tests.site.toy_site import LEDGER, contents, toy_site

PREDICTS_NO_CHANCES = f"{__name__}:LinearSVC"
assert not hasattr(LinearSVC, "predict_proba")


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy(120)


@dataclass(frozen=True)
class Bad:
    """A question that must be refused: what is asked, of which site, and the words of it."""

    words: str
    question: Callable[[ProxySet], LabelQuestion]
    clauses: dict[str, object]


def asked(mechanism: str = "dp-probe", **changes: object) -> Callable[[ProxySet], LabelQuestion]:
    return lambda proxy: ask(proxy, mechanism, **changes)


BAD = {
    "a proxy set that is not approved": Bad(
        "proxy-sha256=[0-9a-f]{12} must be one of abababababab",
        asked(),
        {"proxy_sha256": ("ab" * 32,)},
    ),
    "a unit that dp-sgd cannot protect": Bad(
        "unit=group must be what dp-sgd guarantees, record", asked("dp-sgd"), {"unit": Unit.GROUP}
    ),
    "a unit that dp-ebm cannot protect": Bad(
        "unit=group must be what dp-ebm guarantees, record", asked("dp-ebm"), {"unit": Unit.GROUP}
    ),
    "units that the rows do not name": Bad(
        "unit=group must have rows that name their units", asked(), {"unit": Unit.GROUP}
    ),
    "an unknown mechanism": Bad(
        "mechanism='dp-prob' must be a mechanism: did you mean 'dp-probe'",
        asked("dp-prob"),
        {"mechanisms": ("dp-prob",)},
    ),
    "an unknown teacher": Bad(
        "teacher='logistik' must be a teacher",
        asked("sharded", teacher="logistik"),
        {"teachers": ("logistik",)},
    ),
    "an estimator without predict_proba": Bad(
        "makes a LinearSVC without predict_proba",
        asked("sharded", teacher=PREDICTS_NO_CHANCES),
        {"teachers": (PREDICTS_NO_CHANCES,)},
    ),
}


def site_with_a_past(folder: Path, proxy: ProxySet, clauses: dict[str, object]) -> LocalAgent:
    """A site that answered one question before, of the unit that its clauses protect."""
    site = toy_site(folder, proxy, **clauses)
    with open_ledger(site.policy, site.ledger_path, create=True) as ledger:
        charge = ledger.charge("earlier", {}, ZCDpEvent(0.001), budget_epsilon=2.0, delta=1e-5)
        ledger.store(charge, b"codes", b"")
    return site


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_refused_first_question_makes_no_ledger(tmp_path, proxy, bad: Bad) -> None:
    with pytest.raises(PolicyRefusal, match=bad.words):
        toy_site(tmp_path, proxy, **bad.clauses).labels(bad.question(proxy))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stays_open", [False, True])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_refused_question_changes_no_byte_of_the_ledger(
    tmp_path, proxy, bad: Bad, stays_open: bool
) -> None:
    site = site_with_a_past(tmp_path, proxy, bad.clauses)
    before = contents(tmp_path)
    assert set(before) >= {LEDGER, f"{LEDGER}.anchor"}
    with site if stays_open else nullcontext(), pytest.raises(PolicyRefusal, match=bad.words):
        site.labels(bad.question(proxy))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("stays_open", [False, True])
def test_a_question_beyond_the_budget_changes_no_byte(tmp_path, proxy, stays_open: bool) -> None:
    toy_site(tmp_path, proxy).labels(ask(proxy, "dp-probe", epsilon=1.9))
    before = contents(tmp_path)
    site = toy_site(tmp_path, proxy)
    with (
        site if stays_open else nullcontext(),
        pytest.raises(BudgetExceeded, match="Nothing was charged"),
    ):
        site.labels(ask(proxy, "sharded", shards=6))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("answered", [False, True])
def test_an_encoder_whose_answers_change_their_shape_changes_no_byte(
    tmp_path, proxy, answered: bool
) -> None:
    encoder = Encoder.named(str(write_varying(tmp_path / "varying.onnx")))
    rows = proxy.rows.copy()
    rows[7, 2] = 0.0
    varying = replace(proxy, rows=rows, encoder=encoder)
    folder = tmp_path / "site"
    folder.mkdir()
    if answered:
        site_with_a_past(folder, proxy, {})
    before = contents(folder)
    with pytest.raises(PolicyRefusal, match="gives 3 numbers for it and 4 for proxy row 0 on prox"):
        toy_site(folder, varying).labels(ask(varying, "dp-probe"))
    assert contents(folder) == before
