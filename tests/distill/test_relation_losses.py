import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import ortho_group

from fedistill.distill.relation_losses import alignment_loss, angle_error, distance_error

RANDOM = np.random.default_rng(11)
STUDENT = RANDOM.normal(size=(6, 3))
TEACHER = RANDOM.normal(size=(6, 5))


def huber(gap: float) -> float:
    return 0.5 * gap**2 if abs(gap) <= 1 else abs(gap) - 0.5


def distances(rows: np.ndarray) -> np.ndarray:
    each = [math.dist(rows[i], rows[j]) for i, j in itertools.combinations(range(len(rows)), 2)]
    return np.array(each) / np.mean(each)


def cosines(rows: np.ndarray) -> np.ndarray:
    each = []
    for i, j, k in itertools.permutations(range(len(rows)), 3):
        there, back = rows[i] - rows[j], rows[k] - rows[j]
        each.append(there @ back / np.linalg.norm(there) / np.linalg.norm(back))
    return np.array(each)


@pytest.mark.parametrize(
    ("loss", "relation"), [(distance_error, distances), (angle_error, cosines)]
)
def test_relations_are_compared_by_hubers_loss_one_by_one(loss, relation):
    # A row far off, so that some relative distances differ by more than Huber's threshold.
    far = STUDENT + 30 * np.eye(6, 3)
    expected = np.mean([huber(gap) for gap in relation(far) - relation(TEACHER)])
    assert loss(torch.tensor(far), torch.tensor(TEACHER)).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [distance_error, angle_error])
def test_relations_see_neither_place_nor_turn_nor_scale(loss):
    turned = 5 * STUDENT @ ortho_group.rvs(3, random_state=0) + 2
    assert loss(torch.tensor(STUDENT), torch.tensor(turned)).item() < 1e-12


@pytest.mark.parametrize("loss", [distance_error, angle_error])
@pytest.mark.parametrize("rows", [1, 2])
def test_too_few_rows_to_relate_cost_nothing_and_can_be_differentiated(loss, rows):
    student = torch.tensor(STUDENT[:rows], requires_grad=True)
    value = loss(student, torch.tensor(TEACHER[:rows]))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", [distance_error, angle_error])
def test_equal_rows_leave_loss_and_gradient_finite(loss):
    student = torch.ones(4, 3, requires_grad=True)
    value = loss(student, torch.tensor(TEACHER[:4], dtype=torch.float32))
    value.backward()
    assert value > 0
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", [distance_error, angle_error])
def test_gradients_are_those_of_finite_differences_and_spare_the_teacher(loss):
    student = torch.tensor(STUDENT[:4], requires_grad=True)
    teacher = torch.tensor(TEACHER[:4], requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: loss(rows, teacher), student)
    loss(student, teacher).backward()
    assert teacher.grad is None


def test_alignment_is_the_cross_entropy_of_finding_the_partner_both_ways():
    one, other = RANDOM.normal(size=(2, 6, 4))
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (one, other)]
    logits = unit[0] @ unit[1].T / 0.2
    there = -np.mean(np.diag(log_softmax(logits, axis=1)))
    back = -np.mean(np.diag(log_softmax(logits, axis=0)))
    got = alignment_loss(torch.tensor(one), torch.tensor(other), temperature=0.2)
    assert got.item() == pytest.approx((there + back) / 2)


def test_alignment_is_log_batch_where_nothing_is_aligned_and_small_where_all_is():
    apart = alignment_loss(torch.ones(8, 3), torch.ones(8, 3))
    assert apart.item() == pytest.approx(math.log(8), rel=1e-6)
    assert alignment_loss(torch.eye(8), 3 * torch.eye(8)).item() < 1e-4
    assert alignment_loss(torch.eye(8), torch.eye(8).roll(1, dims=0)) > math.log(8)


def test_alignment_treats_both_sides_alike_and_trains_both():
    one, other = (torch.tensor(RANDOM.normal(size=(4, 3)), requires_grad=True) for _ in range(2))
    torch.testing.assert_close(alignment_loss(one, other), alignment_loss(other, one))
    assert torch.autograd.gradcheck(
        lambda a, b: alignment_loss(a, b, temperature=0.5), (one, other)
    )
