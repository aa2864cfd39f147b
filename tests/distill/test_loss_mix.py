from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedistill.distill.loss_mix import FOUR_TERMS, LossMix, mixed_loss, without
from fedistill.errors import ConfigError

WEIGHTS = {name: weight for name, weight in asdict(FOUR_TERMS).items() if weight > 0}
NAMES = tuple(WEIGHTS)


def test_four_terms_have_the_named_weights():
    assert WEIGHTS == {
        "cross_entropy": 0.5, "divergence": 0.3, "features": 0.15, "attention": 0.05
    }  # fmt: skip
    terms = dict(zip(NAMES, torch.tensor([1.0, 10.0, 100.0, 1000.0]), strict=True))
    assert mixed_loss(FOUR_TERMS, **terms).item() == pytest.approx(68.5)


def test_the_gradient_of_each_term_is_its_weight():
    terms = {name: torch.tensor(2.0, requires_grad=True) for name in NAMES}
    mixed_loss(FOUR_TERMS, **terms).backward()
    got = {name: term.grad.item() for name, term in terms.items()}
    assert got == pytest.approx(WEIGHTS)


@settings(deadline=None)
@given(st.sets(st.sampled_from(NAMES), max_size=3))
def test_without_keeps_the_sum_of_weights_and_the_proportions_of_the_rest(names):
    left, before = asdict(without(FOUR_TERMS, *names)), WEIGHTS
    assert sum(left.values()) == pytest.approx(1)
    kept = [name for name in NAMES if name not in names]
    ratios = [left[name] / before[name] for name in kept]
    assert ratios == pytest.approx([ratios[0]] * len(kept))
    assert not any(left[name] for name in names)


def test_a_missing_term_is_refused_unless_its_weight_is_zero():
    one = torch.tensor(1.0)
    with pytest.raises(ConfigError, match=r"'features' of weight 0\.15 is missing: give it"):
        mixed_loss(FOUR_TERMS, cross_entropy=one, divergence=one, attention=one)
    black_box = without(FOUR_TERMS, "features", "attention")
    got = mixed_loss(black_box, cross_entropy=one, divergence=3 * one)
    assert got.item() == pytest.approx((0.5 + 0.3 * 3) / 0.8)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_weights_out_of_bounds_are_refused_by_name(weight):
    with pytest.raises(ConfigError, match=f"divergence={weight} must be at least 0"):
        LossMix(divergence=weight)


def test_a_mix_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="a weight above 0"):
        LossMix()
    with pytest.raises(ConfigError, match="no term is left without divergence"):
        without(LossMix(divergence=1.0), "divergence")
    with pytest.raises(ConfigError, match="'atention' is no term"):
        without(FOUR_TERMS, "atention")


def test_a_term_that_no_mix_has_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="'feature' is no term"):
        mixed_loss(FOUR_TERMS, feature=torch.tensor(1.0))
