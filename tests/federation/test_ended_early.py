"""Runs that end early: what they leave, what they cost, and how they go on."""

import os

import pytest

from fedistill.config import RunConfig
from fedistill.errors import ConfigError, RunFailed
from fedistill.federation import phases, scoring
from fedistill.federation.run_folder import run_folder
from fedistill.federation.simulation import open_site
from fedistill.mechanisms.dp_probe import DPProbe
from fedistill.site import open_ledger
from tests.federation.conftest import run
from tests.small import make_config

pytestmark = pytest.mark.usefixtures("quick")


class Killed(BaseException):
    """What no `except Exception` catches, as a kill."""


def die(*_):
    raise Killed


def charges(config: RunConfig, site: str) -> int:
    agent = open_site(config, site, run_folder(config, "1"), "1")
    with open_ledger(agent.policy, agent.ledger_path, create=False) as ledger:
        return len(ledger.entries())


PHASES = {
    "labels": phases,
    "student": phases,
    "compression": phases,
    "evaluate": phases,
    "score_all": scoring,
    "compare_sites": scoring,
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_server_resumes_after_its_last_finished_phase(
    config, monkeypatch, phase: str
) -> None:
    """Promise 6; replays stored releases, since fresh noise never repeats (PRIVACY rule 21)."""

    with monkeypatch.context() as patched:
        patched.setattr(PHASES[phase], phase, die)
        with pytest.raises(Killed):
            run(config)
    before = {
        path.name: path.read_bytes()
        for path in run_folder(config, "1").path.glob("checkpoints/*.labels")
    }
    summary = run(config, name="2")
    for name, release in before.items():
        assert run_folder(config, "1").checkpoint(name).read_bytes() == release
    assert any("did not finish" in warning for warning in summary.warnings)
    for site, privacy in summary.privacy.sites.items():
        assert charges(config, site) == 1
        assert 3.99 < privacy.epsilon <= 4.0


def test_a_charge_that_a_kill_wasted_is_part_of_what_the_run_cost(tmp_path, monkeypatch) -> None:
    config = make_config(tmp_path, prune_ratio=0.0, quantize="none", budget_epsilon=9.0)
    with monkeypatch.context() as patched:
        patched.setattr(DPProbe, "release", die)
        with pytest.raises(Killed):
            run(config)
    sites = run(config).privacy.sites
    wasted = [site for site in sites if charges(config, site) == 2]
    assert len(wasted) == 1
    for site, privacy in sites.items():
        assert privacy.epsilon == privacy.total_epsilon
        assert (privacy.epsilon > 4.5) == (site in wasted)


@pytest.mark.parametrize("file", ["bank_b.labels", "student.safetensors", "compression.json"])
def test_a_death_while_a_checkpoint_is_written_leaves_no_part_of_it(
    config, monkeypatch, file: str
) -> None:
    flush = os.fsync

    def die_on(number: int) -> None:
        if file in os.readlink(f"/proc/self/fd/{number}"):
            raise Killed
        flush(number)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", die_on)
        with pytest.raises(Killed):
            run(config)
    assert not run_folder(config, "1").checkpoint(file).exists()
    run(config)


def test_a_finished_run_is_never_overwritten(config) -> None:
    run(config)
    with pytest.raises(ConfigError, match="already holds a finished run"):
        run(config)


def test_another_config_does_not_take_up_an_unfinished_run(config, tmp_path, monkeypatch) -> None:
    run_folder(config, "1").claim(config)
    other = make_config(tmp_path, prune_ratio=0.0, quantize="none", epsilon=2.0)
    with pytest.raises(ConfigError, match="another config"):
        run(other)


def test_a_full_disk_on_the_server_ends_the_run_with_a_sentence(config, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device", "student.safetensors")

    monkeypatch.setattr(phases, "weights_to_bytes", full)
    with pytest.raises(RunFailed, match="No space left on device"):
        run(config)
