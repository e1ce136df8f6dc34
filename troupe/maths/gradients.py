"""Gradients as values: lists of tensors that are compared, combined and clipped before the optimiser sees them.

A gradient here is a sequence of P tensors, one per parameter, as `torch.autograd.grad` returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from troupe.errors import TrainingError

__all__ = ["Combined", "clip_by_global_norm", "global_norm", "pcgrad"]


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
    given = [tuple(gradient) for gradient in gradients]
    dots = torch.stack([torch.stack([_dot(a, b) for b in given]) for a in given])
    projected, count = [], 0
    for i, gradient in enumerate(given):
        for j in torch.randperm(len(given), generator=generator).tolist():
            if j != i and (overlap := _dot(gradient, given[j])) < 0:
                scale = overlap / dots[j, j]
                gradient = tuple(a - scale.to(a.dtype) * b for a, b in zip(gradient, given[j], strict=True))
                count += 1
        projected.append(gradient)
    combined = tuple(torch.stack(parts).sum(dim=0) for parts in zip(*projected, strict=True))
    return Combined(combined, _cosine(dots), count)


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all tensors together, a float64 scalar; 0 for none."""
    return _dot(tensors, tensors).sqrt()


def clip_by_global_norm(tensors: Sequence[Tensor], max_norm: float) -> tuple[tuple[Tensor, ...], Tensor]:
    """Scales all tensors by min(1, max_norm / (norm + 1e-6)); returns them and the norm before.

    The 1e-6 is that of `torch.nn.utils.clip_grad_norm_`, whose results these are. A norm that is not finite makes every
    tensor NaN or zero: look at it before the optimiser steps.
    """
    norm = global_norm(tensors)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return tuple(tensor * scale.to(tensor.dtype) for tensor in tensors), norm


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Dot product over all tensors, added up in float64: millions of float32 squares lose their last digits."""
    products = [(x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)]
    return torch.stack(products).sum() if products else torch.zeros((), dtype=torch.float64)


def _cosine(dots: Tensor) -> Tensor:
    norms = dots.diagonal().sqrt()
    scale = norms[:, None] * norms[None, :]
    return torch.where(scale > 0, dots / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)


def _check(gradients: Sequence[Sequence[Tensor]]) -> None:
    shapes = [[tuple(tensor.shape) for tensor in gradient] for gradient in gradients]
    if not shapes or not shapes[0]:
        raise TrainingError("pcgrad was given no gradient: pass at least one, with at least one tensor")
    for k, found in enumerate(shapes):
        if found != shapes[0]:
            raise TrainingError(
                f"gradient {k} has shapes {found} but gradient 0 has {shapes[0]}: use the same parameters"
            )
