"""Training by a recipe: what is learned, that it repeats itself, and goes on after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedistill.data import ProxySet, numbers
from fedistill.distill.engine import train_by_recipe
from fedistill.distill.guide import Guide, find_guide
from fedistill.distill.material import Material
from fedistill.distill.network_students import make_student
from fedistill.distill.public_teacher import PublicTeacher
from fedistill.distill.recipes import RecipePlan
from fedistill.distill.session import Session
from fedistill.distill.students import Student, predict_log_odds
from fedistill.distill.training_state import Checkpoints
from fedistill.errors import ConfigError
from fedistill.features.affine import MODERATE
from fedistill.labels import EnsembleTarget

ALL_OF_IT = {
    "batch": 64,
    "validation": 0.1,
    "stages": [
        {
            "name": "easy first",
            "epochs": 3,
            "losses": {"log-odds": 1.0, "consistency": 0.3},
            "curriculum": {"by": "entropy"},
            "confidence": True,
            "clip-gradient": 5.0,
        },
        {
            "name": "mixed",
            "epochs": 4,
            "schedule": "cosine",
            "losses": {"cross-entropy": 1.0},
            "mixup": 0.2,
            "rare-classes": 0.99,
            "patience": 3,
        },
    ],
}


def plan_of(*stages: dict, **keys: object) -> RecipePlan:
    named = [{"name": f"stage {place}", **stage} for place, stage in enumerate(stages)]
    return RecipePlan.model_validate({"batch": 64, **keys, "stages": named})


def truth(rows: np.ndarray) -> np.ndarray:
    first = rows[:, 0] * 2 + rows[:, 1] * rows[:, 2]
    return np.stack([first, -first + rows[:, 3]], axis=1).astype(np.float64)


def material_of(count: int = 700, columns: int = 5, noise: float = 0.0) -> Material:
    random = np.random.default_rng(3)
    rows = random.normal(size=(count, columns)).astype(np.float32)
    log_odds = truth(rows)
    std = np.full(log_odds.shape, max(noise, 0.01))
    noised = log_odds + noise * random.normal(size=log_odds.shape)
    target = EnsembleTarget(log_odds=noised[60:], std=std[60:], num_sites=3)
    return Material(rows=rows[60:], target=target, held_rows=rows[:60], held_log_odds=log_odds[:60])


def student_of(material: Material, name: str = "mlp") -> Student:
    schema = numbers(f"x{place}" for place in range(material.rows.shape[1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_student(name, ProxySet(schema=schema, rows=material.rows), 3)


def proxy_of(material: Material) -> ProxySet:
    schema = numbers(f"x{place}" for place in range(material.rows.shape[1]))
    return ProxySet(schema=schema, rows=material.rows)


def trained(plan: RecipePlan, material: Material | None = None, **named: object) -> Student:
    material = material or material_of()
    student = student_of(material)
    train_by_recipe(student, material, plan, Guide(), Session(seed=0, device="cpu", **named))
    return student


def weights_of(student: Student) -> bytes:
    return b"".join(value.numpy().tobytes() for value in student.state_dict().values())


def correlation(student: Student, material: Material) -> float:
    said = predict_log_odds(student, material.held_rows)
    return float(np.corrcoef(said.ravel(), material.held_log_odds.ravel())[0, 1])


@pytest.mark.parametrize(
    "stage",
    [
        {"epochs": 30, "losses": {"log-odds": 1.0}},
        {"epochs": 30, "losses": {"cross-entropy": 1.0}, "smoothing": 0.01},
        {"epochs": 30, "losses": {"log-odds": 1.0, "consistency": 0.5}},
        {"epochs": 30, "losses": {"log-odds": 1.0}, "curriculum": {"by": "noise"}},
        {"epochs": 30, "losses": {"log-odds": 1.0}, "mixup": 0.2, "schedule": "cosine"},
    ],
    ids=["log-odds", "cross-entropy", "consistency", "curriculum", "mixup"],
)
def test_a_student_learns_the_target_and_its_scale(stage: dict) -> None:
    material = material_of()
    student = trained(plan_of(stage), material)
    assert not student.training
    assert correlation(student, material) > 0.9
    said = predict_log_odds(student, material.held_rows)
    assert said.std() == pytest.approx(material.held_log_odds.std(), rel=0.25)


def test_equal_seeds_give_equal_students_and_others_do_not() -> None:
    plan, material = RecipePlan.model_validate(ALL_OF_IT), material_of()
    first, second = (student_of(material) for _ in range(2))
    other = student_of(material)
    for student, seed in ((first, 1), (second, 1), (other, 2)):
        train_by_recipe(student, material, plan, Guide(), Session(seed=seed, device="cpu"))
    assert weights_of(first) == weights_of(second)
    assert weights_of(first) != weights_of(other)


def test_the_callers_randomness_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(plan_of({"epochs": 1, "losses": {"log-odds": 1.0}}))
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_counts_every_step_of_a_curriculum_too() -> None:
    told: list[tuple[int, int]] = []
    stage = {"epochs": 4, "losses": {"log-odds": 1.0}, "curriculum": {"first-share": 0.25}}
    trained(plan_of(stage), progress=lambda done, total: told.append((done, total)))
    total = told[-1][1]
    assert told == [(step, total) for step in range(1, total + 1)]
    assert total < 4 * (640 // 64)  # easy epochs are short


def test_a_stage_ends_when_agreement_grows_no_more_and_keeps_its_best_weights() -> None:
    told: list[int] = []
    stage = {"epochs": 80, "losses": {"log-odds": 1.0}, "patience": 3}
    material = material_of()
    plan = plan_of(stage, validation=0.1)
    student = student_of(material)
    session = Session(seed=0, device="cpu", progress=lambda done, total: told.append(done))
    train_by_recipe(student, material, plan, Guide(), session)
    assert 24 * 10 < len(told) < 80 * 10  # not while the learning rate still rises
    assert correlation(student, material) > 0.9


def test_the_searched_temperature_is_kept_for_the_stage(tmp_path: Path) -> None:
    """A teacher whose logits are 6 times too large is softened by a temperature."""
    material = material_of()
    teacher = PublicTeacher("made", lambda rows: torch.from_numpy(centred(truth(rows))).float() * 6)
    plan = plan_of(
        {
            "epochs": 10,
            "losses": {"divergence": 1.0},
            "temperature": {"kind": "search", "candidates": [1.0, 6.0], "epochs": 2},
        },
        validation=0.1,
    )
    student = student_of(material)
    guide = find_guide(plan, student, teacher, proxy_of(material))
    checkpoints = Checkpoints(tmp_path, "x")
    train_by_recipe(student, material, plan, guide, Session(seed=0, checkpoints=checkpoints))
    found = checkpoints.position()
    assert found is not None
    assert found.temperature in (1.0, 6.0)
    assert correlation(student, material) > 0.8


def centred(log_odds: np.ndarray) -> np.ndarray:
    logits = np.concatenate([np.zeros((len(log_odds), 1)), log_odds], axis=1)
    return logits - logits.mean(axis=1, keepdims=True)


class Known(nn.Module):
    """A public teacher that knows the truth, with a hidden layer to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(5, 16), nn.ReLU())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.hidden(rows)
        return torch.from_numpy(centred(truth(rows.numpy()))).float()


