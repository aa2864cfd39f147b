import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from fedistill.distill.feature_losses import (
    DEPTHS,
    FeatureMatching,
    attention_score_divergence,
    attention_score_error,
    spatial_attention,
    spatial_attention_divergence,
    spatial_attention_error,
)
from fedistill.errors import ConfigError

RANDOM = np.random.default_rng(5)
STUDENT = RANDOM.normal(size=(3, 4, 5, 5))
TEACHER = RANDOM.normal(size=(3, 7, 5, 5))
SCORES = RANDOM.normal(size=(3, 2, 6, 6))
OTHERS = RANDOM.normal(size=(3, 2, 6, 6))
MASK = np.arange(6) < np.array([6, 4, 1])[:, None]


def squares(features: np.ndarray) -> np.ndarray:
    return np.einsum("bchw,bchw->bhw", features, features).reshape(len(features), -1)


def halved(features: np.ndarray) -> np.ndarray:
    """Averages of 2 by 2 pixels."""
    batch, channels, height, width = features.shape
    return features.reshape(batch, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5))


def test_features_are_matched_through_the_adapters_at_every_depth():
    shapes = {
        "shallow": ((2, 3, 8, 8), (2, 5, 4, 4)),
        "middle": ((2, 6, 10), (2, 6, 12)),
        "deep": ((2, 4), (2, 9)),
    }
    torch.manual_seed(0)
    matching = FeatureMatching(shapes).double()
    student = {depth: RANDOM.normal(size=pair[0]) for depth, pair in shapes.items()}
    teacher = {depth: RANDOM.normal(size=pair[1]) for depth, pair in shapes.items()}
    weights = {
        d: (a.weight.detach().numpy(), a.bias.detach().numpy())
        for d, a in matching.adapters.items()
    }
    kernel, bias = weights["shallow"]
    mapped = np.einsum("oc,bchw->bohw", kernel[:, :, 0, 0], student["shallow"])
    adapted = {"shallow": halved(mapped + bias[:, None, None])}
    for depth in ("middle", "deep"):
        adapted[depth] = student[depth] @ weights[depth][0].T + weights[depth][1]
    expected = np.mean([np.mean((adapted[d] - teacher[d]) ** 2) for d in DEPTHS])
    got = matching(*({d: torch.tensor(f) for d, f in side.items()} for side in (student, teacher)))
    np.testing.assert_allclose(got.item(), expected, rtol=1e-10)


def test_a_teacher_within_reach_of_the_adapters_is_matched_exactly():
    torch.manual_seed(1)
    matching = FeatureMatching({"deep": ((64, 4), (64, 6))})
    student = torch.randn(64, 4)
    teacher = {"deep": student @ torch.randn(4, 6) + 1}
    optimizer = torch.optim.Adam(matching.parameters(), lr=0.05)
    for _ in range(600):
        loss = matching({"deep": student}, teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-4


def test_features_of_padding_do_not_count():
    matching = FeatureMatching({"deep": ((3, 6, 4), (3, 6, 5))}).double()
    student, teacher = (torch.tensor(RANDOM.normal(size=(3, 6, width))) for width in (4, 5))
    tokens = [
        matching({"deep": student[b : b + 1, :length]}, {"deep": teacher[b : b + 1, :length]})
        for b, length in enumerate((6, 4, 1))
    ]
    expected = (6 * tokens[0] + 4 * tokens[1] + tokens[2]) / 11
    got = matching({"deep": student}, {"deep": teacher}, torch.tensor(MASK))
    torch.testing.assert_close(got, expected)


def test_gradients_through_adapters_are_those_of_finite_differences():
    matching = FeatureMatching({"deep": ((2, 2, 4, 4), (2, 3, 2, 2))}).double()
    student, teacher = torch.tensor(STUDENT[:2, :2, :4, :4]), torch.tensor(TEACHER[:2, :3, :2, :2])
    assert torch.autograd.gradcheck(
        lambda features: matching({"deep": features}, {"deep": teacher}), student.requires_grad_()
    )


def test_only_student_and_adapters_learn_from_features():
    matching = FeatureMatching({"deep": ((2, 3, 4, 4), (2, 5, 4, 4))})
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    teacher = torch.randn(2, 5, 4, 4, requires_grad=True)
    matching({"deep": student}, {"deep": teacher}).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in matching.parameters())


@pytest.mark.parametrize("pair", [((2, 3), (2, 3, 4, 4)), ((2,), (2,)), ((2, 5, 3), (2, 6, 3))])
def test_layers_of_unlike_kinds_are_refused_by_name(pair):
    with pytest.raises(ConfigError, match=r"shapes\['middle'\]=.*must both be"):
        FeatureMatching({"middle": pair})


def test_no_depth_at_all_is_refused():
    with pytest.raises(ConfigError, match="must name a depth: give some of shallow, middle, deep"):
        FeatureMatching({})


