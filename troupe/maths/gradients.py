"""Gradients as values: lists of tensors that are compared, combined and clipped before the optimiser sees them.

A gradient here is a sequence of P tensors, one per parameter, as `torch.autograd.grad` returns it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from troupe.errors import TrainingError

__all__ = ["Combined", "clip_by_global_norm", "global_norm", "pcgrad"]

_COLUMNS = 1 << 20
"""Numbers per gradient that are doubled in precision at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """One gradient made of K, and how much they disagreed."""

    gradient: tuple[Tensor, ...]  # P tensors, the sum of the K projected gradients
    cosine: Tensor  # float64 [K, K], between the gradients as given; 0 with a zero gradient
    projections: int  # how many of the K (K - 1) ordered pairs were projected


def pcgrad(gradients: Sequence[Sequence[Tensor]], generator: torch.Generator) -> Combined:
    """Projects conflicting gradients before they are added (PCGrad, Yu et al. 2020, algorithm 1, arXiv:2001.06782).

        for each i, for each j != i in random order:  if g_i . g_j < 0:  g_i <- g_i - (g_i . g_j / |g_j|^2) g_j
        result = sum_i g_i

    `gradients` holds K gradients of P tensors each; g_j is always the one given, g_i the one projected so far.
    `generator` draws the order. Without conflict the result is the plain sum.

    Right for objectives that share parameters and at times pull in opposite directions (three traders and their
    meta-controller). Wrong for noisy gradients of one objective: negative dot products are then chance, and projecting
    them away is bias; look at `cosine` over some updates first.

    Raises TrainingError where the gradients do not match in number or shape.
    """
    _check(gradients)
    flat = _flat([tensor for gradient in gradients for tensor in gradient]).view(len(gradients), -1)
    dots = _dots(flat).tolist()
    weights, count = _weights(dots, generator)
    # A projected gradient is a sum of the given ones, so their dot products say all; tensors are touched twice.
    combined = torch.tensor(weights, dtype=flat.dtype, device=flat.device) @ flat if count else flat.sum(0)
    return Combined(_parts(combined, gradients[0]), torch.tensor(_cosine(dots), dtype=torch.float64), count)


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, a float64 scalar; 0 for none."""
    return _dots(_flat(tensors)[None]).sqrt()[0, 0] if tensors else torch.zeros((), dtype=torch.float64)


def clip_by_global_norm(tensors: Sequence[Tensor], max_norm: float) -> tuple[tuple[Tensor, ...], Tensor]:
    """Scales all tensors by min(1, max_norm / (norm + 1e-6)); returns them and the norm before.

    The 1e-6 is that of `torch.nn.utils.clip_grad_norm_`, whose results these are. A norm that is not finite makes every
    tensor NaN or zero: look at it before the optimiser steps.
    """
    norm = global_norm(tensors)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return tuple(torch._foreach_mul(list(tensors), scale)) if tensors else (), norm


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """All tensors in one row, of the widest type among them."""
    return torch._utils._flatten_dense_tensors(tensors)  # half the time of torch.cat where tensors are many and small


def _parts(row: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The inverse of `_flat`: tensors with the shapes and types of `like`."""
    shaped = torch._utils._unflatten_dense_tensors(row, like)
    return tuple(s if s.dtype == t.dtype else s.to(t.dtype) for s, t in zip(shaped, like, strict=True))


def _dots(flat: Tensor) -> Tensor:
    """Dot products `[K, K]` of the rows of `[K, D]`, added up in float64: millions of float32 squares lose their last
    digits. Some columns at a time, so that copies stay small."""
    first, *more = (flat,) if flat.shape[1] <= _COLUMNS else flat.split(_COLUMNS, dim=1)
    total = (wide := first.double()) @ wide.T
    for columns in more:
        total += (wide := columns.double()) @ wide.T
    return total


def _weights(dots: list[list[float]], generator: torch.Generator) -> tuple[list[float], int]:
    """(how often each given gradient is in the sum of the projected ones, number of projections)."""
    size, count = len(dots), 0
    total = [0.0] * size
    for i in range(size):
        made_of = [float(k == i) for k in range(size)]
        for j in torch.randperm(size, generator=generator).tolist():
            if j == i or not dots[j][j] > 0:  # a square can underflow to 0 where a product does not
                continue
            if (overlap := sum(w * row[j] for w, row in zip(made_of, dots, strict=True))) < 0:
                made_of[j] -= overlap / dots[j][j]
                count += 1
        total = [a + b for a, b in zip(total, made_of, strict=True)]
    return total, count


def _cosine(dots: list[list[float]]) -> list[list[float]]:
    norms = [math.sqrt(row[k]) for k, row in enumerate(dots)]
    return [
        [dot / (a * b) if a > 0 and b > 0 else 0.0 for dot, b in zip(row, norms, strict=True)]
        for row, a in zip(dots, norms, strict=True)
    ]


def _check(gradients: Sequence[Sequence[Tensor]]) -> None:
    shapes = [[tuple(tensor.shape) for tensor in gradient] for gradient in gradients]
    if not shapes or not shapes[0]:
        raise TrainingError("pcgrad was given no gradient: pass at least one, with at least one tensor")
    for k, found in enumerate(shapes):
        if found != shapes[0]:
            raise TrainingError(
                f"gradient {k} has shapes {found} but gradient 0 has {shapes[0]}: use the same parameters"
            )
