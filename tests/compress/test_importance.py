import copy

import torch
from torch import nn

from fedistill.compress.importance import set_gradients
from fedistill.compress.prune import _drop_codes, prune_student
from fedistill.distill.students import predict_probabilities

LONGER = {"epochs_a_step": 2, "last_epochs": 1, "last_steps": 1500}


def test_a_weight_that_answers_do_not_hang_on_has_no_gradient() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        body[2].weight[:, 1] = 0
    inputs = torch.randn(200, 3)
    answers = body(inputs).softmax(dim=1).detach()
    set_gradients(body, inputs, answers, seed=0)
    assert body[0].weight.grad[1].abs().max() == 0
    # The student is its own teacher: the mean gradient vanishes, its mean square does not.
    assert body[0].weight.grad[[0, 2, 3]].abs().sum(dim=1).min() > 0


def test_taylor_drops_a_loud_code_that_says_nothing_and_l1_a_quiet_one(case) -> None:
    by_norm, by_loss = copy.deepcopy(case.student), copy.deepcopy(case.student)
    width = case.student.encoding.width
    loud, quiet = 0, 1
    for student in (by_norm, by_loss):
        first = student.linears[0]
        with torch.no_grad():
            first.weight[:, loud] = 100.0
            first.weight[:, quiet] = 1e-4
        first.weight.grad = torch.ones_like(first.weight)
        first.weight.grad[:, loud] = 0
    _drop_codes(by_norm, width - 1, "group-l1")
    _drop_codes(by_loss, width - 1, "taylor")
    starts = case.student.encoding.bin_start
    assert torch.equal(by_norm.encoding.bin_start, torch.cat([starts[:1], starts[2:]]))
    assert torch.equal(by_loss.encoding.bin_start, starts[1:])


def test_taylor_prunes_as_many_channels_and_keeps_the_answers(case) -> None:
    pruned = prune_student(
        case.student, case.rows, prune_ratio=0.5, prune_by="taylor", seed=0, **LONGER
    )
    assert pruned.hidden == (10, 6)
    before, after = (predict_probabilities(s, case.rows) for s in (case.student, pruned))
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() > 0.87