def test_spatial_attention_is_the_unit_vector_of_summed_squares():
    expected = squares(STUDENT) / np.linalg.norm(squares(STUDENT), axis=1, keepdims=True)
    np.testing.assert_allclose(spatial_attention(torch.tensor(STUDENT)), expected, rtol=1e-12)


def test_spatial_attention_error_by_its_definition():
    mine, theirs = (
        squares(side) / np.linalg.norm(squares(side), axis=1, keepdims=True)
        for side in (STUDENT, TEACHER)
    )
    expected = np.mean(np.linalg.norm(mine - theirs, axis=1) ** 2)
    got = spatial_attention_error(torch.tensor(STUDENT), torch.tensor(TEACHER))
    np.testing.assert_allclose(got.item(), expected, rtol=1e-12)


def test_spatial_attention_divergence_by_its_definition():
    mine, theirs = (
        squares(side) / squares(side).sum(axis=1, keepdims=True) for side in (STUDENT, TEACHER)
    )
    got = spatial_attention_divergence(torch.tensor(STUDENT), torch.tensor(TEACHER))
    np.testing.assert_allclose(got.item(), rel_entr(theirs, mine).sum(axis=1).mean(), rtol=1e-9)


@pytest.mark.parametrize("loss", [spatial_attention_error, spatial_attention_divergence])
def test_attention_sees_neither_scale_nor_sign_nor_number_of_channels(loss):
    student = torch.tensor(STUDENT)
    teacher = torch.cat([-3 * student, 3 * student], dim=1)
    assert abs(loss(student, teacher).item()) < 1e-12


@pytest.mark.parametrize("loss", [spatial_attention_error, spatial_attention_divergence])
def test_a_larger_image_is_averaged_down(loss):
    large = RANDOM.normal(size=(3, 2, 10, 10))
    expected = loss(torch.tensor(STUDENT), torch.tensor(halved(large)))
    torch.testing.assert_close(loss(torch.tensor(STUDENT), torch.tensor(large)), expected)


@pytest.mark.parametrize("loss", [spatial_attention_error, spatial_attention_divergence])
@pytest.mark.parametrize("silent", ["student", "teacher"])
def test_silent_layers_leave_loss_and_gradient_finite(loss, silent):
    student = torch.tensor(STUDENT, dtype=torch.float32) * (silent != "student")
    student.requires_grad_()
    value = loss(student, torch.tensor(TEACHER, dtype=torch.float32) * (silent != "teacher"))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_score_error_is_the_mean_square_over_pairs_of_tokens():
    pairs = [
        (SCORES[b, h, i, j] - OTHERS[b, h, i, j]) ** 2
        for b, length in enumerate((6, 4, 1))
        for h in range(2)
        for i in range(length)
        for j in range(length)
    ]
    got = attention_score_error(*map(torch.tensor, (SCORES, OTHERS, MASK)))
    np.testing.assert_allclose(got.item(), np.mean(pairs), rtol=1e-12)


def test_score_divergence_is_the_mean_kl_over_queries_that_are_tokens():
    queries = [
        rel_entr(softmax(OTHERS[b, h, i, :length]), softmax(SCORES[b, h, i, :length])).sum()
        for b, length in enumerate((6, 4, 1))
        for h in range(2)
        for i in range(length)
    ]
    got = attention_score_divergence(*map(torch.tensor, (SCORES, OTHERS, MASK)))
    np.testing.assert_allclose(got.item(), np.mean(queries), rtol=1e-10)


@pytest.mark.parametrize("loss", [attention_score_error, attention_score_divergence])
def test_scores_on_padding_do_not_count_even_at_minus_infinity(loss):
    mask = torch.tensor(MASK)
    padding = ~(mask[:, None, :, None] & mask[:, None, None, :])
    scores = torch.tensor(SCORES).masked_fill(padding, -torch.inf).requires_grad_()
    value = loss(scores, torch.tensor(OTHERS).masked_fill(padding, -torch.inf), mask)
    value.backward()
    torch.testing.assert_close(value, loss(torch.tensor(SCORES), torch.tensor(OTHERS), mask))
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("loss", [spatial_attention_error, spatial_attention_divergence])
def test_gradients_of_spatial_attention_are_those_of_finite_differences(loss):
    student = torch.tensor(STUDENT[:2, :, :3, :3], requires_grad=True)
    teacher = torch.tensor(TEACHER[:2], requires_grad=True)
    assert torch.autograd.gradcheck(lambda features: loss(features, teacher), student)
    loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("loss", [attention_score_error, attention_score_divergence])
def test_gradients_of_attention_scores_are_those_of_finite_differences(loss):
    scores = torch.tensor(SCORES[1:, :1], requires_grad=True)
    teacher = torch.tensor(OTHERS[1:, :1], requires_grad=True)
    mask = torch.tensor(MASK[1:])
    assert torch.autograd.gradcheck(lambda values: loss(values, teacher, mask), scores)
    loss(scores, teacher, mask).backward()
    assert teacher.grad is None
