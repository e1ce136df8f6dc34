"""How many held-out puzzles are solved after each supervision step, and whether that is more than another network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.errors import DataError
from troupe.maths.statistics import Interval, mcnemar, paired_proportions, wilson
from troupe.training.recursion import IGNORED, Recursive, solved

__all__ = ["Comparison", "Outcome", "compare", "evaluate", "stored_outcome"]

BATCH = 512
"""Puzzles at a time."""


@dataclass(frozen=True)
class Outcome:
    """What a network did with n puzzles in S supervision steps. `exact` bool `[S, n]`: right in all cells; `cells`
    float `[S, n]`: share of right cells; `halts` bool `[S, n]`: whether it would have stopped there."""

    exact: np.ndarray
    cells: np.ndarray
    halts: np.ndarray

    @property
    def solved(self) -> np.ndarray:
        """Bool `[n]`, after the last step."""
        found: np.ndarray = self.exact[-1]
        return found

    def intervals(self) -> list[Interval]:
        """Exact accuracy after each step, with Wilson's 95 % interval."""
        return [wilson(int(step.sum()), len(step)) for step in self.exact]

    def metrics(self) -> dict[str, float]:
        """`eval/exact`, `eval/exact_low`, `eval/exact_high` and `eval/cells` after the last step, `eval/exact/<step>`
        after each, and `eval/halt_right`: how often stopping or going on was right."""
        found = self.intervals()
        last = found[-1]
        return {
            "eval/exact": last.mean,
            "eval/exact_low": last.low,
            "eval/exact_high": last.high,
            "eval/cells": float(self.cells[-1].mean()),
            "eval/halt_right": float((self.halts == self.exact).mean()),
            **{f"eval/exact/{step}": interval.mean for step, interval in enumerate(found, start=1)},
        }


@torch.inference_mode()
def evaluate(
    net: Recursive, tokens: Tensor, labels: Tensor, *, steps: int, identities: Tensor | None = None
) -> Outcome:
    """All `steps` supervision steps on every puzzle, whatever the network would rather do; int64 `[n, L]` each.

    Raises DataError for no puzzle.
    """
    if not len(tokens):
        raise DataError("there are no puzzles to evaluate; an empty held-out set has no accuracy")
    parts = [
        _segments(net, tokens[i : i + BATCH], labels[i : i + BATCH], steps,
                  None if identities is None else identities[i : i + BATCH])
        for i in range(0, len(tokens), BATCH)
    ]  # fmt: skip
    return Outcome(*(np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)))


def _segments(
    net: Recursive, tokens: Tensor, labels: Tensor, steps: int, identities: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    carry, asked = net.initial_carry(len(tokens)), labels != IGNORED
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(steps):
        segment = net(carry, tokens, identities)
        carry = segment.carry
        right = (segment.logits.argmax(-1) == labels) & asked
        stop = 0.0 if segment.q_continue is None else segment.q_continue
        rows.append((solved(segment.logits, labels), right.sum(1) / asked.sum(1).clamp(min=1), segment.q_halt > stop))
    exact, cells, halts = (torch.stack(column).cpu().numpy() for column in zip(*rows, strict=True))
    return exact, cells.astype(np.float64), halts


# ---------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same n puzzles: solved by this one alone (`ours`), by the other alone (`theirs`), by both.
    `difference`: of the shares solved, with its 95 % interval; `p`: of McNemar's exact test."""

    ours: int
    theirs: int
    both: int
    difference: Interval
    p: float

    @property
    def better(self) -> bool:
        """Whether this one solves more, beyond chance at the 5 % level."""
        return self.ours > self.theirs and self.p < 0.05

    def sentence(self, other: str) -> str:
        """What was found, as the end of a sentence about this network."""
        gap = self.difference
        numbers = (
            f"{self.ours + self.both} against {self.theirs + self.both} of {gap.n}, {100 * gap.mean:+.1f} points "
            f"[{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], McNemar p = {self.p:.2g}"
        )
        if self.better:
            return f"solves more puzzles than {other}: {numbers}"
        if self.theirs > self.ours and self.p < 0.05:
            return f"solves fewer puzzles than {other}: {numbers}"
        return f"was not shown to solve more puzzles than {other}: {numbers}"


def compare(ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Two outcomes bool `[n]` on the same puzzles. Raises DataError for different lengths, and for no puzzle."""
    first, second = ours.tolist(), theirs.tolist()
    difference, p = paired_proportions(first, second), mcnemar(first, second)
    return Comparison(
        int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), int((ours & theirs).sum()), difference, p
    )


def stored_outcome(record: Mapping[str, Any], digest: str, source: str) -> np.ndarray:
    """The outcome in a run's held_out.json. Raises DataError where its puzzles are others."""
    if record.get("puzzles") != digest:
        raise DataError(
            f"{source} was judged by other held-out puzzles; give both runs the same seed and the same data section"
        )
    return np.array(record["solved"], bool)
