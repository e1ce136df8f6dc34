"""The layout: every token of every row sits on a node whose ancestors are the row before it, and on no other."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from troupe.models.prefix_tree import MAX_NODES, TreeLayout, partition, tree_layout

Row = tuple[
    list[int], list[int]
]  # what is before the first sampled token, and what follows: (id, sampled) as id * 2 + s

rows_of_few_letters = st.lists(
    st.tuples(st.lists(st.integers(1, 2), min_size=1, max_size=12), st.lists(st.integers(2, 5), max_size=6)),
    min_size=1,
    max_size=8,
)


def dense(rows: Sequence[Row]) -> tuple[Tensor, Tensor, list[int]]:
    """ids, mask, lengths; two or three letters, so that prefixes are often shared."""
    lengths = [len(prompt) + len(rest) for prompt, rest in rows]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    mask = torch.zeros(len(rows), max(lengths))
    for i, (prompt, rest) in enumerate(rows):
        ids[i, : lengths[i]] = torch.tensor(prompt + [code // 2 for code in rest])
        mask[i, len(prompt) : lengths[i]] = torch.tensor([float(code % 2) for code in rest])
    return ids, mask, lengths


def seen_by(layout: TreeLayout, flat: int) -> list[int]:
    """The ids that a node sees, itself included, in the order of their positions."""
    tree, node = divmod(flat, layout.input_ids.shape[1])
    nodes = torch.nonzero(layout.attention_mask[tree, 0, node])[:, 0]
    order = nodes[layout.position_ids[tree, nodes].argsort()]
    assert layout.position_ids[tree, order].tolist() == list(range(len(order)))
    return list(layout.input_ids[tree, order].tolist())


@given(rows_of_few_letters, st.booleans(), st.integers(1, 40))
@settings(deadline=None, max_examples=150)
def test_what_predicts_a_token_has_seen_exactly_what_stands_before_it(rows: list[Row], share: bool, nodes: int) -> None:
    ids, mask, lengths = dense(rows)
    layout = tree_layout(ids, mask, lengths, share=share, max_nodes=nodes)
    found = list(zip(layout.row.tolist(), layout.column.tolist(), strict=True))
    assert found == [tuple(place) for place in torch.nonzero(mask).tolist()]
    for (row, column), before in zip(found, layout.before.tolist(), strict=True):
        assert seen_by(layout, before) == ids[row, :column].tolist()
    assert bool(layout.attention_mask.any(-1).all())  # no node is blind: its scores would be NaN
    if not share:
        assert len(layout.input_ids) == len(rows)


@given(rows_of_few_letters, st.integers(1, 60), st.booleans())
@settings(deadline=None, max_examples=60)
def test_micro_batches_hold_every_row_once(rows: list[Row], budget: int, share: bool) -> None:
    ids, _, lengths = dense(rows)
    parts = list(partition(ids, lengths, budget, share=share))
    assert sorted(i for part in parts for i in part) == list(range(len(rows)))
    for part in parts:
        if not share:  # a shared tree may fall in two where its rows' last tokens predict nothing: the budget is about
            assert len(part) * max(lengths[i] for i in part) <= budget or len(part) == 1


def test_attempts_at_one_task_stay_together() -> None:
    rows = [([task] * 20, [2 * (50 + i) + 1] * 3) for i in range(4) for task in (1, 2, 3)]
    ids, _, lengths = dense(rows)
    parts = [sorted(i % 3 for i in part) for part in partition(ids, lengths, 40)]
    assert sorted(parts) == [[0] * 4, [1] * 4, [2] * 4]


def test_a_shared_prompt_is_laid_out_once() -> None:
    """Eight answers of 10 tokens to one prompt of 40: 40 + 8 * 9 nodes (nothing is predicted from a last token), not
    392."""
    rng = random.Random(0)
    prompt = [rng.randrange(1, 90) for _ in range(40)]
    rows = [(prompt, [2 * rng.randrange(100, 200) + 1 for _ in range(10)]) for _ in range(8)]
    layout = tree_layout(*dense(rows))
    assert tuple(layout.input_ids.shape) == (1, 40 + 8 * 9)


def test_a_tree_closes_before_it_grows_too_large() -> None:
    rows = [([1] * 60, [2 * (10 + i) + 1] * 40) for i in range(20)]
    layout = tree_layout(*dense(rows))
    assert len(layout.input_ids) > 1 and layout.input_ids.shape[1] <= MAX_NODES


def test_rows_without_a_sampled_token_cost_nothing() -> None:
    ids, mask, lengths = dense([([1, 2, 1, 2], [4, 4]), ([2, 2], [5])])
    layout = tree_layout(ids, mask, lengths, share=False)
    assert (layout.row.tolist(), layout.column.tolist()) == ([1], [2]) and layout.input_ids.shape[1] == 2


@pytest.mark.parametrize("share", [True, False])
def test_equal_rows_lie_on_one_another(share: bool) -> None:
    layout = tree_layout(*dense([([1, 2], [5, 5]), ([1, 2], [5, 5])]), share=share)
    assert tuple(layout.input_ids.shape) == ((1, 3) if share else (2, 3))
    assert len(layout.before) == 4
