from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from troupe.errors import ConfigError, CreditError
from troupe.maths.aggregation import MODES, aggregate, normalizer

VALUES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [50.0, 60.0, 70.0]])
MASK = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]])
EPISODES = torch.tensor([7, 7, 2, 5])
# kept: 1 2 | 5 6 | 7 | nothing;  sum 21, 5 tokens, 3 rows that count, row means 1.5, 5.5, 7
# episode 7: (1 + 2 + 5 + 6) / 4 = 3.5,  episode 2: 7,  episode 5 has no token: 2 episodes that count


def options(mode: str) -> dict[str, Any]:
    return {"constant": 12.0} if mode == "constant" else {}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token_mean", 21 / 5),
        ("seq_mean_token_sum", 21 / 3),
        ("seq_mean_token_mean", (1.5 + 5.5 + 7) / 3),
        ("constant", 21 / 12),
        ("per_episode", (3.5 + 7) / 2),
    ],
)
def test_modes_by_hand(mode: str, expected: float) -> None:
    found = aggregate(VALUES, MASK, mode, episodes=EPISODES, **options(mode))
    assert found.shape == () and abs(float(found) - expected) < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(sorted(MODES)),
    rows=st.lists(
        st.tuples(st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 2)), min_size=1, max_size=7
    ),
    cuts=st.sets(st.integers(1, 6)),
    seed=st.integers(0, 2**16),
)
def test_micro_batches_add_up_to_the_minibatch(
    mode: str, rows: list[tuple[list[bool], int]], cuts: set[int], seed: int
) -> None:
    """Loss and gradient of a small network, whole and in micro-batches of any size, differ by less than 1e-6."""
    mask, episodes = torch.tensor([r for r, _ in rows]), torch.tensor([e for _, e in rows])
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(len(rows), 4, 3, generator=generator)
    weights = torch.randn(3, generator=generator, requires_grad=True)

    def loss(part: slice, **more: Any) -> Tensor:
        return aggregate((inputs[part] @ weights).tanh(), mask[part], mode, episodes=episodes[part], **more)

    whole = loss(slice(None), **options(mode))
    (gradient,) = torch.autograd.grad(whole, weights)
    shared = normalizer(mask, mode, episodes, **options(mode))
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    parts = [loss(slice(a, b), normalizer=shared) for a, b in pairwise(edges)]
    summed = torch.stack([torch.autograd.grad(part, weights)[0] for part in parts]).sum(dim=0)
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(summed, gradient, rtol=0, atol=1e-6)


def test_micro_batches_with_their_own_denominators_do_not_add_up() -> None:
    """Why a Normalizer exists: the mean of two token means is not the token mean."""
    apart = (aggregate(VALUES[:2], MASK[:2], "token_mean") + aggregate(VALUES[2:], MASK[2:], "token_mean")) / 2
    assert abs(float(apart - aggregate(VALUES, MASK, "token_mean"))) > 0.5


@pytest.mark.parametrize("mode", sorted(MODES))
def test_splitting_an_episode_into_more_rows_changes_only_modes_that_count_rows(mode: str) -> None:
    merged = aggregate(
        torch.tensor([[1.0, 2, 3, 4]]), torch.ones(1, 4), mode, episodes=torch.tensor([0]), **options(mode)
    )
    split = aggregate(
        torch.tensor([[1.0, 0, 0, 0], [2, 3, 4, 0]]),
        torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]]),
        mode,
        episodes=torch.tensor([0, 0]),
        **options(mode),
    )
    assert torch.allclose(merged, split) == (mode in ("token_mean", "constant", "per_episode"))


@pytest.mark.parametrize("mode", sorted(MODES))
def test_an_empty_mask_gives_zero(mode: str) -> None:
    assert float(aggregate(VALUES, torch.zeros_like(MASK), mode, episodes=EPISODES, **options(mode))) == 0


@pytest.mark.parametrize("mode", sorted(MODES))
def test_nan_outside_the_mask_reaches_neither_loss_nor_gradient(mode: str) -> None:
    values = torch.where(MASK.bool(), VALUES, torch.nan).requires_grad_()
    found = aggregate(values, MASK, mode, episodes=EPISODES, **options(mode))
    (gradient,) = torch.autograd.grad(found, values)
    assert torch.isfinite(found) and torch.isfinite(gradient).all() and not gradient[~MASK.bool()].any()


def test_half_precision_adds_up_in_float32() -> None:
    assert (
        float(aggregate(torch.ones(1, 1000, dtype=torch.bfloat16), torch.ones(1, 1000), "constant", constant=1)) == 1000
    )


def test_what_aggregation_refuses() -> None:
    with pytest.raises(ConfigError, match=r"'token_maen'.*did you mean 'token_mean'"):
        aggregate(VALUES, MASK, "token_maen")
    with pytest.raises(ConfigError, match="'constant' needs one"):
        aggregate(VALUES, MASK, "constant")
    with pytest.raises(ConfigError, match="others refuse it"):
        aggregate(VALUES, MASK, "token_mean", constant=3.0)
    with pytest.raises(ConfigError, match="must be positive"):
        normalizer(MASK, "constant", constant=0.0)
    with pytest.raises(ConfigError, match="normalizer of mode 'token_mean'"):
        aggregate(VALUES, MASK, "seq_mean_token_sum", normalizer=normalizer(MASK, "token_mean"))
    with pytest.raises(CreditError, match=r"needs episodes \[4\]"):
        aggregate(VALUES, MASK, "per_episode")
    with pytest.raises(CreditError, match="episode 3 of this micro-batch"):
        whole = normalizer(MASK, "per_episode", EPISODES)
        aggregate(VALUES[:1], MASK[:1], "per_episode", normalizer=whole, episodes=torch.tensor([3]))
