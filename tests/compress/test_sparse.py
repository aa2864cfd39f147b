import torch

from fedistill.compress.sparse import sparsify
from fedistill.distill.students import predict_probabilities


def weights(student):
    return torch.cat([layer.weight.detach().flatten() for layer in student.linears[:-1]])


def test_seven_tenths_of_all_weights_together_are_zero_and_the_answers_stay(case) -> None:
    before = {name: tensor.clone() for name, tensor in case.student.state_dict().items()}
    seen = []
    sparse = sparsify(
        case.student,
        case.rows,
        prune_ratio=0.7,
        seed=0,
        steps_between=20,
        last_steps=300,
        progress=lambda done, total: seen.append((done, total)),
    )
    zeros = weights(sparse) == 0
    assert zeros.sum() == round(0.7 * len(zeros))
    # Global: the layers lose unlike shares.
    first, second, last = sparse.linears
    assert (first.weight == 0).float().mean() != (second.weight == 0).float().mean()
    assert (last.weight != 0).all()
    assert {name: tensor.shape for name, tensor in sparse.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    for name, tensor in case.student.state_dict().items():
        assert torch.equal(tensor, before[name])
    says, said = (predict_probabilities(s, case.rows).argmax(1) for s in (sparse, case.student))
    assert (says == said).mean() > 0.93
    assert seen == [(step, 14) for step in range(1, 15)]


def test_a_ratio_of_zero_leaves_the_weights(case) -> None:
    same = sparsify(case.student, case.rows, prune_ratio=0.0, seed=0)
    torch.testing.assert_close(same.state_dict(), case.student.state_dict(), rtol=0, atol=0)
