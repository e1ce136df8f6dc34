"""Columns that count, packed to the left: `[B, T]` with a mask to dense `[B, L]` and back.

A row of a merged conversation is mostly prompt and tool text; time, for credit, runs over sampled tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Justified", "left_justify", "scatter_back"]


@dataclass(frozen=True, slots=True, eq=False)
class Justified:
    """Masked columns packed to the left; `scatter_back` is the way home."""

    tensors: tuple[Tensor, ...]  # each [B, L, ...], zero where not valid
    valid: Tensor  # bool [B, L]
    index: Tensor  # int64 [B, L]: column of the wide tensor that stands here
    width: int  # T


def left_justify(mask: Tensor, *tensors: Tensor) -> Justified:
    """Packs the columns of each `[B, T, ...]` tensor where `mask[B, T]` is set to the left, order kept.

    L is the largest number of set columns in a row. Time then runs over sampled tokens alone: a tool's answer, however
    long, lies between two actions and is discounted like none.
    """
    mask = mask.bool()
    length = int(mask.sum(dim=1).max()) if mask.numel() else 0
    index = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)[:, :length]
    rows = torch.arange(mask.shape[0], device=mask.device)[:, None]
    valid = mask[rows, index]
    dense = (tensor[rows, index] for tensor in tensors)
    return Justified(tuple(_zero_outside(tensor, valid) for tensor in dense), valid, index, mask.shape[1])


def scatter_back(dense: Tensor, justified: Justified) -> Tensor:
    """Inverse of `left_justify`: `[B, L, ...]` to `[B, T, ...]`, zero in the columns that were not kept."""
    wide = dense.new_zeros(dense.shape[0], justified.width, *dense.shape[2:])
    rows = torch.arange(dense.shape[0], device=dense.device)[:, None]
    wide[rows, justified.index] = _zero_outside(dense, justified.valid)
    return wide


def _zero_outside(tensor: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid.reshape(*valid.shape, *(1,) * (tensor.dim() - 2)), tensor, torch.zeros_like(tensor))
