"""An agent keeps its ledger open: how long, what it saves, and that it still shares and vouches."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from fedistill.data import ProxySet
from fedistill.errors import BudgetExceeded, LedgerError
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import LINE, anchor_path
from fedistill.privacy.ledger_file import log_path
from fedistill.privacy.ledger_verify import verify
from fedistill.site import open_ledger
from tests.mechanisms.toy import ask, make_proxy
from tests.site.toy_site import LEDGER, contents, toy_site

SMALL = 0.3


@pytest.fixture(scope="module")
def proxy() -> ProxySet:
    return make_proxy(120)


def question(proxy: ProxySet, number: int):
    return ask(proxy, "dp-probe", epsilon=SMALL, probe_steps=2 + number)


def charges(folder: Path, proxy: ProxySet) -> int:
    site = toy_site(folder, proxy)
    with open_ledger(site.policy, site.ledger_path, create=False) as ledger:
        return len(ledger.entries())


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """The path of each ledger that is opened from now on."""
    paths: list[Path] = []
    real = Ledger.open.__func__

    def spy(cls, path, **declared):
        paths.append(path)
        return real(cls, path, **declared)

    monkeypatch.setattr(Ledger, "open", classmethod(spy))
    return paths


def test_an_agent_that_is_kept_opens_its_ledger_once(tmp_path, proxy, opened) -> None:
    with toy_site(tmp_path, proxy) as site:
        assert opened == []
        for number in range(3):
            site.labels(question(proxy, number))
        site.evaluate(question(proxy, 0), proxy)
        assert opened == [site.ledger_path]
    site.labels(question(proxy, 3))
    site.labels(question(proxy, 3))
    assert len(opened) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_at_its_end_the_ledger_is_one_file_and_its_anchor_one_line(
    tmp_path, proxy, fails: bool
) -> None:
    with suppress(KeyboardInterrupt), toy_site(tmp_path, proxy) as site:
        site.labels(question(proxy, 0))
        site.labels(question(proxy, 1))
        assert log_path(site.ledger_path).exists()
        assert anchor_path(site.ledger_path).stat().st_size > LINE
        if fails:
            raise KeyboardInterrupt
    assert not log_path(site.ledger_path).exists()
    assert anchor_path(site.ledger_path).stat().st_size == LINE
    assert charges(tmp_path, proxy) == 2


def test_what_is_answered_while_it_is_open_is_charged_and_can_be_given_again(
    tmp_path, proxy
) -> None:
    with toy_site(tmp_path, proxy) as site:
        first = [site.labels(question(proxy, number)).codes.tolist() for number in range(2)]
        again = [site.labels(question(proxy, number)).codes.tolist() for number in range(2)]
    assert first == again
    assert charges(tmp_path, proxy) == 2


PRELUDE = """
import os, signal, sys
from pathlib import Path
from fedistill.errors import BudgetExceeded
from fedistill.mechanisms.dp_probe import DPProbe
from tests.mechanisms.toy import ask, make_proxy
from tests.site.toy_site import toy_site
folder, proxy = Path(sys.argv[1]), make_proxy(120)
def question(number):
    return ask(proxy, "dp-probe", epsilon=0.3, probe_steps=2 + number)
"""


def start(script: str, folder: Path, *before: object) -> subprocess.Popen[str]:
    command = [*map(str, before), sys.executable, "-c", PRELUDE + script, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(shutil.which("strace") is None, reason="counting fsyncs needs strace")
def test_a_further_answer_syncs_charge_anchor_release_and_receipt_alone(tmp_path) -> None:
    counts = []
    for answers in (1, 3):
        folder = tmp_path / str(answers)
        folder.mkdir()
        script = f"""
with toy_site(folder, proxy) as site:
    for number in range({answers}):
        site.labels(question(number))
"""
        trace = tmp_path / "trace"
        traced = start(script, folder, "strace", "-f", "-e", "trace=fsync,fdatasync", "-o", trace)
        assert traced.wait(120) == 0
        traced.stdout.close()
        counts.append(trace.read_text().count("sync("))
    assert counts[1] - counts[0] == 2 * 4


def test_two_agents_that_stay_open_share_one_budget(tmp_path, proxy) -> None:
    script = """
with toy_site(folder, proxy, total_epsilon=0.8) as site:
    answered = 0
    for number in range(int(sys.stdin.read()), 40, 2):
        try:
            site.labels(question(number))
            answered += 1
        except BudgetExceeded:
            break
    print(answered)
"""
    command = [sys.executable, "-c", PRELUDE + script, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    pair = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for number, process in enumerate(pair):
        process.stdin.write(str(number))
        process.stdin.close()
        process.stdin = None
    said = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    answered = sum(int(out) for out, _ in said)
    site = toy_site(tmp_path, proxy, total_epsilon=0.8)
    with open_ledger(site.policy, site.ledger_path, create=False) as ledger:
        assert len(ledger.entries()) == answered
        assert 0.8 - SMALL < ledger.spent(1e-5) <= 0.8
    assert verify(site.ledger_path).complete
    with pytest.raises(BudgetExceeded):
        site.labels(question(proxy, 40))


def test_kill_9_of_an_agent_that_stays_open_loses_no_charge(tmp_path, proxy) -> None:
    script = """
with toy_site(folder, proxy) as site:
    site.labels(question(0))
    DPProbe.release = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    site.labels(question(1))
"""
    with start(script, tmp_path) as process:
        assert process.wait(120) == -signal.SIGKILL
    assert charges(tmp_path, proxy) == 2
    with toy_site(tmp_path, proxy) as site:
        site.labels(question(proxy, 0))
        assert charges(tmp_path, proxy) == 2
        site.labels(question(proxy, 1))
    assert charges(tmp_path, proxy) == 3


def test_a_ledger_that_is_deleted_while_it_is_open_is_missed_at_once(tmp_path, proxy) -> None:
    """PRIVACY rule 12."""
    with toy_site(tmp_path, proxy) as site:
        site.labels(question(proxy, 0))
        site.ledger_path.unlink()
        with pytest.raises(LedgerError, match="is missing, though its anchor"):
            site.labels(question(proxy, 1))


def test_an_older_copy_in_its_place_is_noticed_and_the_true_one_is_taken_back(
    tmp_path, proxy
) -> None:
    """PRIVACY rule 12."""
    toy_site(tmp_path, proxy).labels(question(proxy, 0))
    older = tmp_path / "older"
    shutil.copyfile(tmp_path / LEDGER, older)
    with toy_site(tmp_path, proxy) as site:
        site.labels(question(proxy, 1))
    kept = tmp_path / "kept"
    with site:
        site.labels(question(proxy, 0))
        site.ledger_path.rename(kept)
        older.rename(site.ledger_path)
        with pytest.raises(LedgerError, match="another file was put in its place"):
            site.labels(question(proxy, 2))
        with pytest.raises(LedgerError, match="behind its anchor"):
            site.labels(question(proxy, 2))
        kept.rename(site.ledger_path)
        site.labels(question(proxy, 2))
    assert charges(tmp_path, proxy) == 3


def test_a_refusal_leaves_the_ledger_of_a_kept_agent_open(tmp_path, proxy, opened) -> None:
    with toy_site(tmp_path, proxy, total_epsilon=0.4) as site:
        site.labels(question(proxy, 0))
        with pytest.raises(BudgetExceeded):
            site.labels(question(proxy, 1))
        site.labels(question(proxy, 0))
    assert opened == [site.ledger_path]
    before = contents(tmp_path)
    with site, pytest.raises(BudgetExceeded):
        site.labels(question(proxy, 1))
    assert contents(tmp_path) == before
