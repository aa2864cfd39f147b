"""The ledger charges before a release exists, once, within the budget, for one population."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, SelfComposedDpEvent, ZCDpEvent

from fedistill.errors import BudgetExceeded, ConfigError, LedgerError
from fedistill.privacy.accountant import calibrate_rho, epsilon_of
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.ledger import Charge, Ledger
from fedistill.privacy.ledger_anchor import anchor_path, read_anchor
from fedistill.privacy.ledger_key import key_path

DELTA = 1e-5
Open = Callable[..., Ledger]


def charge(
    ledger: Ledger, question: str, epsilon: float = 0.5, budget: float = 1.0, delta: float = DELTA
) -> Charge:
    event = ZCDpEvent(calibrate_rho(epsilon, DELTA))
    what = {"mechanism": "dp-probe"}
    return ledger.charge(question, what, event, budget_epsilon=budget, delta=delta)


def test_a_charge_is_there_when_the_ledger_is_opened_again(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        made = charge(ledger, "q1")
    with open_ledger(create=False) as ledger:
        assert ledger.entries() == (made,)
    assert made.sequence == 1
    assert made.description == {"mechanism": "dp-probe"}
    assert made.event == ZCDpEvent(calibrate_rho(0.5, DELTA))


def test_a_question_for_the_whole_budget_fits(open_ledger: Open) -> None:
    """PRIVACY rule 9: a closed form for epsilon 0.5 cost 0.5000013, which 0.5 refuses."""
    with open_ledger() as ledger:
        made = charge(ledger, "q1", epsilon=0.5, budget=0.5)
        assert 0.499999 < made.epsilon <= 0.5
        assert made.spent_epsilon == made.epsilon == ledger.spent(DELTA)


def test_a_second_question_is_refused_once_the_budget_is_gone(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        charge(ledger, "q1", epsilon=1.0)
        with pytest.raises(BudgetExceeded):
            charge(ledger, "q2", epsilon=0.01)
        assert len(ledger.entries()) == 1


def test_a_refusal_says_what_was_spent_asked_and_still_fits(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        charge(ledger, "q1", epsilon=0.5)
        with pytest.raises(BudgetExceeded) as refusal:
            charge(ledger, "q2", epsilon=0.9)
        assert str(refusal.value) == (
            "population 'patients' has spent epsilon=0.5 of a budget of 1 at delta=1e-05; the "
            "question costs 0.9, both together 1.05441. Nothing was charged. The largest question "
            "that still fits has epsilon=0.837: ask that, repeat an answered question (free), or "
            "let the site's owner raise the budget"
        )
        assert charge(ledger, "q2", epsilon=0.837).sequence == 2


def test_a_refused_first_question_charges_nothing(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        with pytest.raises(BudgetExceeded, match=r"spent epsilon=0 of .* epsilon=0.3: ask"):
            charge(ledger, "q1", epsilon=0.5, budget=0.3)
        assert ledger.entries() == ()


def test_spending_composes_as_the_accountant_composes(open_ledger: Open) -> None:
    events = [ZCDpEvent(0.001), GaussianDpEvent(30.0), SelfComposedDpEvent(ZCDpEvent(1e-4), 8)]
    with open_ledger() as ledger:
        for number, event in enumerate(events):
            ledger.charge(f"q{number}", {}, event, budget_epsilon=1.0, delta=DELTA)
        assert ledger.spent(DELTA) == epsilon_of(events, DELTA, Adjacency.ADD_REMOVE)
        assert ledger.remaining(1.0, DELTA) == 1.0 - ledger.spent(DELTA)
        assert ledger.remaining(0.01, DELTA) == 0


def test_the_same_events_cost_more_at_a_smaller_delta(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        charge(ledger, "q1")
        assert ledger.spent(1e-9) > ledger.spent(DELTA)


@pytest.mark.parametrize(
    ("field", "value"),
    [("population", "customers"), ("adjacency", Adjacency.REPLACE_ONE), ("unit", Unit.GROUP)],
)
def test_a_ledger_never_mixes(open_ledger: Open, field: str, value: str) -> None:
    """PRIVACY rules 7 and 10."""
    open_ledger().close()
    with pytest.raises(LedgerError, match=f"has {field}=.*, not {value}: a ledger never mixes"):
        open_ledger(**{field: value})


def test_a_missing_ledger_is_not_created_unasked(open_ledger: Open, path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger at"):
        open_ledger(create=False)
    assert not path.exists()


def test_only_its_owner_can_read_ledger_anchor_and_key(open_ledger: Open, path: Path) -> None:
    with open_ledger() as ledger:
        charge(ledger, "q1")
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_at_rest_a_ledger_is_one_file_its_anchor_and_its_key(open_ledger: Open, path: Path) -> None:
    with open_ledger() as ledger:
        ledger.store(charge(ledger, "q1"), b"release", b"teacher")
    assert set(path.parent.iterdir()) == {path, anchor_path(path), key_path(path)}


def test_a_repeated_question_finds_its_stored_answer(open_ledger: Open) -> None:
    """PRIVACY rule 13."""
    with open_ledger() as ledger:
        made = charge(ledger, "q1")
        ledger.store(made, b"\x00codes", b"\xffweights")
    with open_ledger() as ledger:
        stored = ledger.cached("q1")
        assert stored is not None
        assert (stored.charge, stored.release, stored.teacher) == (
            made,
            b"\x00codes",
            b"\xffweights",
        )
        assert ledger.cached("q2") is None


def test_a_charge_without_an_answer_is_charged_again_when_asked_again(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        charge(ledger, "q1", epsilon=0.3)
        assert ledger.cached("q1") is None
        second = charge(ledger, "q1", epsilon=0.3)
        ledger.store(second, b"release", b"teacher")
        stored = ledger.cached("q1")
        assert stored is not None
        assert stored.charge == second
        assert len(ledger.entries()) == 2


def test_a_charge_has_one_answer(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        made = charge(ledger, "q1")
        ledger.store(made, b"first", b"")
        with pytest.raises(LedgerError, match="a charge has one release"):
            ledger.store(made, b"second", b"")
        stored = ledger.cached("q1")
        assert stored is not None
        assert stored.release == b"first"


@pytest.mark.parametrize(
    ("budget", "delta", "message"),
    [(0.0, DELTA, "budget_epsilon=0.0 must be"), (1.0, 0.5, "delta=0.5 must be")],
)
def test_bounds_are_checked_before_anything_is_charged(
    open_ledger: Open, budget: float, delta: float, message: str
) -> None:
    with open_ledger() as ledger:
        with pytest.raises(ConfigError, match=message):
            charge(ledger, "q1", budget=budget, delta=delta)
        assert ledger.entries() == ()


def test_an_event_that_no_accountant_here_knows_is_not_charged(open_ledger: Open) -> None:
    with open_ledger() as ledger:
        with pytest.raises(ConfigError, match="LaplaceDpEvent"):
            ledger.charge("q1", {}, LaplaceDpEvent(1.0), budget_epsilon=1.0, delta=DELTA)
        assert ledger.entries() == ()


def test_the_anchor_follows_every_charge(open_ledger: Open, path: Path) -> None:
    with open_ledger() as ledger:
        for count, question in enumerate(("q1", "q2"), start=1):
            made = charge(ledger, question, epsilon=0.2)
            anchor = read_anchor(path)
            assert anchor is not None
            assert (anchor.count, anchor.head) == (count, made.hash)


def test_two_open_ledgers_see_each_others_charges(open_ledger: Open) -> None:
    with open_ledger() as first, open_ledger() as second:
        charge(first, "q1", epsilon=0.8)
        with pytest.raises(BudgetExceeded):
            charge(second, "q2", epsilon=0.8)
        charge(second, "q2", epsilon=0.3)
        assert [entry.question for entry in first.entries()] == ["q1", "q2"]


def test_the_directory_of_a_new_ledger_is_made(open_ledger: Open, tmp_path: Path) -> None:
    nested = tmp_path / "runs" / "1" / "bank_a.ledger.db"
    declared = {"population": "p", "adjacency": Adjacency.ADD_REMOVE, "unit": Unit.RECORD}
    Ledger.open(nested, **declared, create=True).close()  # type: ignore[arg-type]
    assert nested.is_file()
