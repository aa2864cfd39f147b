import numpy as np
import pytest
import torch

from fedistill.compress.prune import FEWEST_CHANNELS, _plan, prune_student
from fedistill.distill.students import predict_probabilities

QUICK = {"epochs_a_step": 1, "last_epochs": 1, "last_steps": 300}


def test_half_of_the_channels_go_and_the_answers_stay(case):
    pruned = prune_student(case.student, case.rows, prune_ratio=0.5, seed=0, **QUICK)
    assert pruned.hidden == (10, 6)
    assert pruned.num_classes == 3
    before, after = (predict_probabilities(s, case.rows) for s in (case.student, pruned))
    assert np.mean(before.argmax(axis=1) == after.argmax(axis=1)) > 0.9  # half of the codes go, too


def test_the_original_student_is_left_as_it_was(case):
    before = {name: tensor.clone() for name, tensor in case.student.state_dict().items()}
    prune_student(case.student, case.rows, prune_ratio=0.2, seed=0, **QUICK)
    for name, tensor in case.student.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_ratio_of_zero_prunes_nothing(case):
    pruned = prune_student(case.student, case.rows, prune_ratio=0.0, seed=0)
    assert pruned.hidden == case.student.hidden
    torch.testing.assert_close(pruned.state_dict(), case.student.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 0.77, 0.9])
@pytest.mark.parametrize("hidden", [(64, 64), (20, 12), (300, 5), (3,)])
def test_no_step_removes_more_than_a_twentieth_or_one_channel(hidden, ratio):
    plan = _plan(hidden, ratio)
    for before, after in zip([hidden, *plan], plan, strict=False):
        for width, old, new in zip(hidden, before, after, strict=True):
            assert 0 <= old - new <= max(1, 0.05 * width)
    for width, goal in zip(hidden, plan[-1] if plan else hidden, strict=True):
        assert goal == min(width, max(FEWEST_CHANNELS, width - round(ratio * width)))


def test_the_weakest_channel_goes_first(case):
    pruned = prune_student(
        case.student, case.rows, prune_ratio=1 / 20, seed=0, epochs_a_step=1, last_epochs=0,
        last_steps=1,
    )  # fmt: skip
    assert pruned.hidden == (19, 11)
    first, second, _ = case.student.linears
    norms = first.weight.abs().sum(dim=1) + second.weight.abs().sum(dim=0)
    # One optimizer step at the schedule's low end moves weights far less than channels differ.
    kept = pruned.linears[0].bias.detach()
    distance = (first.bias.detach()[:, None] - kept[None, :]).abs().min(dim=1).values
    assert distance.argmax() == norms.argmin()


def test_progress_counts_up_over_all_steps(case):
    seen = []
    prune_student(
        case.student,
        case.rows,
        prune_ratio=0.1,
        seed=0,
        epochs_a_step=1,
        last_epochs=1,
        last_steps=7,
        progress=lambda done, total: seen.append((done, total)),
    )
    total = seen[0][1]
    assert seen == [(step, total) for step in range(1, total + 1)]
