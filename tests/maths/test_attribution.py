from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from troupe.errors import DataError
from troupe.maths import attribution
from troupe.maths.attribution import column_shares, completeness_gap, integrated_gradients, permutation_importance


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def network(activation: type[nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), activation(), nn.Linear(16, 3)).double()


def drawn(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- integrated gradients by hand -------------------------------------------------------------------------------


def test_of_a_linear_function_it_is_weight_times_distance() -> None:
    # f = (2 x - 3 y, y), baseline (1, 1): at (4, 3) the distances are 3 and 2.
    weights = rows([2, -3], [0, 1])
    found = integrated_gradients(lambda x: x @ weights.T, rows([4, 3]), rows([1, 1])[0], 1)
    assert found.tolist() == [[[6.0, -6.0], [0.0, 2.0]]]


def test_a_product_is_shared_equally_from_zero() -> None:
    # f = x y from 0: df/dx along the way is a y, its integral y / 2, so that x gets x y / 2, and y as much.
    found = integrated_gradients(lambda x: x[:, :1] * x[:, 1:], rows([3, 4], [-2, 5]), torch.zeros(2), 1)
    assert found.flatten(1).tolist() == [[6.0, 6.0], [-5.0, -5.0]]


def test_a_product_is_not_shared_equally_from_elsewhere() -> None:
    # f = x y from (1, 0) to (3, 4): y along the way is 4 a, so x gets 2 * 2 = 4; x is 1 + 2 a, so y gets 4 * 2 = 8.
    found = integrated_gradients(lambda x: x[:, :1] * x[:, 1:], rows([3, 4]), rows([1, 0]), 1)
    assert found.flatten().tolist() == pytest.approx([4.0, 8.0])  # f(x) - f(b) = 12


@pytest.mark.parametrize("power", [1, 2, 3, 4, 5, 6])
def test_steps_are_exact_up_to_twice_their_degree(power: int) -> None:
    # The derivative of x^p has degree p - 1; 3 nodes are exact up to degree 5, so up to p = 6. At 2: 2^p.
    found = integrated_gradients(lambda x: x**power, rows([2]), torch.zeros(1), 3)
    assert found.item() == pytest.approx(2.0**power, rel=1e-14)


def test_each_row_has_a_baseline_of_its_own() -> None:
    found = integrated_gradients(lambda x: x**2, rows([3], [3]), rows([0], [1]), 2)
    assert found.flatten().tolist() == pytest.approx([9.0, 8.0])


def test_a_column_at_its_baseline_or_without_effect_gets_nothing() -> None:
    found = integrated_gradients(lambda x: x[:, :2].prod(1, True), rows([3, 4, 5]), rows([3, 0, 0])[0], 4)
    assert found[0, 0].tolist() == pytest.approx([0.0, 12.0, 0.0]) and found[0, 0, 2] == 0.0


def test_an_output_that_reads_nothing_gets_zeros_beside_one_that_does() -> None:
    offset = nn.Parameter(torch.ones(1, dtype=torch.float64))
    found = integrated_gradients(lambda x: torch.cat([x, offset.expand(len(x), 1)], 1), rows([3]), torch.zeros(1))
    assert found[0].tolist() == [[pytest.approx(3.0)], [0.0]]


# --- integrated gradients of networks ---------------------------------------------------------------------------


@pytest.mark.parametrize(("activation", "steps", "tolerance"), [(nn.Tanh, 32, 1e-9), (nn.ReLU, 512, 2e-3)])
def test_attributions_are_complete(activation: type[nn.Module], steps: int, tolerance: float) -> None:
    net, inputs, baseline = network(activation), drawn(20), drawn(1, 1)[0]
    found = integrated_gradients(net, inputs, baseline, steps)
    assert found.shape == (20, 3, 5) and not found.requires_grad
    moved = (net(inputs) - net(baseline)).detach()
    assert moved.abs().max() > 0.5
    torch.testing.assert_close(found.sum(-1), moved, rtol=0, atol=tolerance)
    gap = completeness_gap(net, inputs, baseline, found)
    torch.testing.assert_close(gap, moved - found.sum(-1), rtol=0, atol=1e-12)


def test_too_few_steps_show_in_the_gap() -> None:
    net, inputs, baseline = network(), 4 * drawn(20), torch.zeros(5)
    few, many = (
        completeness_gap(net, inputs, baseline, integrated_gradients(net, inputs, baseline, steps)).abs().max()
        for steps in (2, 64)
    )
    assert few > 0.05 and many < 1e-6


def test_it_is_the_sum_of_small_steps_along_the_way() -> None:
    # Independently: the mean of the gradient at the middles of 4,000 steps, row by row and output by output.
    net, inputs = network(), drawn(2)
    at = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for row, d in itertools.product(range(2), range(3)):
        points = (at[:, None] * inputs[row]).requires_grad_()
        slopes = torch.autograd.grad(net(points)[:, d].sum(), points)[0].mean(0)
        found = integrated_gradients(net, inputs, torch.zeros(5))[row, d]
        torch.testing.assert_close(found, slopes * inputs[row], rtol=0, atol=1e-7)


def test_steps_that_go_together_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = network(), drawn(7)
    whole = integrated_gradients(net, inputs, torch.zeros(5))
    for most in (1, 7, 50):  # one step at a time, and several with a rest
        monkeypatch.setattr(attribution, "_ROWS", most)
        torch.testing.assert_close(integrated_gradients(net, inputs, torch.zeros(5)), whole, rtol=0, atol=1e-12)


def test_it_works_without_gradients_around_it_and_leaves_none_behind() -> None:
    net, inputs = network(), drawn(4)
    expected = integrated_gradients(net, inputs, torch.zeros(5))
    with torch.no_grad():
        assert torch.equal(integrated_gradients(net, inputs, torch.zeros(5)), expected)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not inputs.requires_grad
    single = integrated_gradients(net.float(), inputs.float(), torch.zeros(5, dtype=torch.float64))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "inputs", "baseline", "steps", "said"),
    [
        (network(), drawn(2)[0], torch.zeros(5), 4, r"inputs are floats \[n, I\]"),
        (network(), drawn(0), torch.zeros(5), 4, "with a row or more"),
        (network(), drawn(2).long(), torch.zeros(5), 4, "found torch.int64"),
        (network(), drawn(2), torch.zeros(4), 4, r"is \[5\] or as large, found \[4\]"),
        (network(), drawn(2), torch.zeros(1, 5), 4, "as large"),
        (network(), drawn(2) * math.nan, torch.zeros(5), 4, "not finite: leave such rows out"),
        (network(), drawn(2), torch.zeros(5), 0, "steps >= 1, found 0"),
        (lambda x: x.sum(1), drawn(2), torch.zeros(5), 1, r"found \[2\]"),
        (lambda x: x.sum(0, True), drawn(2), torch.zeros(5), 1, r"found \[1, 5\]"),
        (lambda x: x.log(), drawn(2), torch.zeros(5), 4, "not finite between"),
        (torch.no_grad()(network()), drawn(2), torch.zeros(5), 4, "carry no gradient"),
        (lambda x: x.detach(), drawn(2), torch.zeros(5), 4, "carry no gradient"),
    ],
)
def test_what_cannot_be_attributed_is_one_sentence(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, steps: int, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        integrated_gradients(function, inputs, baseline, steps)


def test_the_gap_of_other_attributions_is_refused() -> None:
    with pytest.raises(DataError, match=r"are \[2, 3, 5\], found \[2, 5\]"):
        completeness_gap(network(), drawn(2), torch.zeros(5), torch.zeros(2, 5))


# --- shares -----------------------------------------------------------------------------------------------------


def test_shares_by_hand() -> None:
    # Column 0: |1| + |-1| + |2| + |0| = 4; column 1: 0 + 0 + |-3| + |5| = 8; column 2: 0. Signs do not cancel.
    found = torch.tensor([[[1.0, 0.0, 0.0], [2.0, -3.0, 0.0]], [[-1.0, 0.0, 0.0], [0.0, 5.0, 0.0]]])
    assert column_shares(found).tolist() == pytest.approx([4 / 12, 8 / 12, 0.0])
    assert column_shares(found[:, [0]]).tolist() == [1.0, 0.0, 0.0]


def test_shares_of_nothing() -> None:
    assert column_shares(torch.zeros(2, 2, 3)).tolist() == [0.0, 0.0, 0.0]
    for wrong in (torch.zeros(2, 3), torch.zeros(0, 2, 3)):
        with pytest.raises(DataError, match=r"attributions are \[n, D, I\]"):
            column_shares(wrong)


def test_of_two_equal_columns_the_share_follows_what_the_function_reads() -> None:
    """What the module warns of: both say the same, and the shares say only which one is read."""
    same = drawn(50)[:, :1].expand(50, 2)
    one, half = torch.tensor([[1.0], [0.0]]).double(), torch.tensor([[0.5], [0.5]]).double()
    assert torch.equal(same @ one, same @ half)
    shares = [column_shares(integrated_gradients(lambda x, w=w: x @ w, same, torch.zeros(2))) for w in (one, half)]
    assert shares[0].tolist() == [1.0, 0.0] and shares[1].tolist() == pytest.approx([0.5, 0.5])


# --- permutation importance -------------------------------------------------------------------------------------


def likeness(target: np.ndarray, weights: list[float]) -> Callable[[np.ndarray], float]:
    """Minus the mean squared error of a linear prediction."""
    return lambda x: -float(((x @ np.array(weights) - target) ** 2).mean())


def test_every_permutation_of_two_rows_by_hand() -> None:
    # Rows 0 and 2 of the one column that is read; right predictions score 0. Swapped, both are off by 2: -4.
    inputs = np.array([[0.0, 7.0], [2.0, 9.0]])
    found = permutation_importance(
        likeness(inputs[:, 0], [1, 0]), inputs, {"read": [0], "other": [1]}, np.random.default_rng(0), repeats=400
    )
    assert found["other"].mean == found["other"].low == found["other"].high == 0.0
    # A fall is 4 with chance 1/2: mean 2, standard error 2 / sqrt(400) = 0.1.
    assert found["read"].mean == pytest.approx(2.0, abs=0.4) and found["read"].n == 400
    assert found["read"].high - found["read"].low == pytest.approx(2 * 1.966 * 0.1, rel=0.02)


def test_a_linear_prediction_falls_by_twice_its_part_of_the_variance() -> None:
    # y = 2 a + b, predicted rightly: shuffled a gives E (2 a - 2 a')^2 = 2 * 4 var a, shuffled b 2 var b.
    x = np.random.default_rng(0).normal(size=(4000, 3))
    groups = {"a": [0], "b": [1], "c": [2], "all": [0, 1, 2]}
    score = likeness(x @ [2, 1, 0], [2, 1, 0])
    found = permutation_importance(score, x, groups, np.random.default_rng(1), repeats=50)
    for name, expected in {"a": 8 * x[:, 0].var(), "b": 2 * x[:, 1].var(), "c": 0.0}.items():
        assert found[name].mean == pytest.approx(expected, rel=0.01), name
    assert found["all"].mean == pytest.approx(2 * (x @ [2, 1, 0]).var(), rel=0.01)
    assert found["a"].low < found["a"].mean < found["a"].high


def test_columns_of_a_group_move_together() -> None:
    # The score reads a - b, which is 0 in every row: shuffled together it stays 0, apart it does not.
    a = np.random.default_rng(0).normal(size=(200, 1))
    found = permutation_importance(
        likeness(np.zeros(200), [1, -1]), np.hstack([a, a]), {"both": [0, 1], "a": [0]}, np.random.default_rng(1)
    )
    assert found["both"].mean == found["both"].high == 0.0 and found["a"].low > 1.0


def test_the_seed_decides_and_other_groups_change_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    kept, score = x.copy(), likeness(x @ [2, 1, 0], [2, 1, 0])

    def found(groups: dict[str, list[int]], seed: int) -> Any:
        return permutation_importance(score, x, groups, np.random.default_rng(seed), repeats=3)

    assert found({"b": [1]}, 4)["b"] == found({"a": [0], "c": [2], "b": [1]}, 4)["b"] != found({"b": [1]}, 5)["b"]
    assert np.array_equal(x, kept)
    spoiling = permutation_importance(lambda r: float(r.fill(0.0) or 0.0), x, {"a": [0]}, np.random.default_rng(0))
    assert spoiling["a"].mean == 0.0 and np.array_equal(x, kept)  # a score that writes into its rows harms nothing


def test_one_repeat_says_nothing_about_spread() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    found = permutation_importance(likeness(x[:, 0], [1, 0]), x, {"a": [0]}, np.random.default_rng(0), repeats=1)
    assert found["a"].mean > 0 and math.isinf(found["a"].high)


@pytest.mark.parametrize(
    ("inputs", "groups", "repeats", "value", "said"),
    [
        (np.zeros(3), {"a": [0]}, 2, 0.0, r"needs inputs \[n, I\]"),
        (np.zeros((1, 3)), {"a": [0]}, 2, 0.0, "two rows or more"),
        (np.zeros((4, 3)), {"a": []}, 2, 0.0, "group 'a' needs columns from 0 to 2, found none"),
        (np.zeros((4, 3)), {"a": [0, 3]}, 2, 0.0, "found column 3"),
        (np.zeros((4, 3)), {"a": [-1]}, 2, 0.0, "found column -1"),
        (np.zeros((4, 3)), {"a": [0]}, 0, 0.0, "repeats >= 1"),
        (np.zeros((4, 3)), {"a": [0]}, 2, math.nan, "the score of the rows as they are is nan"),
    ],
)
def test_what_cannot_be_shuffled_is_one_sentence(
    inputs: np.ndarray, groups: dict[str, list[int]], repeats: int, value: float, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        permutation_importance(lambda _: value, inputs, groups, np.random.default_rng(0), repeats)
