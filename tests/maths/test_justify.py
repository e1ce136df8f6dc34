from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.maths.justify import left_justify, scatter_back


def test_columns_move_left_in_order() -> None:
    mask = torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0]])
    packed = left_justify(mask, torch.tensor([[10.0, 11, 12, 13], [20, 21, 22, 23]]))
    assert packed.tensors[0].tolist() == [[11, 13, 0], [20, 21, 22]]
    assert packed.valid.tolist() == [[True, True, False], [True, True, True]]
    assert packed.index[:, :2].tolist() == [[1, 3], [0, 1]]


def test_an_empty_mask_has_no_columns() -> None:
    packed = left_justify(torch.zeros(2, 3), torch.ones(2, 3))
    assert packed.tensors[0].shape == (2, 0)
    assert scatter_back(packed.tensors[0], packed).tolist() == [[0, 0, 0], [0, 0, 0]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_there_and_back_keeps_what_the_mask_keeps(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    flat = torch.arange(1.0, mask.numel() + 1).reshape(mask.shape)
    deep = torch.stack([flat, -flat], dim=-1)
    packed = left_justify(mask, flat, deep)
    assert torch.equal(scatter_back(packed.tensors[0], packed), flat * mask)
    assert torch.equal(scatter_back(packed.tensors[1], packed), deep * mask[..., None])
    assert packed.valid.sum(dim=1).tolist() == mask.sum(dim=1).tolist()


def test_nan_outside_the_mask_is_left_behind() -> None:
    packed = left_justify(torch.tensor([[1, 0]]), torch.tensor([[1.0, torch.nan]]))
    assert packed.tensors[0].tolist() == [[1.0]]
