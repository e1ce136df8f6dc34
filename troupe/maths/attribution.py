"""Which inputs drive a decision: integrated gradients of a function's outputs, and what shuffled columns cost.

    found = integrated_gradients(policy_mean, observations, baseline)              # [n, D, I]
    shares = column_shares(found)                                                  # [I], they sum to 1
    falls = permutation_importance(score, observations, {"trend": [0, 1]}, rng)    # {"trend": Interval}

Both describe a function, here a policy, on the rows that it is given. Neither is a cause, and neither speaks of the
world:

- A large share says that this function reads the column, not that the column moves anything else, nor that it pays.
- Inputs that move together stand in for each other. A function may read one of two that say the same, or half of each,
  and which one is an accident of its training: a small share does not say that the input carries no information. Two
  seeds may differ. Shuffling one of the two costs little, because the other is still there: put them into one group.
- Both leave the data: the points between baseline and input, and rows with shuffled columns, need never occur, and what
  the function does there is not checked by anything.

Legend: n rows, I input columns, D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from troupe.errors import DataError
from troupe.maths.statistics import Interval, mean_interval

__all__ = ["column_shares", "completeness_gap", "integrated_gradients", "permutation_importance"]

_ROWS = 1 << 14
"""Most rows of one call of the function, unless there are more inputs: points of several steps go together."""


def integrated_gradients(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, steps: int = 32
) -> Tensor:
    """What each column adds to each output on the way from a baseline (Sundararajan et al. 2017, arXiv:1703.01365).

        IG_i(x) = (x_i - b_i) * integral over a in [0, 1] of  df/dx_i (b + a (x - b)) da
        sum_i IG_i(x) = f(x) - f(b)                                                    (completeness)

    The integral is Gauss and Legendre's with `steps` nodes: exact for polynomials of degree 2 steps along the way, fast
    for smooth networks (tanh), slow where there are kinks (ReLU). `completeness_gap` tells whether `steps` were enough.

    `function` maps `[n, I]` to `[n, D]`, each row by itself (no batch statistics) and without randomness. `inputs` are
    `[n, I]`, `baseline` is `[I]`, or `[n, I]` for one of each row. Returns `[n, D, I]`, signed, in the outputs' units
    and detached; the parameters' gradients are not touched.

    The answer is "compared with what": with the baseline. The mean of normalised features, 0, is usual; a column that
    stands at its baseline gets 0 however much the function reads it. See the module for what attributions do not say.

    Raises DataError for shapes that do not fit, no row, steps < 1, inputs or outputs that are not finite, and outputs
    that carry no gradient.
    """
    start, way = _way(inputs, baseline)
    nodes, weights = _quadrature(steps)
    per = max(1, _ROWS // len(way))
    total = torch.zeros(())
    for begin in range(0, steps, per):
        at = torch.as_tensor(nodes[begin : begin + per], dtype=way.dtype, device=way.device)[:, None, None]
        found = _gradients(function, (start + at * way).flatten(0, 1))  # [D, K n, I], node by node
        weight = torch.as_tensor(weights[begin : begin + per], dtype=way.dtype, device=way.device)
        total = total.to(found) + torch.einsum("k,dkni->ndi", weight, found.unflatten(1, (-1, len(way))))
    return total * way[:, None]


@torch.no_grad()
def completeness_gap(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor, attributions: Tensor
) -> Tensor:
    """f(x) - f(b) less the sum of the attributions, `[n, D]`: 0 but for the error of the integral.

    Attributions with a gap that is not small beside f(x) - f(b) mean little; take more steps. Raises as
    `integrated_gradients`.
    """
    start, way = _way(inputs, baseline)
    moved = _checked(function(start + way), len(way)) - _checked(function(start), len(way))
    if attributions.shape != (*moved.shape, way.shape[1]):
        wanted, found = [*moved.shape, way.shape[1]], list(attributions.shape)
        raise DataError(f"attributions of these inputs are {wanted}, found {found}: give those of the same function")
    return moved - attributions.sum(-1)


def column_shares(attributions: Tensor) -> Tensor:
    """Mean absolute attribution of each column over rows and outputs, as shares of their total; `[n, D, I]` to `[I]`.

        share_i = sum_nd |IG_ndi| / sum_ndj |IG_ndj|

    Absolute values, so that what pushes up in one row and down in another counts. Outputs weigh as much as they move:
    where their units differ, take one of them at a time, `attributions[:, [d]]`. A group's share is the sum of its
    columns'. All are 0 where nothing moved any output. Raises DataError for another shape.
    """
    if attributions.dim() != 3 or not attributions.numel():
        raise DataError(f"attributions are [n, D, I] with a number or more, found {list(attributions.shape)}")
    sizes = attributions.detach().abs().double().sum((0, 1))
    return sizes / sizes.sum() if sizes.sum() > 0 else sizes


def permutation_importance(
    score: Callable[[np.ndarray], float],
    inputs: np.ndarray,
    groups: Mapping[str, Sequence[int]],
    generator: np.random.Generator,
    repeats: int = 20,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """How much a score falls when the columns of a group are shuffled over the rows (Breiman 2001, Machine Learning
    45:5; Fisher et al. 2019, arXiv:1801.01489).

        fall_r = score(x) - score(x with x[:, group] = x[permutation_r, group]),    r = 1 .. repeats

    The columns of a group move together, so that what they say of each other stays; what they say with the other
    columns and with the rows' outcomes is lost. `score` takes rows `[n, I]` and gives one number, more is better, and
    knows the rows' outcomes by their order. A negative fall is chance, or a column that misleads. Groups may overlap,
    and their falls do not add up to anything.

    Returns the mean fall of each group with Student's t interval over the repeats: it says how much the permutations
    differ, not how well n rows stand for others. The permutations are drawn once and shared by all groups, so that
    groups compare pair by pair and a group's number does not depend on which others are asked for. Rows of a time
    series are not exchangeable: a shuffled column forgets its own past as well.

    Raises DataError for inputs that are not `[n, I]` with two rows or more, an empty group or a column that does not
    exist, repeats < 1, and a score that is not finite.
    """
    rows = np.asarray(inputs)
    if rows.ndim != 2 or len(rows) < 2:
        raise DataError(f"permutation_importance needs inputs [n, I] with two rows or more, found {list(rows.shape)}")
    if repeats < 1:
        raise DataError(f"permutation_importance needs repeats >= 1, found {repeats}")
    columns = {name: _columns(name, group, rows.shape[1]) for name, group in groups.items()}
    orders = [generator.permutation(len(rows)) for _ in range(repeats)]
    whole = _scored(score, rows.copy(), "the rows as they are")
    return {
        name: mean_interval(
            [whole - _scored(score, _shuffled(rows, group, order), name) for order in orders], confidence
        )
        for name, group in columns.items()
    }


# --- integrated gradients ---------------------------------------------------------------------------------------


def _way(inputs: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """(where each row begins, how far it goes), both `[n, I]`."""
    if inputs.dim() != 2 or not inputs.numel() or not inputs.is_floating_point():
        raise DataError(f"inputs are floats [n, I] with a row or more, found {inputs.dtype} {list(inputs.shape)}")
    if baseline.shape not in (inputs.shape, inputs.shape[1:]):
        raise DataError(
            f"a baseline of inputs {list(inputs.shape)} is {list(inputs.shape[1:])} or as large, found "
            f"{list(baseline.shape)}"
        )
    start = baseline.detach().to(inputs).expand_as(inputs)
    way = inputs.detach() - start
    if not torch.isfinite(way).all():
        raise DataError("inputs or baseline hold a number that is not finite: leave such rows out")
    return start, way


def _quadrature(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in (0, 1) and weights that sum to 1."""
    if steps < 1:
        raise DataError(f"integrated_gradients needs steps >= 1, found {steps}")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def _gradients(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Of every output at every point, `[D, rows, I]`. Rows do not mix, so that a sum over rows keeps them apart."""
    with torch.enable_grad():
        points = points.requires_grad_()
        outputs = _checked(function(points), len(points))
        if not outputs.requires_grad:
            raise DataError(
                "the function's outputs carry no gradient: call it without torch.no_grad and detach nothing"
            )
        sums = outputs.sum(0).unbind()
    last = len(sums) - 1
    found = [
        torch.autograd.grad(total, points, retain_graph=d < last, materialize_grads=True)[0]
        for d, total in enumerate(sums)
    ]
    return torch.stack(found)


def _checked(outputs: Tensor, rows: int) -> Tensor:
    if outputs.dim() != 2 or len(outputs) != rows or not outputs.shape[1]:
        raise DataError(f"the function must map {rows} rows to [{rows}, D], found {list(outputs.shape)}")
    if not torch.isfinite(outputs).all():
        raise DataError("the function gave a number that is not finite between the baseline and an input")
    return outputs


# --- permutations -----------------------------------------------------------------------------------------------


def _columns(name: str, group: Sequence[int], count: int) -> np.ndarray:
    wrong = [column for column in group if not 0 <= column < count]
    if wrong or not len(group):
        found = f"column {wrong[0]}" if wrong else "none"
        raise DataError(f"group {name!r} needs columns from 0 to {count - 1}, found {found}")
    return np.asarray(group, dtype=np.int64)


def _shuffled(rows: np.ndarray, columns: np.ndarray, order: np.ndarray) -> np.ndarray:
    found = rows.copy()
    found[:, columns] = rows[np.ix_(order, columns)]
    return found


def _scored(score: Callable[[np.ndarray], float], rows: np.ndarray, what: str) -> float:
    found = float(score(rows))
    if not math.isfinite(found):
        raise DataError(f"the score of {what} is {found}: it must be a finite number")
    return found
