from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from troupe.errors import TrainingError
from troupe.maths.gradients import clip_by_global_norm, global_norm, pcgrad


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one(*numbers: float) -> list[Tensor]:
    """A gradient of two parameters: the first number, and the rest."""
    return [torch.tensor(numbers[:1], dtype=torch.float32), torch.tensor(numbers[1:], dtype=torch.float32)]


def test_two_conflicting_gradients_by_hand() -> None:
    # g1 = (1, 0), g2 = (-1, 1): g1 . g2 = -1, |g1|^2 = 1, |g2|^2 = 2
    #   g1' = g1 + 1/2 g2 = (0.5, 0.5)    g2' = g2 + g1 = (0, 1)    sum (0.5, 1.5)    cosine -1 / sqrt 2
    found = pcgrad([one(1, 0), one(-1, 1)], generator())
    assert [float(g) for g in found.gradient] == [0.5, 1.5]
    assert found.projections == 2
    assert float(found.cosine[0, 1]) == pytest.approx(-(0.5**0.5), abs=1e-12)
    assert found.cosine.diagonal().tolist() == pytest.approx([1, 1])


def test_three_gradients_by_hand_in_every_order() -> None:
    # g1 = (1, 0, 0), g2 = (-1, 1, 0), g3 = (0, -1, 1);  g1 . g2 = g2 . g3 = -1,  g1 . g3 = 0
    #   g1: on g2 (0.5, 0.5, 0); if g3 comes later it now conflicts (-0.5): + 1/4 g3 = (0.5, 0.25, 0.25)
    #   g2: (0, 0.5, 0.5) in both orders
    #   g3: on g2 (-0.5, -0.5, 1); if g1 comes later it now conflicts (-0.5): + 1/2 g1 = (0, -0.5, 1)
    gradients = [one(1, 0, 0), one(-1, 1, 0), one(0, -1, 1)]
    sums = {tuple(torch.cat(pcgrad(gradients, generator(seed)).gradient).tolist()) for seed in range(40)}
    assert sums == {(0, 0.5, 1.5), (0.5, 0.5, 1.5), (0, 0.25, 1.75), (0.5, 0.25, 1.75)}


def test_without_conflict_it_is_the_sum() -> None:
    found = pcgrad([one(1, 0), one(1, 1), one(0, 2)], generator())
    assert [float(g) for g in found.gradient] == [2, 3] and found.projections == 0


def test_opposite_gradients_leave_nothing() -> None:
    found = pcgrad([one(1, 2), one(-1, -2)], generator())
    assert [float(g) for g in found.gradient] == [0, 0]


def test_a_zero_gradient_conflicts_with_nobody() -> None:
    found = pcgrad([one(0, 0), one(-1, 1)], generator())
    assert [float(g) for g in found.gradient] == [-1, 1] and float(found.cosine[0, 1]) == 0


def test_the_order_comes_from_the_generator_alone() -> None:
    gradients = [one(1, 0, 0), one(-1, 0.5, 0), one(-0.7, -0.9, 0.4)]
    state = torch.get_rng_state()
    first, again = (torch.cat(pcgrad(gradients, generator(5)).gradient) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)
    assert len({tuple(torch.cat(pcgrad(gradients, generator(s)).gradient).tolist()) for s in range(8)}) > 1


pairs = st.lists(st.floats(-2, 2, width=16), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(pairs, pairs, st.sampled_from([0.5, 8.0]))
def test_two_projected_gradients_help_or_spare_both(a: list[float], b: list[float], scale: float) -> None:
    """The combined gradient has no negative product with either (paper, theorem 1's setting), and scales along."""
    found = torch.cat(pcgrad([one(*a), one(*b)], generator()).gradient)
    assert float(found @ torch.tensor(a)) >= -1e-5 and float(found @ torch.tensor(b)) >= -1e-5
    scaled = pcgrad([[scale * t for t in one(*a)], [scale * t for t in one(*b)]], generator())
    torch.testing.assert_close(torch.cat(scaled.gradient), scale * found, rtol=1e-5, atol=1e-5)


def test_what_pcgrad_refuses() -> None:
    with pytest.raises(TrainingError, match="given no gradient"):
        pcgrad([], generator())
    with pytest.raises(TrainingError, match="gradient 1 has shapes"):
        pcgrad([one(1, 2), one(1, 2, 3)], generator())


def test_global_norm_by_hand() -> None:
    assert float(global_norm([torch.tensor([3.0]), torch.tensor([[4.0], [12.0]])])) == 13
    assert float(global_norm([])) == 0


@pytest.mark.oracle
@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_clipping_is_that_of_torch(max_norm: float) -> None:
    tensors = [torch.randn(3, 2, generator=generator(1)), torch.randn(5, generator=generator(2))]
    parameters = [torch.nn.Parameter(torch.zeros_like(t)) for t in tensors]
    for parameter, tensor in zip(parameters, tensors, strict=True):
        parameter.grad = tensor.clone()
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    clipped, norm = clip_by_global_norm(tensors, max_norm)
    assert float(norm) == pytest.approx(float(expected), rel=1e-6)
    for found, parameter in zip(clipped, parameters, strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-6, atol=1e-7)