@pytest.mark.parametrize(
    "losses",
    [
        {"divergence": 1.0},
        {"decoupled": 1.0},
        {"labels": 1.0},
        {"divergence": 1.0, "features": 0.1},
        {"divergence": 1.0, "distances": 0.1, "angles": 0.1},
    ],
    ids=lambda losses: "+".join(losses),
)
def test_a_public_teacher_teaches_what_the_noised_target_hides(losses: dict) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = Known().eval().requires_grad_(False)
    teacher = PublicTeacher("known", lambda rows: module(torch.from_numpy(rows)), module)
    material = material_of(noise=3.0)
    layers = {"deep": {"student": "3", "teacher": "hidden"}}
    plan = plan_of(
        {"epochs": 20, "losses": losses, "temperature": 2.0, "alpha": 0.7},
        layers=layers,
        **{"sure-from": 0.6},
    )
    student = student_of(material)
    guide = find_guide(plan, student, teacher, proxy_of(material))
    train_by_recipe(student, material, plan, guide, Session(seed=0, device="cpu"))
    assert correlation(student, material) > 0.85
    assert not module.hidden._forward_hooks  # left as it was
    assert not any(layer._forward_hooks for layer in student.modules())


def test_rows_that_a_table_of_logits_does_not_know_are_left_to_the_target() -> None:
    """Half the rows have no teacher: its terms pass them over, the student learns nonetheless."""
    material = material_of()
    logits = torch.from_numpy(centred(truth(material.rows))).float()
    logits[::2] = torch.nan
    teacher = PublicTeacher("table", lambda rows: logits[: len(rows)])
    plan = plan_of({"epochs": 20, "losses": {"divergence": 1.0}})
    student = student_of(material)
    guide = find_guide(plan, student, teacher, proxy_of(material))
    train_by_recipe(student, material, plan, guide, Session(seed=0, device="cpu"))
    assert correlation(student, material) > 0.9


