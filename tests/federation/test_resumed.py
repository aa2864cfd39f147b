"""Deployed runs whose server dies: what is asked again, what is charged, what comes out."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fedistill.errors import ConfigError, RunFailed
from fedistill.federation import phases, run_folder, scoring
from fedistill.federation.progress import Progress
from fedistill.federation.run_folder import RunFolder, check_resumed
from fedistill.federation.up_front import prepare_deployment
from fedistill.federation.workflow import run_workflow
from fedistill.site.daemon import serving
from fedistill.site.site_config import SiteConfig
from fedistill.site_api.client import SiteClient
from tests.deployed import SITES, write_federation
from tests.federation.test_deployment import Nodes

pytestmark = pytest.mark.usefixtures("quick")


class Killed(BaseException):
    """What no `except Exception` catches, as a kill."""


def die(*_, **__):
    raise Killed


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: names of Unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as path:
        yield Path(path)


def run(config, sites, name="1"):
    """One try; each has its own name, as Flower's runs have."""
    folder = RunFolder(Path(config.output_dir))
    with folder.alone():
        return run_workflow(
            Nodes(config, sites),
            config,
            prepare_deployment(config),
            folder,
            run=name,
            progress=Progress(),
        )


@contextmanager
def answering(sites, names=SITES):
    with ExitStack() as agents:
        for name in names:
            agents.enter_context(serving(SiteConfig.load(sites[name].config)))
        yield


def dying_at(monkeypatch, method: str, count: int = 1):
    """Server and courier die when the agents are asked this for the `count`-th time."""
    ask, asked = SiteClient.ask, []

    def spy(client, name, request):
        asked.append(name)
        if name == method and asked.count(method) == count:
            raise Killed
        return ask(client, name, request)

    monkeypatch.setattr(SiteClient, "ask", spy)
    return asked


LATER = {"student": phases, "compression": phases, "score_all": scoring}


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("phase", LATER)
def test_a_run_that_has_its_answers_ends_without_any_site(folder, monkeypatch, phase, sums):
    sites, config = write_federation(folder, secure_aggregation="optional")
    config = config.model_copy(update={"secure_aggregation": sums})
    with answering(sites), monkeypatch.context() as patched:
        patched.setattr(LATER[phase], phase, die)
        with pytest.raises(Killed):
            run(config, sites)
    undisturbed = folder / "undisturbed"
    shutil.copytree(config.output_dir, undisturbed)
    for path in undisturbed.glob("checkpoints/*"):
        if path.name.startswith(("student", "compression")):
            path.unlink()
    asked = dying_at(monkeypatch, "nothing")
    summary = run(config, sites, "2")
    assert tuple(summary.privacy.sites) == SITES
    assert asked == []
    assert [site.charges() for site in sites.values()] == [1, 1, 1]
    run(config.model_copy(update={"output_dir": str(undisturbed)}), sites, "3")
    for name in ("student.onnx", "student.fp32.onnx", "student.safetensors"):
        resumed = (Path(config.output_dir) / name).read_bytes()
        assert resumed == (undisturbed / name).read_bytes()


@pytest.mark.parametrize("step", ["Keys", "Shares", "Sealed", "Agree", "Unmask"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_round_cut_short_begins_anew_at_no_cost(folder, monkeypatch, step, count):
    sites, config = write_federation(folder)
    with answering(sites):
        with monkeypatch.context() as patched:
            dying_at(patched, step, count)
            with pytest.raises(Killed):
                run(config, sites)
        asked = dying_at(monkeypatch, "nothing")
        summary = run(config, sites, "2")
    assert tuple(summary.privacy.sites) == SITES
    assert asked.count("Keys") == len(SITES)
    assert [site.charges() for site in sites.values()] == [1, 1, 1]


@pytest.mark.parametrize(("step", "charges"), [("Shares", 1), ("Agree", 2), ("Unmask", 2)])
def test_under_shared_noise_a_round_cut_short_costs_its_charge_and_no_more(
    folder, monkeypatch, step, charges
):
    sites, config = write_federation(
        folder, total_epsilon=20.0, total_epsilon_alone=100.0, trust="secagg"
    )
    config = config.model_copy(update={"trust": "secagg", "solver": "moment"})
    with answering(sites):
        with monkeypatch.context() as patched:
            dying_at(patched, step)
            with pytest.raises(Killed):
                run(config, sites)
        run(config, sites, "2")
    assert [site.charges() for site in sites.values()] == [charges] * 3


def test_finished_rounds_are_opened_for_the_sites_they_were_scaled_for(folder, monkeypatch):
    sites, config = write_federation(folder, mechanisms=("corrections",))
    rounds = config.model_copy(
        update={"mechanism": "corrections", "rounds": 3, "phase_timeout": 5.0}
    )
    with answering(sites), monkeypatch.context() as patched:
        dying_at(patched, "Keys", count=4)
        with pytest.raises(Killed):
            run(rounds, sites)
    with answering(sites, SITES[:2]):
        summary = run(rounds, sites, "2")
    assert tuple(summary.privacy.sites) == SITES[:2]
    assert [sites[name].charges() for name in SITES] == [3, 3, 1]


def test_another_config_is_refused_and_another_place_is_not(folder, monkeypatch):
    sites, config = write_federation(folder)
    with answering(sites), monkeypatch.context() as patched:
        patched.setattr(phases, "student", die)
        with pytest.raises(Killed):
            run(config, sites)
    ours = RunFolder(Path(config.output_dir))
    with pytest.raises(ConfigError, match="another config"):
        check_resumed(ours, config.model_copy(update={"resume": "1", "epsilon": 3.0}))
    moved = config.model_copy(update={"resume": "1", "output_dir": ""})
    assert not check_resumed(ours, moved)
    run(config, sites, "2")
    assert check_resumed(ours, moved)


def test_a_run_that_never_began_is_not_gone_on_with(tmp_path):
    _, config = write_federation(tmp_path)
    with pytest.raises(ConfigError, match="resume='7' must be a run that began"):
        check_resumed(RunFolder(tmp_path / "none"), config.model_copy(update={"resume": "7"}))


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "SECONDS_TO_LET_GO", 0.3)
    folder = RunFolder(tmp_path / "run")
    with folder.alone(), pytest.raises(RunFailed, match="in use by another run"), folder.alone():
        pass
    with folder.alone():
        pass
