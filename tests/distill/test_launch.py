"""Training in processes of its own: what they learn, tell and leave, and how they fail."""

from pathlib import Path

import numpy as np
import pytest

from fedistill.data import load_table, split_table
from fedistill.distill import launch
from fedistill.distill.students import predict_probabilities
from fedistill.distill.training import Learning, distil
from fedistill.distill.training_state import Checkpoints
from fedistill.errors import ConfigError, RunFailed
from tests.distill.test_training import ensemble_of

STAGE = '[[stages]]\nname = "a"\nepochs = 4\nlosses = { log-odds = 1.0 }\n'


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text("batch = 512\n" + STAGE)
    return str(path)


def test_two_processes_train_one_student_and_tell_how_far(tmp_path: Path, recipe: str) -> None:
    table = load_table("heart_disease")
    proxy = split_table(table, proxy_fraction=0.2, test_fraction=0.15).proxy
    ensemble, told = ensemble_of(proxy, 2), []
    folder = tmp_path / "training"
    student = distil(
        proxy,
        ensemble,
        Learning(recipe=recipe, processes=2),
        seed=0,
        progress=lambda done, total: told.append((done, total)),
        checkpoints=Checkpoints(folder, "x"),
    )
    said = predict_probabilities(student, proxy.rows).argmax(axis=1)
    assert (said == ensemble.target.probabilities.argmax(axis=1)).mean() > 0.9
    assert not student.training
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    left = {path.name for path in (folder / "newest").glob("process-*.pt")}
    assert left == {"process-0.pt", "process-1.pt"}
    one = distil(proxy, ensemble, Learning(recipe=recipe), seed=0)
    # The batch is that of both together, so only the order of sums differs.
    apart = predict_probabilities(one, proxy.rows) - predict_probabilities(student, proxy.rows)
    assert np.abs(apart).max() < 1e-3


def test_processes_that_fail_are_quoted(
    tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_table("heart_disease")
    proxy = split_table(table, proxy_fraction=0.2, test_fraction=0.15).proxy
    monkeypatch.setenv("ACCELERATE_CONFIG_FILE", str(tmp_path / "none.yaml"))
    with pytest.raises(RunFailed, match=r"train-processes=2: .* exit code 1.*none\.yaml"):
        distil(proxy, ensemble_of(proxy, 2), Learning(recipe=recipe, processes=2), seed=0)


def test_processes_share_no_group_with_whoever_starts_them(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not {"RANK", "WORLD_SIZE"} & set(launch.environment(2))


def test_a_model_that_would_be_split_is_refused(monkeypatch) -> None:
    import accelerate
    from accelerate.utils import DistributedType

    from tests.distill.test_engine import plan_of, trained

    monkeypatch.setattr(accelerate.Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ConfigError, match="asks for FSDP, and the trainer runs on one device"):
        trained(plan_of({"epochs": 1, "losses": {"log-odds": 1.0}}))