@pytest.mark.parametrize("losses", [{"cross-entropy": 1.0}, {"divergence": 1.0, "attention": 1.0}])
def test_students_of_images_see_them_moved_and_patched(losses: dict) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(128, 64)).astype(np.float32)
    log_odds = 3 * np.stack([rows[:, :32].mean(axis=1), rows[:, 32:].mean(axis=1)], axis=1)
    log_odds = log_odds.astype(np.float64)
    target = EnsembleTarget(log_odds=log_odds, std=np.full(log_odds.shape, 0.1), num_sites=2)
    none = {"held_rows": rows[:0], "held_log_odds": log_odds[:0]}
    material = Material(rows=rows, target=target, **none)
    student = student_of(material, "cnn")
    stage = {"epochs": 2, "losses": losses}
    if "cross-entropy" in losses:
        stage["cutmix"] = 1.0
    plan = plan_of(stage, layers={"shallow": {"student": "1", "teacher": "1"}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3)
        ).eval()
    teacher = PublicTeacher("convolution", lambda each: module(torch.from_numpy(each)), module)
    guide = find_guide(plan, student, teacher, proxy_of(material))
    before = weights_of(student)
    session = Session(seed=0, device="cpu", views=MODERATE)
    train_by_recipe(student, material, plan, guide, session)
    assert weights_of(student) != before
    assert np.isfinite(predict_log_odds(student, rows)).all()


def test_a_checkpoint_of_another_config_is_refused_by_name(tmp_path: Path) -> None:
    plan = plan_of({"epochs": 1, "losses": {"log-odds": 1.0}})
    trained(plan, checkpoints=Checkpoints(tmp_path, "a" * 64))
    with pytest.raises(ConfigError, match="config aaaaaaaaaaaa, and this is bbbbbbbbbbbb"):
        trained(plan, checkpoints=Checkpoints(tmp_path, "b" * 64))


def train_and_die(folder: str, at: int) -> None:
    """What the process below does."""
    torch.set_num_threads(1)

    def progress(done: int, total: int) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = Checkpoints(Path(folder), "x")
    trained(RecipePlan.model_validate(ALL_OF_IT), checkpoints=checkpoints, progress=progress)


@pytest.mark.parametrize("at", [3, 14, 25, 55])
def test_a_killed_training_goes_on_to_the_same_student(tmp_path: Path, at: int) -> None:
    """Before the first checkpoint, within a stage, after a stage, near the end."""
    code = f"from tests.distill.test_engine import train_and_die; train_and_die({str(tmp_path)!r}, "
    killed = subprocess.run([sys.executable, "-c", f"{code}{at})"], check=False)
    assert killed.returncode == -signal.SIGKILL
    plan = RecipePlan.model_validate(ALL_OF_IT)
    steps: list[int] = []
    again = trained(
        plan,
        checkpoints=Checkpoints(tmp_path, "x"),
        progress=lambda done, total: steps.append(done),
    )
    assert weights_of(again) == weights_of(trained(plan))
    assert steps[0] <= at
    if at > 14:
        assert steps[0] > 1  # it did not begin anew
